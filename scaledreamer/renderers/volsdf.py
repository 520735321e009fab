"""VolSDF volume rendering with importance sampling, in dense tensors.

Density of a signed distance (Yariv et al., "Volume Rendering of Neural Implicit Surfaces", NeurIPS 2021, eq. 2-3):

    sigma(s) = b * (0.5 + 0.5 sign(s) expm1(-|s| b)),    b the inverse deviation

Axes: P prompts, V views per prompt, B = P * V images, H W pixels, N = V * H * W rays per prompt, S samples per ray.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.cameras import Rays
from scaledreamer.constraints import PositiveFloat, PositiveInt
from scaledreamer.fields.backends import Backend, by_triton, check_backend
from scaledreamer.fields.base import SdfField
from scaledreamer.published import PublishedNames
from scaledreamer.randomness import StepRandom
from scaledreamer.renderers.base import Renderer, Rendering, joined
from scaledreamer.renderers.box import box_bounds
from scaledreamer.renderers.compositing import alphas, weights
from scaledreamer.renderers.importance import merge, proposal_cdf, resample, uniform_edges

MAX_INV_STD = 80.0


def volsdf_density(sdf: Tensor, inv_std: Tensor | float) -> Tensor:
    """Density of signed distances of any shape: inv_std deep inside, half of it on the surface, 0 far outside."""
    inv_std = torch.as_tensor(inv_std, device=sdf.device).clamp(0, MAX_INV_STD)
    return inv_std * (0.5 + 0.5 * sdf.sign() * torch.expm1(-sdf.abs() * inv_std))


class VolSDFRenderer(Renderer):
    """Renders signed-distance fields.

    Args:
        proposals: uniform intervals that look for the surface, without gradients.
        samples: intervals added where the proposals found density; proposals + samples + 1 are rendered.
        log_inv_std: a tenth of the logarithm of the inverse deviation: 0.340119 gives 30. It counts up to 80.
        alpha: see :func:`scaledreamer.renderers.compositing.alphas`.
        bounds: ``volume`` samples where a ray is in the field's box; ``fixed`` between near and far.
        near, far: world units; with ``volume`` only near counts, as the least distance.
        chunk: rays rendered at a time without gradients; memory follows it.
        backend: what samples and composites: ``torch`` everywhere, ``triton`` on GPUs; ``auto`` takes Triton where it
            can. The field has its own.

    Raises:
        UserError: there is no such backend here.
    """

    fields: ClassVar[tuple[str, ...]] = ("sdf",)
    regularisers: ClassVar[dict[str, str | None] | None] = {"sparsity": None, "opaque": None, "eikonal": None}
    published_names: ClassVar[PublishedNames] = {
        "variance._inv_std": "log_inv_std",
        "bbox": None,  # the field has the box
    }
    log_inv_std: Tensor

    def __init__(
        self,
        *,
        proposals: PositiveInt = 128,
        samples: PositiveInt = 64,
        log_inv_std: float = 0.340119,
        alpha: Literal["linear", "exp"] = "linear",
        bounds: Literal["volume", "fixed"] = "volume",
        near: PositiveFloat = 0.1,
        far: PositiveFloat = 4.0,
        chunk: PositiveInt = 8192,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        check_backend(backend, of="renderer")
        self.proposals, self.samples = proposals, samples
        self.alpha: Literal["linear", "exp"] = alpha
        self.bounds, self.near, self.far, self.chunk = bounds, near, far, chunk
        self.backend: Backend = backend
        self.register_buffer("log_inv_std", torch.tensor(log_inv_std))  # in checkpoints, as in published ones

    @property
    def inv_std(self) -> Tensor:
        """Inverse deviation [] of the density, 1 / world units."""
        return torch.exp(10 * self.log_inv_std)

    def constants(self) -> dict[str, Tensor]:
        """See :mod:`scaledreamer.published`."""
        return {"log_inv_std": self.log_inv_std}

    def forward(self, field: SdfField, rays: Rays, background: Tensor, random: StepRandom | None = None) -> Rendering:
        """See :meth:`scaledreamer.renderers.base.Renderer.forward`."""
        images, height, width, _ = rays.origins.shape
        pixels = height * width
        jitters = (random.uniform(images, pixels), random.uniform(images, pixels)) if random is not None else None
        if torch.is_grad_enabled():
            return self.render(field, rays, background, jitters)
        rows = max(1, self.chunk // (images * width))
        parts = []
        for top in range(0, height, rows):
            part = slice(top, top + rows)
            some = Rays(origins=rays.origins[:, part], directions=rays.directions[:, part])
            cut = slice(top * width, (top + rows) * width)
            jitter = (jitters[0][:, cut], jitters[1][:, cut]) if jitters is not None else None
            parts.append(self.render(field, some, background[:, part], jitter))
        return joined(parts)

    def render(
        self, field: SdfField, rays: Rays, background: Tensor, jitters: tuple[Tensor, Tensor] | None
    ) -> Rendering:
        """All rays at once; ``jitters`` [B, H * W] in [0, 1) of the proposals and of the samples, None: centres."""
        shape = rays.origins.shape[:-1]  # B, H, W
        prompts = field.prompts
        origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)  # [P * N, 3]
        if self._by_triton(origins):
            return self._render_by_triton(field, origins, directions, background, jitters)
        edges = self._edges(field, origins, directions, jitters)
        middles, intervals = (edges[:, 1:] + edges[:, :-1]) / 2, edges[:, 1:] - edges[:, :-1]  # [P * N, S]
        points = origins[:, None] + directions[:, None] * middles[..., None]  # [P * N, S, 3]
        sampled = field.query(points.view(prompts, -1, 3))
        density = volsdf_density(sampled.sdf, self.inv_std).view_as(middles)
        weight = weights(alphas(density, intervals, self.alpha))  # [P * N, S]

        def mean(values: Tensor) -> Tensor:  # [P, N * S, C] -> [B, H, W, C]
            return (weight[..., None] * values.reshape(*weight.shape, -1)).sum(dim=1).view(*shape, -1)

        opacity = weight.sum(dim=1).view(*shape, 1)
        depth = mean(middles[..., None])
        foreground = mean(sampled.color)
        normal = F.normalize(mean(F.normalize(sampled.gradient, dim=-1)), dim=-1).detach()
        variance = mean((middles - depth.view(-1, 1))[..., None].square())
        return Rendering(
            rgb=foreground + background * (1 - opacity),
            foreground=foreground,
            background=background,
            opacity=opacity,
            depth=depth,
            depth_variance=variance,
            normal=(normal + 1) / 2 * opacity,
            gradient=sampled.gradient,
        )

    def _render_by_triton(
        self,
        field: SdfField,
        origins: Tensor,
        directions: Tensor,
        background: Tensor,
        jitters: tuple[Tensor, Tensor] | None,
    ) -> Rendering:
        """What :meth:`render` gives, of rays [P * N, 3]."""
        from scaledreamer.kernels import rays as by_triton

        shape = background.shape[:-1]
        origins, directions, inv_std = origins.contiguous(), directions.contiguous(), self.inv_std.clamp(0, MAX_INV_STD)
        first, second = (j.reshape(-1) for j in jitters) if jitters else (torch.full_like(origins[:, 0], 0.5),) * 2
        with torch.no_grad():
            boxed = self.bounds == "volume"
            coarse, points = by_triton.proposals(
                origins, directions, first, self.proposals, field.radius, self.near, self.far, boxed
            )
            sdf = field.sdf(points.view(field.prompts, -1, 3)).reshape(len(coarse), -1)
            edges, points = by_triton.samples(coarse, sdf, inv_std, origins, directions, second, self.samples)
        sampled = field.query(points.view(field.prompts, -1, 3))
        foreground, opacity, depth, variance, normal = by_triton.composite(
            sampled.sdf.reshape(points.shape[:2]),
            edges,
            sampled.color.reshape(points.shape),
            sampled.gradient.reshape(points.shape),
            inv_std,
            self.alpha,
        )
        foreground, opacity = foreground.view(*shape, 3), opacity.view(*shape, 1)
        return Rendering(
            rgb=foreground + background * (1 - opacity),
            foreground=foreground,
            background=background,
            opacity=opacity,
            depth=depth.view(*shape, 1),
            depth_variance=variance.view(*shape, 1),
            normal=(normal.view(*shape, 3) + 1) / 2 * opacity,
            gradient=sampled.gradient,
        )

    def _by_triton(self, origins: Tensor) -> bool:
        refusal = None
        if not 2 <= self.proposals < 1024 or not 2 <= self.samples < 1024 or self.proposals + self.samples >= 1024:
            refusal = "it has at least two proposals and samples each, and 1022 together at most"
        if origins.dtype != torch.float32:
            refusal = f"it has float32 rays, not {origins.dtype}"
        asked = torch.is_grad_enabled() and (origins.requires_grad or self.log_inv_std.requires_grad)
        return not asked and by_triton(self.backend, origins, refusal=refusal, of="renderer")

    @torch.no_grad()
    def _edges(
        self, field: SdfField, origins: Tensor, directions: Tensor, jitters: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Edges [P * N, S + 1] of the intervals to render."""
        if self.bounds == "volume":
            near, far = box_bounds(origins, directions, radius=field.radius, nearest=self.near)
        else:
            near, far = torch.full_like(origins[:, :1], self.near), torch.full_like(origins[:, :1], self.far)
        first, second = (j.reshape(-1, 1) for j in jitters) if jitters else (torch.full_like(near, 0.5),) * 2
        coarse = uniform_edges(near, far, self.proposals, first)
        middles = (coarse[:, 1:] + coarse[:, :-1]) / 2
        points = origins[:, None] + directions[:, None] * middles[..., None]
        sdf = field.sdf(points.view(field.prompts, -1, 3)).view_as(middles)
        cdf = proposal_cdf(coarse, volsdf_density(sdf, self.inv_std))
        return merge(coarse, resample(coarse, cdf, self.samples, second))
