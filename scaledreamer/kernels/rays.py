"""Sampling and compositing along rays by Triton kernels: a dozen launches of small sizes become one each.

Axes: N rays of all prompts, K proposal intervals, S intervals rendered.
"""

from typing import Any, Literal

import torch
import triton  # pyright: ignore[reportMissingImports]
from torch import Tensor

from scaledreamer.kernels import rays_kernels as kernels
from scaledreamer.kernels.launch import on, operator
from scaledreamer.renderers.compositing import OPAQUE

WARPS = 2

LONGEST = 1024
"""Intervals of a ray that a program can hold."""


def _launch(kernel: Any, *arguments: Any, rays: int, warps: int = WARPS, **sizes: Any) -> None:
    if rays:
        with torch.cuda.device_of(arguments[0]):
            on(kernel, (rays,))(*arguments, **sizes, num_warps=warps)


def _lanes(n: int) -> int:
    return max(16, triton.next_power_of_2(n))


# -- where to sample ---------------------------------------------------------------------------------------------


@operator(
    "ray_proposals",
    "(Tensor origins, Tensor directions, Tensor jitter, int count, float radius, float near, float far, bool boxed)"
    " -> (Tensor, Tensor)",
)
def proposals(
    origins: Tensor, directions: Tensor, jitter: Tensor, count: int, radius: float, near: float, far: float, boxed: bool
) -> tuple[Tensor, Tensor]:
    """Edges [N, K + 1] of equal intervals along rays, and the points [N, K, 3] in their middles.

    Args:
        origins, directions: [N, 3].
        jitter: [N] in [0, 1), which moves all edges of a ray.
        count: K.
        radius: of the box in which rays are sampled if they are ``boxed``; ``near`` is then the least distance.
        near, far: between which they are sampled otherwise.
    """
    rays = len(origins)
    edges = origins.new_empty(rays, count + 1)
    sizes = {"K": count, "BOXED": boxed, "LANES": _lanes(count + 1)}
    _launch(kernels.proposals, origins, directions, jitter, edges, radius, near, far, rays=rays, **sizes)
    return edges, _points(edges, origins, directions)


@proposals.register_fake
def _(
    origins: Tensor, directions: Tensor, jitter: Tensor, count: int, radius: float, near: float, far: float, boxed: bool
) -> tuple[Tensor, Tensor]:
    return origins.new_empty(len(origins), count + 1), origins.new_empty(len(origins), count, 3)


@operator(
    "ray_samples",
    "(Tensor coarse, Tensor sdf, Tensor inv_std, Tensor origins, Tensor directions, Tensor jitter, int count)"
    " -> (Tensor, Tensor)",
)
def samples(
    coarse: Tensor, sdf: Tensor, inv_std: Tensor, origins: Tensor, directions: Tensor, jitter: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Edges [N, K + count + 2] with ``count`` intervals more where the distances [N, K] say that rays end, and points.

    Args:
        coarse: edges [N, K + 1] of the proposals.
        sdf: [N, K] in their middles.
        inv_std: [] of the density.
        jitter: [N] in [0, 1).
    """
    rays, intervals = sdf.shape
    centers, edges = sdf.new_empty(rays, count), sdf.new_empty(rays, intervals + count + 2)
    sizes = {"rays": rays, "K": intervals, "C": count, "LANES": _lanes(intervals + 1)}
    _launch(kernels.centers, coarse, sdf, inv_std, jitter, centers, CS=_lanes(count), **sizes)
    _launch(kernels.merged, coarse, centers, edges, CS=_lanes(count + 1), **sizes)
    return edges, _points(edges, origins, directions)


@samples.register_fake
def _(
    coarse: Tensor, sdf: Tensor, inv_std: Tensor, origins: Tensor, directions: Tensor, jitter: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    rays, intervals = sdf.shape
    return sdf.new_empty(rays, intervals + count + 2), sdf.new_empty(rays, intervals + count + 1, 3)


def _points(edges: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
    rays, intervals = len(edges), edges.shape[1] - 1
    found = edges.new_empty(rays, intervals, 3)
    _launch(kernels.points, edges, origins, directions, found, rays=rays, S=intervals, LANES=_lanes(intervals))
    return found


# -- what a ray sees ---------------------------------------------------------------------------------------------


def composite(
    sdf: Tensor, edges: Tensor, color: Tensor, gradient: Tensor, inv_std: Tensor, alpha: Literal["linear", "exp"]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Foreground [N, 3], opacity [N], depth [N], its variance [N] and the unit normal [N, 3], which has no gradient.

    Differentiable once with respect to signed distances [N, S] and colours [N, S, 3].

    Args:
        edges: [N, S + 1].
        gradient: of the signed distances [N, S, 3].
        inv_std: [] of the density, without its limit.
        alpha: see :func:`scaledreamer.renderers.compositing.alphas`.
    """
    sdf, edges, color, gradient = (x.contiguous() for x in (sdf, edges, color, gradient.detach()))
    *found, normal = _composite(sdf, edges, color, gradient, inv_std, alpha == "exp")
    return *found, normal.detach()


def _sizes(sdf: Tensor, exp: bool) -> dict[str, Any]:
    rays, intervals = sdf.shape
    return {"rays": rays, "S": intervals, "LANES": _lanes(intervals), "EXP": exp, "OPAQUE": OPAQUE}


@operator(
    "ray_composite",
    "(Tensor sdf, Tensor edges, Tensor color, Tensor gradient, Tensor inv_std, bool exp)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _composite(
    sdf: Tensor, edges: Tensor, color: Tensor, gradient: Tensor, inv_std: Tensor, exp: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    found = _seen(sdf)
    _launch(kernels.composite, sdf, edges, color, gradient, inv_std, *found, **_sizes(sdf, exp))
    return found


@_composite.register_fake
def _(
    sdf: Tensor, edges: Tensor, color: Tensor, gradient: Tensor, inv_std: Tensor, exp: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _seen(sdf)


def _seen(sdf: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rays = len(sdf)
    one, two, three = (sdf.new_empty(rays) for _ in range(3))
    return sdf.new_empty(rays, 3), one, two, three, sdf.new_empty(rays, 3)


@operator(
    "ray_composite_backward",
    "(Tensor sdf, Tensor edges, Tensor color, Tensor inv_std, Tensor g_foreground, Tensor g_opacity, Tensor g_depth,"
    " Tensor g_variance, bool exp) -> (Tensor, Tensor)",
)
def _composite_backward(
    sdf: Tensor, edges: Tensor, color: Tensor, inv_std: Tensor,
    g_foreground: Tensor, g_opacity: Tensor, g_depth: Tensor, g_variance: Tensor, exp: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    found = torch.empty_like(sdf), torch.empty_like(color)
    gradients = [g.contiguous() for g in (g_foreground, g_opacity, g_depth, g_variance)]
    _launch(kernels.composite_backward, sdf, edges, color, inv_std, *gradients, *found, **_sizes(sdf, exp))
    return found


@_composite_backward.register_fake
def _(
    sdf: Tensor, edges: Tensor, color: Tensor, inv_std: Tensor,
    g_foreground: Tensor, g_opacity: Tensor, g_depth: Tensor, g_variance: Tensor, exp: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(sdf), torch.empty_like(color)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    sdf, edges, color, _, inv_std, ctx.exp = inputs
    ctx.save_for_backward(sdf, edges, color, inv_std)


def _backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    of_sdf, of_color = _composite_backward(*ctx.saved_tensors, *gradients[:4], ctx.exp)
    return of_sdf, None, of_color, None, None, None


_composite.register_autograd(_backward, setup_context=_save)
