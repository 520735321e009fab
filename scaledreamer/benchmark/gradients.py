"""How near a configuration's gradients come to those of plain PyTorch in float32.

python -m scaledreamer.benchmark.gradients experiment=df415 [--draws 8] [--after 300] [--json FILE]

Both sides have the same weights and, in each draw, the same cameras, timesteps and noise. What is compared is the
gradient of a whole step's loss at all parameters. A third side says what is to be expected: on a GPU PyTorch itself
rounds to TF32, unless it is told not to.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor

from scaledreamer.benchmark.arguments import natural, parser_of, positive, require_place
from scaledreamer.benchmark.setting import configuration, random_prompts, trainer_of
from scaledreamer.benchmark.show import make_console, make_table
from scaledreamer.cli import clear_errors
from scaledreamer.randomness import StepRandom
from scaledreamer.system import TextTo3D
from scaledreamer.text.embedding import TextEmbedding

PLAINLY = {"backend": "torch", "speedup": "none", "dtype": "float32", "cuda_graph": False, "precision": "32-true"}
"""What options of these names are on the plain side, wherever a configuration has them."""


@dataclass(frozen=True)
class Likeness:
    """Of one side's gradients to the plain ones."""

    cosines: list[float]  # by draw
    norms: list[float]  # by draw, as a share of the plain one's
    cosine_of_sum: float  # of the gradients of all draws, added up
    norm_of_sum: float


@dataclass(frozen=True)
class _Side:
    system: TextTo3D
    tf32: bool
    context: Callable[[], AbstractContextManager[Any]]


def plainly(config: Any) -> Any:
    """A configuration's node that computes everything by PyTorch's own operators in float32."""
    if isinstance(config, dict):
        return {key: PLAINLY[key] if key in PLAINLY else plainly(value) for key, value in config.items()}
    return [plainly(value) for value in config] if isinstance(config, list) else config


def compare(overrides: Sequence[str], *, draws: int = 8, progress: float = 0.3, after: int = 0) -> dict[str, Likeness]:
    """The likeness of ``given`` and, on a GPU, of ``tf32``.

    Args:
        overrides: as of ``train.py``.
        draws: steps whose gradients are compared.
        progress: of the run, which schedules follow.
        after: steps of training before.

    Raises:
        UserError: the configuration is wrong, or cannot run here.
    """
    config = configuration(overrides, 1000)
    plain = plainly(config)
    trainer = trainer_of(config, Callback())
    device: torch.device = trainer.strategy.root_device
    sides = {
        "given": _side(config, device, tf32=True, context=trainer.precision_plugin.forward_context),
        "plain": _side(plain, device, tf32=False, context=nullcontext),
    }
    if device.type == "cuda":
        sides["tf32"] = _side(plain, device, tf32=True, context=nullcontext)
    text = random_prompts(config, sides["given"].system).text
    assert text is not None
    text = text.to(device)
    optimizer = sides["given"].system.configure_optimizers()
    for step in range(after):
        _gradient(sides["given"], text, progress * step / after, draws + step)
        optimizer.step()
    for side in sides.values():
        side.system.load_state_dict(sides["given"].system.state_dict())
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    sums = {name: torch.zeros((), device=device) for name in sides}
    for draw in range(draws):
        expected = _gradient(sides["plain"], text, progress, draw)
        for name, side in sides.items():
            one = expected if name == "plain" else _gradient(side, text, progress, draw)
            found[name].append(alike(one, expected))
            sums[name] = sums[name] + one
    return {
        name: Likeness([c for c, _ in found[name]], [n for _, n in found[name]], *alike(total, sums["plain"]))
        for name, total in sums.items()
        if name != "plain"
    }


def alike(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """(cosine, share of the norm) of two vectors [N]."""
    one, other = found.double(), expected.double()
    return float(one @ other / (one.norm() * other.norm())), float(one.norm() / other.norm())


def _gradient(side: _Side, text: TextEmbedding, progress: float, draw: int) -> Tensor:
    """Of a step's loss at all N parameters, [N] float32; not scaled, as ``16-mixed`` would."""
    system = side.system
    system.zero_grad(set_to_none=True)
    random = StepRandom(seed=0, step=draw, device=text.pooled.device)
    with _tf32(allowed=side.tf32):
        with side.context():
            loss = system.step(text, progress=progress, random=random).loss
        loss.backward()
    learning = [p for p in system.parameters() if p.requires_grad]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten().float() for p in learning])


def _side(config: dict[str, Any], device: torch.device, *, tf32: bool, context: Callable[[], Any]) -> _Side:
    from scaledreamer.training.build import build, build_system

    guidance = build(config["guidance"])
    prior = guidance.prior
    prior.prepare()
    null = torch.randn(prior.text_length, prior.text_dim, generator=torch.Generator().manual_seed(0))
    system = build_system(config, guidance=guidance, null_tokens=null, encode=None).to(device)
    system.on_fit_start()
    return _Side(system=system, tf32=tf32, context=context)


@contextmanager
def _tf32(*, allowed: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def show(found: dict[str, Likeness]) -> None:
    """A row per side."""
    rows = make_table("cosine, least", "norm, mean", "least", "most", "within 1 %", "sum: cosine", "norm")
    for name, side in found.items():
        norms = side.norms
        near = sum(abs(norm - 1) <= 0.01 for norm in norms)
        figures = [min(side.cosines), sum(norms) / len(norms), min(norms), max(norms)]
        of_sum = [f"{side.cosine_of_sum:.5f}", f"{side.norm_of_sum:.4f}"]
        rows.add_row(name, f"{figures[0]:.5f}", *(f"{v:.4f}" for v in figures[1:]), f"{near} of {len(norms)}", *of_sum)
    make_console().print(rows)


def main(arguments: list[str] | None = None) -> None:
    """The command.

    Raises:
        UserError: a file or the configuration is wrong, or it cannot run here.
    """
    parser = parser_of(
        "scaledreamer.benchmark.gradients", "How near gradients come to those of plain PyTorch in float32."
    )
    parser.add_argument("--draws", type=positive, default=8, help="steps that are compared (8)")
    parser.add_argument("--after", type=natural, default=0, help="steps of training before (0)")
    given = parser.parse_intermixed_args(arguments)
    require_place(given.json)
    found = compare(given.overrides, draws=given.draws, after=given.after)
    show(found)
    if given.json is not None:
        written = {name: asdict(side) for name, side in found.items()}
        given.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with clear_errors():
        main()
    sys.exit(0)
