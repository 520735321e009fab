"""One prompt's field in a hash grid of its own (Instant NGP, Mueller et al., SIGGRAPH 2022), as in DreamFusion's line.

ScaleDreamer's baseline for single prompts (arXiv 2407.02040). Parameter names follow the reference's modules.
"""

from typing import ClassVar, Literal

from torch import Tensor

from scaledreamer.constraints import PositiveFloat, PositiveInt
from scaledreamer.encodings.hash_grid import HashGrid
from scaledreamer.fields.base import DensityField
from scaledreamer.fields.blob import BlobField
from scaledreamer.fields.mlp import MLP
from scaledreamer.generators.base import Generator
from scaledreamer.published import PublishedNames, box
from scaledreamer.randomness import StepRandom


class INGPGenerator(Generator):
    """The same density field for any text: what is learned is the one prompt of the run.

    Args:
        encoding: the grid, over the box.
        hidden: width of the density's and of the colour's network, which have one hidden layer each.
        radius: half the side of the box, world units.
        blob_scale: density in the middle before anything is learned, 1 / world units.
        blob_radius: where that density has fallen to 0, world units.
        normal_eps: step of the finite differences that normals are taken from, world units.
    """

    field: ClassVar[Literal["sdf", "density"]] = "density"
    one_prompt: ClassVar[bool] = True
    published_names: ClassVar[PublishedNames] = {"encoding.encoding.encoding.": "encoding."}

    def __init__(
        self,
        *,
        encoding: HashGrid,
        hidden: PositiveInt = 64,
        radius: PositiveFloat = 1.0,
        blob_scale: PositiveFloat = 10.0,
        blob_radius: PositiveFloat = 0.5,
        normal_eps: PositiveFloat = 0.01,
    ) -> None:
        super().__init__()
        self.radius, self.blob_scale, self.blob_radius = radius, blob_scale, blob_radius
        self.normal_eps = normal_eps
        self.encoding = encoding
        self.density_network = MLP([encoding.width, hidden, 1])
        self.feature_network = MLP([encoding.width, hidden, 3])

    @property
    def sphere_radius(self) -> float:
        """Of the ball that is seen before anything is learned: there the paper's blob lets half of the light pass."""
        return 0.88 * self.blob_radius

    def constants(self) -> dict[str, Tensor]:
        """See :mod:`scaledreamer.published`."""
        return {"bbox": box(self.radius)}

    def forward(self, text: Tensor, latent: Tensor | None = None, random: StepRandom | None = None) -> DensityField:
        """See :meth:`scaledreamer.generators.base.Generator.forward`; of the text only its number P counts."""
        return BlobField(
            prompts=len(text),
            encoding=self.encoding,
            density_network=self.density_network,
            feature_network=self.feature_network,
            radius=self.radius,
            blob_scale=self.blob_scale,
            blob_radius=self.blob_radius,
            eps=self.normal_eps,
        )
