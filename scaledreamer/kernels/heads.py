"""The two small networks of a field, features -> hidden -> distance or colour, inside Triton kernels.

Axes: M points of a program, F features, H hidden values; both are filled up with zeros to powers of two, which changes
nothing since the networks have no biases.

Distances are asked at a point and at three points next to it. Their hidden values are h and h + W d, with d the
difference of the features, so that what is divided by the step of the finite differences is a small number of its own
and no difference of large ones: products in tf32 then do for it. Nor is h + W d ever added up where h is large: what
the ReLU lets through of the rise is W d itself, or the part of it above or below 0.
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def relu(x):
    """The positive part; not a number stays that."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def matrix(weight, rows: tl.constexpr, columns: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A weight [rows, columns] as [ROWS, COLUMNS]."""
    r, c = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    return tl.load(weight + r * columns + c, (r < rows) & (c < columns), other=0.0).to(tl.float32)


@triton.jit
def transposed(weight, rows: tl.constexpr, columns: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A weight [rows, columns] as [COLUMNS, ROWS]."""
    r, c = tl.arange(0, ROWS)[None, :], tl.arange(0, COLUMNS)[:, None]
    return tl.load(weight + r * columns + c, (r < rows) & (c < columns), other=0.0).to(tl.float32)


@triton.jit
def vector(weight, n: tl.constexpr, N: tl.constexpr):
    """[n] as [N]."""
    i = tl.arange(0, N)
    return tl.load(weight + i, i < n, other=0.0).to(tl.float32)


@triton.jit
def read_out(hidden, weight):
    """Hidden values [M, H] after the ReLU -> [M]."""
    return tl.sum(hidden * weight[None, :], axis=1)


@triton.jit
def risen(hidden, step):
    """relu(hidden + step) - relu(hidden), rounded relative to ``step``; not a number stays that."""
    on = tl.maximum(step, -hidden, propagate_nan=tl.PropagateNan.ALL)
    return tl.where(hidden > 0, on, relu(hidden + step))


@triton.jit
def rise(hidden, delta, first, second, PRECISION: tl.constexpr):
    """How much the distance rises [M] where the features [M, F] change by ``delta``; ``hidden`` before the ReLU."""
    return read_out(risen(hidden, tl.dot(delta, first, input_precision=PRECISION)), second)


@triton.jit
def rise_backward(
    hidden, delta, g, first, first_rows, second, of_lit, of_second, of_first, PRECISION: tl.constexpr
):  # fmt: skip
    """The backward pass of :func:`rise` for its gradient ``g`` [M].

    Returns:
        The gradient to ``delta`` [M, F]; that to ``hidden`` but for the factor ``second``, added to ``of_lit`` [M, H];
        what to sum over points for ``second``, added to ``of_second`` [M, H]; the gradient to ``first`` transposed,
        added to ``of_first`` [H, F].
    """
    step = tl.dot(delta, first, input_precision=PRECISION)
    g = g[:, None]
    of_second += g * risen(hidden, step)
    at_moved = tl.where(step > -hidden, g, 0.0)
    of_lit += at_moved - tl.where(hidden > 0, g, 0.0)
    at_moved *= second[None, :]
    of_first = tl.dot(tl.trans(at_moved), delta, of_first, input_precision=PRECISION)
    return tl.dot(at_moved, first_rows, input_precision=PRECISION), of_lit, of_second, of_first


@triton.jit
def add_matrix(to, value, rows: tl.constexpr, columns: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Add ``value`` [ROWS, COLUMNS] to a matrix [rows, columns]."""
    r, c = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    tl.atomic_add(to + r * columns + c, value, (r < rows) & (c < columns), sem="relaxed")


@triton.jit
def add_vector(to, value, n: tl.constexpr, N: tl.constexpr):
    """Add ``value`` [N] to a vector [n]."""
    i = tl.arange(0, N)
    tl.atomic_add(to + i, value, i < n, sem="relaxed")
