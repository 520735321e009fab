"""Whole runs: what a checkpoint, an accumulation, a second process or a live text encoder must not change."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import SMALL, trained

from scaledreamer.cameras import RandomCameras
from scaledreamer.training.checkpoints import read

ROOT = Path(__file__).resolve().parents[1]
ADAN = (
    "generator=3dconv_m2",
    "generator.widths=[16,8]",
    "trainer.accumulate_grad_batches=2",
    "trainer.precision=bf16-mixed",
    "trainer.gradient_clip_val=1.0",
)


@pytest.fixture
def prompts(tmp_path, monkeypatch) -> str:
    """Override that names a file of five prompts; text embeddings go below the test's folder."""
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\na dog\na red house\na blue car\na tree\n")
    return f"corpus.path={path}"


def figures(directory: Path) -> dict[int, dict[str, float]]:
    """metrics.csv by step, without what was not logged then and how fast it went."""
    rows: dict[int, dict[str, float]] = {}
    with open(directory / "csv" / "metrics.csv", newline="") as file:
        for row in csv.DictReader(file):
            found = {k: float(v) for k, v in row.items() if v and k not in ("step", "epoch") and "speed/" not in k}
            rows.setdefault(int(row["step"]), {}).update(found)
    return rows


def equal(one, other) -> bool:
    """Bit for bit, through any nesting of what a checkpoint holds."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.mark.parametrize("options", [(), ADAN], ids=["Adam", "Adan, accumulated, bf16, clipped"])
def test_a_resumed_run_equals_the_unbroken_one(tmp_path, prompts, options):
    run = [prompts, *options, "trainer.max_steps=6", "callbacks.checkpoints.keep_every=4"]
    trained(run, tmp_path / "unbroken")
    trained(run, tmp_path / "resumed", checkpoint=tmp_path / "unbroken" / "checkpoints" / "step-0000004.ckpt")
    unbroken, resumed = (read(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("unbroken", "resumed"))
    assert unbroken["global_step"] == resumed["global_step"] == 6
    for part in ("state_dict", "optimizer_states", "batches_done", "PromptDataModule"):
        assert equal(unbroken[part], resumed[part]), part
    whole, rest = figures(tmp_path / "unbroken"), figures(tmp_path / "resumed")
    assert sorted(rest) == [4, 5, 6]
    assert all(whole[step] == rest[step] for step in (4, 5))


def test_cameras_are_told_how_much_of_the_run_is_done(tmp_path, prompts, monkeypatch):
    """Their schedules follow it."""
    told, sample = [], RandomCameras.sample

    def listening(self, *inputs, progress):
        told.append(progress)
        return sample(self, *inputs, progress=progress)

    monkeypatch.setattr(RandomCameras, "sample", listening)
    trained([prompts, "trainer.max_steps=4"], tmp_path / "run")
    assert told == [0, 0.25, 0.5, 0.75]


def test_the_checkpoint_holds_what_learns_and_no_prior(tmp_path, prompts):
    run = trained([prompts, "trainer.max_steps=1"], tmp_path / "run")
    saved = read(tmp_path / "run" / "checkpoints" / "last.ckpt")
    parts = {name.partition(".")[0] for name in saved["state_dict"]}
    assert parts == {"generator", "background", "renderer"}
    assert sum(p.numel() for p in run.system.parameters()) < 1e5


def test_stored_and_live_text_embeddings_train_alike(tmp_path, prompts):
    run = [prompts, "trainer.max_steps=3"]
    stored = trained(run, tmp_path / "stored")
    live = trained([*run, "text.budget_gb=0"], tmp_path / "live")
    assert stored.data.dataset.embeddings is not None
    assert live.data.dataset.embeddings is None
    assert equal(stored.system.state_dict(), live.system.state_dict())


def test_accumulation_draws_anew_for_each_batch(tmp_path, prompts):
    run = trained([prompts, "trainer.max_steps=2", "trainer.accumulate_grad_batches=3"], tmp_path / "run")
    assert run.trainer.global_step == 2
    assert run.system.batches_done == 6
    assert run.data.samples_seen == 6


def test_learning_rates_follow_their_schedule(tmp_path, prompts):
    options = ["lr_schedule=[[0,0],[1,1]]", "optimizer.lr=0.008", "parameter_groups.background.lr=0.002"]
    trained([prompts, *options, "trainer.max_steps=4"], tmp_path / "run")
    rows = figures(tmp_path / "run")
    for group, rate in (("generator", 0.008), ("background", 0.002)):
        found = [rows[step][f"train/lr/{group}"] for step in range(4)]
        assert found == pytest.approx([0, rate / 4, rate / 2, 3 * rate / 4])


def test_a_run_learns_what_its_losses_ask_for(tmp_path, prompts):
    """Without a prior that knows anything: sparsity alone empties the space."""
    weights = ["losses.distillation=0", "losses.eikonal=0", "losses.opaque=0"]
    trained([prompts, *weights, "trainer.max_steps=20"], tmp_path / "run")
    rows = figures(tmp_path / "run")
    assert rows[19]["train/opacity"] < 0.5 * rows[0]["train/opacity"]
    assert rows[0]["train/loss"] == pytest.approx(20 * rows[0]["train/sparsity"])


def train(*overrides: str, data: Path) -> subprocess.CompletedProcess[str]:
    """``python train.py OVERRIDES`` as a user calls it."""
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    environment = {**os.environ, "SCALEDREAMER_DATA": str(data), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=data.parent)
    assert done.returncode == 0, done.stderr
    return done


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path, prompts):
    # Plain gradient descent: Adam would turn the last digit of a gradient near zero into a whole step.
    descent = ["optimizer._target_=torch.optim.SGD", "~optimizer.betas", "optimizer.lr=0.001", "generator.noise=random"]
    run = [prompts, *descent, "trainer.max_steps=4", "cameras.views_per_prompt=2"]
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "corpus.batch_size=1"]
    train(*SMALL, *run, *two, f"hydra.run.dir={tmp_path}/two", data=tmp_path / "data")
    trained([*run, "corpus.batch_size=2"], tmp_path / "one")
    one, other = figures(tmp_path / "one"), figures(tmp_path / "two")
    for step in range(4):
        # Rounding grows from step to step: importance sampling moves its samples with it.
        tolerance = 1e-5 if step == 0 else 2e-3
        for name in ("loss", "distillation", "sparsity", "opaque", "eikonal", "opacity", "t", "grad_norm"):
            mine, theirs = one[step][f"train/{name}"], other[step][f"train/{name}"]
            assert mine == pytest.approx(theirs, rel=tolerance), (step, name)
    weights = [read(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-4, msg=name)
    assert len(list((tmp_path / "two").glob("config.yaml"))) == 1
    assert len((tmp_path / "two" / "launches.jsonl").read_text().splitlines()) == 1  # one process writes


@pytest.mark.slow
def test_the_papers_command_line_trains_on_its_corpus_and_resumes(tmp_path, corpora_folder):
    data = tmp_path / "data"
    data.mkdir()
    (data / "corpora").symlink_to(corpora_folder)
    command = ("generator=3dconv", "corpus=DF415", "guidance=asd_sd")
    small = ("guidance/prior=tiny", "size=small", "trainer=cpu")
    train(*command, *small, "trainer.max_steps=20", f"hydra.run.dir={tmp_path}/run", data=data)
    assert (tmp_path / "run" / "previews" / "step-0000020.png").exists()
    again = ("trainer.max_steps=22", f"resume={tmp_path}/run", "trainer.log_every_n_steps=1")
    done = train(*command, *small, *again, data=data)
    assert "Resuming from" in done.stdout
    rows = figures(tmp_path / "run")
    assert all(value == value and abs(value) < 1e9 for row in rows.values() for value in row.values())
    assert read(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 22
