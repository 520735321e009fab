"""The places along rays that are looked at: equal steps through the box, but for those in empty cells.

Rays see few of their steps in matter, so what is looked at is packed: one list per prompt, not one per ray.

Axes: P prompts, N rays per prompt, S steps per ray, K places per prompt. Distances t are in world units along rays of
unit length.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from scaledreamer.errors import UserError
from scaledreamer.kernels.launch import has_triton
from scaledreamer.renderers.box import box_bounds
from scaledreamer.renderers.occupancy import OccupancyGrid

Backend = Literal["auto", "torch", "triton", "nerfacc"]


@dataclass(frozen=True)
class Places:
    """Where rays are looked at: those of a ray follow each other, near to far.

    A list may be longer than its places; what fills it up has no length, so nothing is seen there.
    """

    ray: Tensor  # [P, K] int64, which of the N rays
    t: Tensor  # [P, K]  middle of the interval
    length: Tensor  # [P, K]  of the interval


@dataclass(frozen=True)
class March:
    """How rays go through a box."""

    grid: OccupancyGrid
    radius: float  # half the side of the box, world units
    step_size: float  # world units
    steps: int  # S; steps * step_size is at least the box's diagonal
    near: float  # least distance


MarchRays = Callable[[March, Tensor, Tensor, Tensor | None, int | None], Places]
"""The seam of the backends: (march, origins [P, N, 3], directions [P, N, 3], shift, capacity) -> places.

``shift`` [P, N] in [0, 1) moves each ray's steps by a part of a step; None does not. ``capacity`` is the length that a
list may have; of more places an even share is looked at, each standing for more of its ray. None: all.
"""


def choose_backend(backend: Backend, device: torch.device) -> MarchRays:
    """The function behind a backend's name on a device.

    Raises:
        UserError: it is not available there.
    """
    if backend == "torch" or (backend == "auto" and (device.type != "cuda" or not has_triton())):
        return march_torch
    if device.type != "cuda":
        raise UserError(f"renderer.backend: {backend} needs a GPU; choose auto or torch.")
    if backend != "nerfacc":
        return march_triton
    if not _nerfacc_compiles():
        raise UserError(
            "renderer.backend: the kernels of nerfacc are not built here, which needs nvcc; choose auto or torch."
        )
    return march_nerfacc


@cache
def nerfacc_installed() -> bool:
    """Whether the package is there, without importing it: that takes seconds, and compiles where it can."""
    return importlib.util.find_spec("nerfacc") is not None


@cache
def _nerfacc_compiles() -> bool:
    from nerfacc.cuda import _backend  # pyright: ignore[reportMissingImports]

    return _backend._C is not None


@torch.no_grad()
def march_torch(
    march: March, origins: Tensor, directions: Tensor, shift: Tensor | None, capacity: int | None
) -> Places:
    """Dense masks over all steps, then the places that are left.

    The intervals of a ray cover all of it that is in the box. With a capacity nothing waits for a GPU: lists have that
    length there.
    """
    enter, leave = box_bounds(origins, directions, radius=march.radius, nearest=march.near)  # [P, N, 1]
    steps = torch.arange(march.steps, device=origins.device, dtype=origins.dtype)
    if shift is not None:
        steps = steps - shift[..., None]
    starts = (enter + steps * march.step_size).maximum(enter).minimum(leave)  # [P, N, S]
    ends = torch.cat([starts[..., 1:], leave], dim=-1)
    t = (starts + ends) / 2
    points = origins[:, :, None] + t[..., None] * directions[:, :, None]
    mask = (ends > starts) & march.grid.occupied(points, radius=march.radius)  # [P, N, S]
    del points
    index, stretch = kept(mask.flatten(1), capacity, counts=mask.device.type != "cuda")  # [P, K], [P, 1]
    there = index >= 0
    index = index.clamp(min=0)
    length = (ends - starts).flatten(1).gather(1, index) * stretch * there
    return Places(ray=index // march.steps, t=t.flatten(1).gather(1, index), length=length)


def kept(mask: Tensor, capacity: int | None, *, counts: bool) -> tuple[Tensor, Tensor]:
    """Places [P, K] of the Trues of each row of a mask [P, M], then -1; and how many [P, 1] each place stands for.

    Args:
        mask: bool.
        capacity: largest K. Of more Trues an even share is kept.
        counts: whether K may follow the mask, which takes reading it; without, it is the capacity.
    """
    rank = mask.cumsum(dim=1)  # of a True: how many there are up to it
    stretch = torch.ones(len(mask), 1, device=mask.device)
    if capacity is not None:
        among = rank[:, -1:].clamp(min=capacity)
        mask = mask & (rank * capacity // among > (rank - 1) * capacity // among)
        rank = mask.cumsum(dim=1)
        stretch = among / capacity
    width = int(rank[:, -1].max()) if counts or capacity is None else min(capacity, mask.shape[1])
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    # What is not kept goes to a column that is cut off.
    index = torch.full((len(mask), width + 1), -1, device=mask.device)
    index.scatter_(1, torch.where(mask, rank - 1, width), places)
    return index[:, :width], stretch


@torch.no_grad()
def march_triton(
    march: March, origins: Tensor, directions: Tensor, shift: Tensor | None, capacity: int | None
) -> Places:
    """As :func:`march_torch`, by kernels that never write all steps down; the same places in the same order."""
    from scaledreamer.kernels import march as kernels

    if march.steps > kernels.LONGEST:
        return march_torch(march, origins, directions, shift, capacity)
    enter, leave = box_bounds(origins, directions, radius=march.radius, nearest=march.near)
    ray, t, length = kernels.places(
        *(origins, directions, enter, leave, shift, march.grid.binaries[0]),
        steps=march.steps,
        step_size=march.step_size,
        radius=march.radius,
        capacity=capacity,
    )
    return Places(ray=ray, t=t, length=length)


@torch.no_grad()
def march_nerfacc(
    march: March, origins: Tensor, directions: Tensor, shift: Tensor | None, capacity: int | None
) -> Places:
    """nerfacc's kernel, which goes from cell to cell and never holds all steps.

    It waits for the GPU to know how many places there are, and looks at all of them, whatever the capacity. A shift
    leaves out the part of a ray before its first step.
    """
    from nerfacc import traverse_grids  # pyright: ignore[reportMissingImports]

    enter, leave = box_bounds(origins, directions, radius=march.radius, nearest=march.near)
    if shift is not None:
        enter = enter + shift[..., None] * march.step_size
    box = origins.new_tensor([[-march.radius] * 3 + [march.radius] * 3])
    found: list[tuple[Tensor, Tensor, Tensor]] = []  # of each prompt: ray, start, end
    for o, d, near, far in zip(origins, directions, enter[..., 0], leave[..., 0], strict=True):
        intervals, samples, _ = traverse_grids(
            o, d, march.grid.binaries, box, near_planes=near, far_planes=far, step_size=march.step_size
        )
        edges = intervals.vals
        found.append((samples.ray_indices, edges[intervals.is_left], edges[intervals.is_right]))

    def lists(values: list[Tensor]) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(values, batch_first=True)

    starts, ends = lists([start for _, start, _ in found]), lists([end for _, _, end in found])
    return Places(ray=lists([ray for ray, _, _ in found]), t=(starts + ends) / 2, length=ends - starts)
