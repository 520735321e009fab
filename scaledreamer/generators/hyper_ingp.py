"""Hyper-iNGP: one hash grid for all prompts, and a hyper-network that emits each prompt's networks.

ScaleDreamer (arXiv 2407.02040), after ATT3D (Lorraine et al., ICCV 2023). Parameter names follow the reference's
modules, so that its published weights map by a change of prefix.

Axes: P prompts, D text width, F features of the grid.
"""

from typing import ClassVar

from torch import Tensor

from scaledreamer.constraints import PositiveFloat, PositiveInt
from scaledreamer.encodings.hash_grid import HashGrid
from scaledreamer.fields.base import SdfField
from scaledreamer.fields.hash_field import HashField
from scaledreamer.generators.base import Generator
from scaledreamer.hyper_network import HyperNetwork
from scaledreamer.published import PublishedNames, box
from scaledreamer.randomness import StepRandom


class HyperINGPGenerator(Generator):
    """Text (global) -> the networks that read a shared hash grid.

    Args:
        text_dim: width D of the prior's pooled text embedding.
        encoding: the grid, over the box.
        hidden: width of the emitted networks, which have one hidden layer.
        hyper_hidden: width of the hyper-network.
        radius: half the side of the box that the grid fills, world units.
        sphere_radius: of the sphere that the sdf starts from.
        normal_eps: step of the finite differences, world units.
        clamp_offsets: keep the differences' offset points inside the box, as the reference does; wrong outside it.
    """

    published_names: ClassVar[PublishedNames] = {"encoding.encoding.encoding.": "encoding."}

    def __init__(
        self,
        *,
        text_dim: PositiveInt,
        encoding: HashGrid,
        hidden: PositiveInt = 64,
        hyper_hidden: PositiveInt = 64,
        radius: PositiveFloat = 2.0,
        sphere_radius: PositiveFloat = 0.5,
        normal_eps: PositiveFloat = 0.01,
        clamp_offsets: bool = False,
    ) -> None:
        super().__init__()
        self.radius, self.sphere_radius = radius, sphere_radius
        self.normal_eps, self.clamp_offsets = normal_eps, clamp_offsets
        self.encoding = encoding
        sdf, color = [encoding.width, hidden, 1], [encoding.width, hidden, 3]
        self.hypernet = HyperNetwork(text_dim=text_dim, hidden=hyper_hidden, networks=[sdf, color])

    def constants(self) -> dict[str, Tensor]:
        """See :mod:`scaledreamer.published`."""
        return {"bbox": box(self.radius)}

    def forward(self, text: Tensor, latent: Tensor | None = None, random: StepRandom | None = None) -> SdfField:
        """See :meth:`scaledreamer.generators.base.Generator.forward`."""
        sdf_layers, color_layers = self.hypernet(text)
        return HashField(
            encoding=self.encoding,
            sdf_layers=sdf_layers,
            color_layers=color_layers,
            radius=self.radius,
            sphere_radius=self.sphere_radius,
            eps=self.normal_eps,
            clamp_offsets=self.clamp_offsets,
        )
