"""How objects are looked at and by which CLIP: what a figure has to say of itself to be compared with another."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le

from scaledreamer.clip.files import Resample
from scaledreamer.constraints import PositiveInt, Probability, Template
from scaledreamer.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from scaledreamer.cameras import Cameras
    from scaledreamer.evaluate.rows import Row
    from scaledreamer.renderers.base import Rendering
    from scaledreamer.system import TextTo3D
    from scaledreamer.toybox.scores import Views

BACKGROUNDS = {"white": 1.0, "grey": 0.5, "black": 0.0}
"""Plain backgrounds and their colour."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Views on a circle about each object, and a CLIP that compares them with texts.

    Args:
        name: of the folder of results.
        clip: a folder in transformers' layout, ``toy_clip`` or a hub name.
        views: in equal steps, the first at the front.
        elevation: of the cameras, degrees; None for that of the run's evaluation cameras, whose distance and field of
            view they have.
        size: side of the pictures in pixels, before the CLIP's own preprocessing; None for that of those cameras.
        background: behind the objects; ``learned`` is the generator's own.
        resample: how pictures are resized for the CLIP; None for what its files say.
        behind: a view at most so many degrees from 180 is one from behind.
        front, back: wordings of a prompt that views from behind are compared with.

    Raises:
        UserError: the name cannot be a folder's.
    """

    name: str
    clip: str
    views: PositiveInt
    elevation: Annotated[float, Ge(-89), Le(89)] | None = None
    size: PositiveInt | None = None
    background: Literal["learned", "white", "grey", "black"] = "learned"
    resample: Resample | None = None
    behind: Annotated[float, Ge(0), Le(90)] = 30.0
    front: Template = "{prompt}, front view"
    back: Template = "{prompt}, back view"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise UserError(f"name={self.name} cannot be a folder's; use letters, digits, dots and dashes.")

    def for_run(self, config: dict[str, Any]) -> "tuple[Protocol, str]":
        """The protocol that a run of this configuration is scored by, and why."""
        return self, "as asked for"

    @property
    def recipe(self) -> dict[str, Any]:
        """What figures follow from, besides the generator and the gallery."""
        folder = Path(self.clip).expanduser()
        return {**asdict(self), "clip": str(folder.resolve()) if folder.is_dir() else self.clip}

    def size_for(self, system: "TextTo3D") -> int:
        """Side of the pictures, pixels."""
        return self.size or system.cameras.test_image_size

    def cameras(self, system: "TextTo3D") -> "Cameras":
        """The V cameras, on the system's device."""
        circle = system.cameras.orbit(self.views, device=system.device)
        return circle if self.elevation is None else circle.at_elevation(self.elevation)

    def picture(self, rendering: "Rendering") -> "Tensor":
        """What the CLIP is shown: [B, H, W, 3] in [0, 1]; black where a render is not a number."""
        rgb = rendering.rgb
        if self.background != "learned":
            rgb = rendering.foreground + BACKGROUNDS[self.background] * (1 - rendering.opacity)
        return rgb.float().nan_to_num(0.0).clamp(0, 1)

    def require(self, prompts: Sequence[str]) -> None:
        """Raise :class:`UserError` for prompts that cannot be scored."""

    compares_with_truth = False
    """Whether :meth:`against_truth` wants pictures."""

    def against_truth(
        self, prompts: Sequence[str], ours: "Views", cameras: "Cameras", system: "TextTo3D"
    ) -> "dict[str, Tensor]":
        """More measures [P] of P prompts, from pictures on the CPU."""
        return {}

    def completed(self, rows: "Sequence[Row]", config: dict[str, Any]) -> "list[Row]":
        """The rows of all prompts with what only all together can tell."""
        return list(rows)


@dataclass(frozen=True, kw_only=True)
class ToyboxProtocol(Protocol):
    """The same, and the true toys beside it (:mod:`scaledreamer.toybox.scores`).

    Args:
        ceiling: mean IoU that the same generator comes to with ``guidance=truth_toy``, for ``share``; None for what the
            run's own report takes for it, if it has one.
        name, clip, views, elevation, size, background, resample, behind, front, back: see :class:`Protocol`.

    Raises:
        UserError: the views are not whole quarter turns, or the background is not that of the true pictures.
    """

    ceiling: Probability | None = None
    compares_with_truth = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views % 4:
            raise UserError(f"views={self.views} must be a multiple of 4: toys are turned by quarters.")
        if self.background != "grey":
            raise UserError(f"background={self.background} must be grey: that is behind the true toys.")

    def require(self, prompts: Sequence[str]) -> None:
        """Raise :class:`UserError` for what is no toy."""
        from scaledreamer.toybox.vocabulary import parse

        for prompt in prompts:
            try:
                parse(prompt)
            except UserError as error:
                raise UserError(f"{error} Other prompts are scored with protocol=scaledreamer or prd.") from error

    def against_truth(
        self, prompts: Sequence[str], ours: "Views", cameras: "Cameras", system: "TextTo3D"
    ) -> "dict[str, Tensor]":
        """``iou``, ``sphere_iou``, ``color_error`` and ``upright`` [P]."""
        from scaledreamer.toybox.report import true_views
        from scaledreamer.toybox.scores import against_truth

        truth = true_views(prompts, cameras, self.size_for(system))
        radius = getattr(system.generator, "sphere_radius", 0.0)
        return against_truth(ours, truth, cameras, sphere_radius=radius)

    def completed(self, rows: "Sequence[Row]", config: dict[str, Any]) -> "list[Row]":
        """The rows with ``share``: of the way from the mean IoU of the initial spheres to the ceiling."""
        ceiling = self.ceiling
        if ceiling is None:
            ceiling = (config.get("callbacks", {}).get("toybox") or {}).get("ceiling")
        if ceiling is None:
            return list(rows)
        import torch

        from scaledreamer.toybox.scores import share

        found, sphere = (torch.tensor([row.measures[name] for row in rows]) for name in ("iou", "sphere_iou"))
        shares = share(found, sphere, ceiling=ceiling)
        return [
            replace(row, measures={**row.measures, "share": round(float(value), 6)})
            for row, value in zip(rows, shares, strict=True)
        ]


class Automatic:
    """Chooses by the run.

    Args:
        toybox: for runs that the toybox's own prior or truth taught.
        others: for all others.
    """

    def __init__(self, *, toybox: Protocol, others: Protocol) -> None:
        self.toybox, self.others = toybox, others

    def for_run(self, config: dict[str, Any]) -> tuple[Protocol, str]:
        """See :meth:`Protocol.for_run`."""
        from scaledreamer.priors.locate import BUNDLED

        if config["guidance"]["prior"].get("path") in BUNDLED:
            return self.toybox, "since the run is of the toybox; protocol=... chooses another"
        return self.others, "since the run is not of the toybox; protocol=... chooses another"
