"""Objects are looked at and what is seen is measured, a batch of prompts at a time.

What is kept of a batch are its V * P features (and, beside the truth, its pictures) until its measures are taken, and
of the gallery its features: nothing grows with the number of prompts.

Axes: P prompts, V views, E features, G texts of the gallery, H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scaledreamer.clip.files import find
from scaledreamer.clip.measures import Texts, measure, views_from_behind
from scaledreamer.clip.model import Clip
from scaledreamer.evaluate.gallery import Gallery
from scaledreamer.evaluate.protocols import Protocol
from scaledreamer.evaluate.rows import Row
from scaledreamer.render.shots import parts
from scaledreamer.toybox.scores import Views
from scaledreamer.training.trained import Trained

DIGITS = 6
"""Of what is kept: a float32 has no more."""


@dataclass
class Judge:
    """A protocol's CLIP, and the gallery it has read last: shared by the runs of a call."""

    clip: Clip
    _gallery: tuple[str, Tensor] | None = field(default=None, repr=False)  # digest, [G, E]

    @classmethod
    def of(cls, protocol: Protocol, device: torch.device) -> "Judge":
        """The protocol's, loaded; downloaded before where need be.

        Raises:
            UserError: it cannot be had.
        """
        return cls(Clip(find(protocol.clip), resample=protocol.resample, device=device))

    def features(self, gallery: Gallery) -> Tensor:
        """Features [G, E] of a gallery, read once."""
        if self._gallery is None or self._gallery[0] != gallery.digest:
            self.clip.warn_of_cut(gallery.texts)
            self._gallery = (gallery.digest, self.clip.read(gallery.texts))
        return self._gallery[1]


@torch.no_grad()
def scored(
    trained: Trained,
    prompts: Sequence[str],
    *,
    protocol: Protocol,
    gallery: Gallery,
    judge: Judge,
    tick: Callable[[int], None] = lambda pictures: None,
) -> list[Row]:
    """What is measured of a batch of P prompts.

    Args:
        trained: has the generator.
        prompts: of the batch.
        protocol: how they are looked at.
        gallery: what recall chooses among.
        judge: of the protocol.
        tick: is told how many pictures were taken.
    """
    cameras, clip = protocol.cameras(trained.system), judge.clip
    seen, views = _looked_at(trained, prompts, protocol, clip, tick)
    places = torch.tensor([gallery.places.get(prompt, -1) for prompt in prompts])
    front, back = (
        clip.read([template.format(prompt=prompt) for prompt in prompts])
        for template in (protocol.front, protocol.back)
    )
    texts = Texts(prompt=clip.read(prompts), front=front, back=back, place=places.to(seen.device))
    behind = views_from_behind(cameras.azimuth, within=protocol.behind)
    found = measure(seen, texts, judge.features(gallery), behind=behind)
    if not gallery.decides:
        found = {name: values for name, values in found.items() if name != "rank" and "recall" not in name}
    if views is not None:
        found |= protocol.against_truth(prompts, views, cameras, trained.system)
    columns = {name: values.tolist() for name, values in found.items()}
    return [
        Row(
            prompt=prompt,
            in_gallery=prompt in gallery.places,
            measures={name: round(values[i], DIGITS) for name, values in columns.items()},
        )
        for i, prompt in enumerate(prompts)
    ]


def _looked_at(
    trained: Trained, prompts: Sequence[str], protocol: Protocol, clip: Clip, tick: Callable[[int], None]
) -> tuple[Tensor, Views | None]:
    """Features [P, V, E] of the pictures, and the pictures themselves on the CPU where the protocol wants them."""
    system, count = trained.system, len(prompts)
    cameras, size = protocol.cameras(system), protocol.size_for(system)
    text = trained.embed(prompts)
    made = system.field(text)
    features, rgb, opacity = [], [], []
    for part in parts(len(cameras), prompts=count, size=size):
        rendering = system.look(made, text, cameras.select(part).repeat(count), size)
        pictures = protocol.picture(rendering)  # [P * v, H, W, 3]
        features.append(clip.see(pictures).unflatten(0, (count, -1)))
        if protocol.compares_with_truth:
            rgb.append(pictures.cpu().unflatten(0, (count, -1)))
            opacity.append(rendering.opacity[..., 0].float().nan_to_num(0.0).cpu().unflatten(0, (count, -1)))
        tick(len(pictures))
    views = Views(rgb=torch.cat(rgb, dim=1), opacity=torch.cat(opacity, dim=1)) if rgb else None
    return torch.cat(features, dim=1), views
