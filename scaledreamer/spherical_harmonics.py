"""Real spherical harmonics of unit vectors, up to degree 2 (9 components: "degree 3" counts the bands)."""

import torch
from torch import Tensor

COMPONENTS = 9


def spherical_harmonics(directions: Tensor) -> Tensor:
    """Basis values [..., 9] at unit directions [..., 3], in the order and with the signs of tiny-cuda-nn.

    Normalised over the sphere: the integral of each component's square is 1.
    """
    x, y, z = directions.unbind(dim=-1)
    return torch.stack(
        [
            torch.full_like(x, 0.28209479177387814),  # 1 / (2 sqrt(pi))
            -0.48860251190291987 * y,  # sqrt(3) / (2 sqrt(pi))
            0.48860251190291987 * z,
            -0.48860251190291987 * x,
            1.0925484305920792 * x * y,  # sqrt(15) / (2 sqrt(pi))
            -1.0925484305920792 * y * z,
            0.94617469575755997 * z * z - 0.31539156525251999,  # sqrt(5) / (4 sqrt(pi)) (3 z^2 - 1)
            -1.0925484305920792 * x * z,
            0.54627421529603959 * (x * x - y * y),  # sqrt(15) / (4 sqrt(pi))
        ],
        dim=-1,
    )
