"""The places along rays by Triton kernels: two passes over the steps, neither of which writes them down.

Axes: P prompts, N rays per prompt, S steps per ray, K places per prompt.
"""

import torch
import triton  # pyright: ignore[reportMissingImports]
from torch import Tensor

from scaledreamer.kernels import march_kernels as kernels
from scaledreamer.kernels.launch import on

LONGEST = 2048
"""Steps of a ray that a program can hold."""


@torch.no_grad()
def places(
    origins: Tensor,
    directions: Tensor,
    enter: Tensor,
    leave: Tensor,
    shift: Tensor | None,
    occupied: Tensor,
    *,
    steps: int,
    step_size: float,
    radius: float,
    capacity: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rays [P, K] int64, middles and lengths [P, K] of places; see :class:`scaledreamer.renderers.marching.Places`.

    Args:
        origins, directions: [P, N, 3], world units.
        enter, leave: [P, N, 1], distances at which rays come into the box and leave it.
        shift: of each ray's steps, as a part of a step, [P, N] in [0, 1); None: no shift.
        occupied: cells [R, R, R] of the box, x y z, bool.
        steps: S, at most LONGEST.
        step_size: world units.
        radius: half the side of the box.
        capacity: K; of more places an even share is taken, each longer. None: as many as there are, for which this
            waits for the GPU.
    """
    prompts, rays = origins.shape[:2]
    given = [x.float().contiguous() for x in (origins, directions, enter, leave, enter if shift is None else shift)]
    cells = occupied.contiguous().view(torch.uint8)
    sizes = {"S": steps, "R": occupied.shape[-1], "SHIFTED": shift is not None}
    sizes |= {"LANES": max(16, triton.next_power_of_2(steps)), "num_warps": 4}
    counts = torch.empty(prompts, rays, dtype=torch.int32, device=origins.device)
    with torch.cuda.device_of(origins):
        if counts.numel():
            on(kernels.count, (prompts * rays,))(*given, cells, counts, step_size, radius, **sizes)
        upto = counts.cumsum(dim=1)  # int64
        totals = upto[:, -1].contiguous()
        if capacity is None:
            capacity = int(totals.max())
        found = torch.zeros(2, prompts, capacity, device=origins.device)
        of_ray = torch.zeros(prompts, capacity, dtype=torch.int64, device=origins.device)
        t, length = found.unbind()
        if counts.numel() and capacity:
            before = (upto - counts).contiguous()
            on(kernels.write, (prompts * rays,))(
                *(*given, cells, before, totals, of_ray, t, length, rays, capacity, step_size, radius), **sizes
            )
    return of_ray, t, length
