"""What parts of a system say of themselves, so that weights made with the paper's code, or earlier, load into them.

A generator, a background or a renderer may have two members; without them its weights are named as in the file and
nothing else is compared:

- ``published_names``, a :data:`PublishedNames` of the class, of which the first entry that fits a name counts;
- ``constants()``, tensors by name: numbers in checkpoints, the paper's or ours, that follow from its options. They must
  agree, and are not loaded.

:mod:`scaledreamer.training.saved_weights` reads both.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

PublishedNames = Mapping[str, str | None]
"""How names begin in the paper's checkpoints or in ours of before, below their part -> how they begin here; None: there
is no such here."""


def box(radius: float) -> Tensor:
    """Corners [2, 3] of the box [-radius, radius]^3; generators of the paper's hold them as ``bbox``."""
    return torch.tensor([[-radius] * 3, [radius] * 3])
