"""NeRF volume rendering of densities (Mildenhall et al., ECCV 2020) through an occupancy grid.

A ray loses the share alpha = 1 - exp(-density * length) of its light in an interval. Steps are equal and short, and
those in empty cells are left out: matter fills little of the box.

Axes: P prompts, V views per prompt, B = P * V images, H W pixels, N = V * H * W rays per prompt, K places per prompt.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.cameras import Rays
from scaledreamer.constraints import NonNegativeFloat, PositiveInt
from scaledreamer.errors import UserError
from scaledreamer.fields.base import DensityField
from scaledreamer.kernels.launch import has_triton
from scaledreamer.published import PublishedNames
from scaledreamer.randomness import StepRandom
from scaledreamer.renderers.base import Renderer, Rendering, joined
from scaledreamer.renderers.compositing import packed_weights
from scaledreamer.renderers.marching import Backend, March, Places, choose_backend, nerfacc_installed
from scaledreamer.renderers.occupancy import OccupancyGrid


class NeRFRenderer(Renderer):
    """Renders the density of one prompt, whose occupied cells it remembers.

    Args:
        grid: of the cells, over the field's box.
        samples: steps along the box's diagonal, all of the same length.
        places_per_ray: how many places of a training step are looked at per ray, at most, on average over the rays of a
            prompt. Where there are more, an even share of them is. On a GPU as many are computed as may be looked at,
            so that nothing waits for a count.
        capacity: places that a training step looks at, at most, however many its rays; memory follows it.
        normals: have training renders say what ``losses.orient`` needs. It takes three more densities at every place.
        near: least distance from the camera, world units.
        backend: what finds the places. ``torch`` runs everywhere; ``auto`` takes ``triton`` on GPUs, where that is
            installed; ``nerfacc`` finds those of its own steps, and waits for the GPU.
        chunk: rays rendered at a time without gradients; memory follows it.

    Raises:
        UserError: nerfacc or Triton is asked for and not installed.
    """

    fields: ClassVar[tuple[str, ...]] = ("density",)
    regularisers: ClassVar[dict[str, str | None] | None] = {"sparsity": None, "opaque": None, "orient": "normals"}
    one_prompt: ClassVar[bool] = True
    published_names: ClassVar[PublishedNames] = {
        "estimator.occs": "grid.occs",
        "estimator.binaries": "grid.binaries",
        "estimator.": None,  # what the field and the options say
        "bbox": None,
    }

    def __init__(
        self,
        *,
        grid: OccupancyGrid,
        samples: PositiveInt = 512,
        places_per_ray: PositiveInt = 128,
        capacity: PositiveInt = 2**21,
        normals: bool = False,
        near: NonNegativeFloat = 0.0,
        backend: Backend = "auto",
        chunk: PositiveInt = 8192,
    ) -> None:
        super().__init__()
        if backend == "nerfacc" and not nerfacc_installed():
            raise UserError(
                "renderer.backend: nerfacc is not installed; choose auto or torch, or pip install 'scaledreamer[cuda]'."
            )
        if backend == "triton" and not has_triton():
            raise UserError("renderer.backend: triton is not installed; choose auto or torch.")
        self.grid, self.samples, self.normals = grid, samples, normals
        self.places_per_ray, self.capacity = places_per_ray, capacity
        self.near, self.chunk = near, chunk
        self.backend: Backend = backend

    def step_size(self, radius: float) -> float:
        """Length of a step through a box of half side ``radius``, world units."""
        return 2 * math.sqrt(3) * radius / self.samples

    def update(self, field: DensityField, random: StepRandom) -> None:
        """See :meth:`scaledreamer.renderers.base.Renderer.update`."""
        self.grid.update(field, step_size=self.step_size(field.radius), batch=random.step)

    def forward(
        self, field: DensityField, rays: Rays, background: Tensor, random: StepRandom | None = None
    ) -> Rendering:
        """See :meth:`scaledreamer.renderers.base.Renderer.forward`."""
        images, height, width, _ = rays.origins.shape
        shift = random.uniform(images, height, width) if random is not None else None
        if torch.is_grad_enabled():
            together = min(self.capacity, self.places_per_ray * images * height * width)
            capacity = max(1, together // field.prompts) if random is not None else None  # evaluation looks at all
            return self.render(field, rays, background, shift, capacity, normals=self.normals or random is None)
        rows = max(1, self.chunk // (images * width))
        parts = []
        for top in range(0, height, rows):
            part = slice(top, top + rows)
            some = Rays(origins=rays.origins[:, part], directions=rays.directions[:, part])
            moved = shift[:, part] if shift is not None else None
            parts.append(self.render(field, some, background[:, part], moved, None, normals=True))
        return joined(parts)

    def render(
        self,
        field: DensityField,
        rays: Rays,
        background: Tensor,
        shift: Tensor | None,
        capacity: int | None,
        *,
        normals: bool,
    ) -> Rendering:
        """All rays at once.

        Args:
            field: of P prompts.
            rays: of B images.
            background: [B, H, W, 3].
            shift: of each ray's steps, as a part of a step, [B, H, W] in [0, 1); None: no shift.
            capacity: places looked at per prompt, at most; None: all.
            normals: look at the density's gradient as well.
        """
        shape = rays.origins.shape[:-1]  # B, H, W
        origins, directions = (r.reshape(field.prompts, -1, 3) for r in (rays.origins, rays.directions))  # [P, N, 3]
        march = March(
            grid=self.grid,
            radius=field.radius,
            step_size=self.step_size(field.radius),
            steps=self.samples,
            near=self.near,
        )
        shift = shift.reshape(origins.shape[:-1]) if shift is not None else None
        places = choose_backend(self.backend, origins.device)(march, origins, directions, shift, capacity)
        along = _of_places(directions, places)  # [P, K, 3]
        points = _of_places(origins, places) + places.t[..., None] * along
        sampled = field.query(points, gradient=normals)
        weight = packed_weights(sampled.density * places.length, places.ray)  # [P, K]

        def total(values: Tensor, share: Tensor = weight) -> Tensor:  # [P, K, C] -> [B, H, W, C]
            sums = values.new_zeros(*origins.shape[:-1], values.shape[-1])
            rows = places.ray[..., None].expand_as(values)
            return sums.scatter_add(1, rows, share[..., None] * values).view(*shape, -1)

        t = places.t[..., None]
        sums = total(torch.cat([sampled.color, torch.ones_like(t), t], dim=-1))
        foreground, opacity, depth = sums.split([3, 1, 1], dim=-1)
        variance = total((t - _of_places(depth.view(field.prompts, -1, 1), places)).square())
        normal = facing_away = None
        if sampled.gradient is not None:
            outward = -F.normalize(sampled.gradient, dim=-1)
            normal = (F.normalize(total(outward), dim=-1).detach() + 1) / 2 * opacity
            turned = (outward * along).sum(dim=-1, keepdim=True).clamp(min=0)
            facing_away = total(turned.square(), weight.detach())
        return Rendering(
            rgb=foreground + background * (1 - opacity),
            foreground=foreground,
            background=background,
            opacity=opacity,
            depth=depth,
            depth_variance=variance,
            normal=normal,
            facing_away=facing_away,
        )


def _of_places(of_rays: Tensor, places: Places) -> Tensor:
    """What rays have, [P, N, C], at each of their places: [P, K, C]."""
    return of_rays.gather(1, places.ray[..., None].expand(-1, -1, of_rays.shape[-1]))
