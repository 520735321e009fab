"""The benchmark of a training step: its command, its reports and how two of them compare."""

import json
import math
import os
import signal
import time

import pytest
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from scaledreamer.benchmark import process
from scaledreamer.benchmark.__main__ import main
from scaledreamer.benchmark.compare import changes, differences
from scaledreamer.benchmark.report import read_report
from scaledreamer.benchmark.run import benchmark
from scaledreamer.errors import UserError

TINY = ["size=small", "trainer=cpu", "trainer.threads=1", "cameras.image_size=8", "corpus.batch_size=1"]
SHORT = ["--steps", "2", "--warmup", "1"]


def test_the_command(tmp_path, capsys):
    """Twice in one process: with counts, then with a trace and a comparison and without counts."""
    file, trace = tmp_path / "old.json", tmp_path / "made" / "trace.json"
    main([*TINY, *SHORT, "--json", str(file)])
    report = read_report(file)
    stages, shown = report["stages"], capsys.readouterr().out
    forwards = {"generator", "renderer", "VAE", "prior", "optimizer", "rest", "step"}
    assert set(stages) == forwards | {"generator backward", "renderer backward", "VAE backward"}
    assert set(report["work"]["hidden"]) == {"renderer backward"}  # SciPy adds up the voxels' gradients on a CPU
    assert report["work"]["unregistered"] == []
    for name, stage in stages.items():
        assert stage["share"] == pytest.approx(stage["milliseconds"] / stages["step"]["milliseconds"])
        if name in ("renderer backward", "step"):
            assert stage["flop"] is stage["bytes"] is stage["of_floor"] is None
            continue
        seconds, flop = stage["milliseconds"] / 1000, sum(stage["flop"].values())
        assert stage["tflop_per_second"] == pytest.approx(flop / seconds / 1e12)
        assert stage["gb_per_second"] == pytest.approx(stage["bytes"] / seconds / 1e9)
        assert stage["of_floor"] == pytest.approx(stage["floor_milliseconds"] / stage["milliseconds"])
        copying = stage["bytes"] / report["work"]["ceilings"]["bytes_per_second"]
        computing = flop / report["work"]["ceilings"]["flop_per_second"]["float32"]
        assert stage["floor_milliseconds"] == pytest.approx(1000 * max(copying, computing))
        assert stage["bytes"] > 0
    assert stages["VAE backward"]["flop"]["float32"] > 0.9 * stages["VAE"]["flop"]["float32"]  # the VAE is frozen
    assert stages["optimizer"]["bytes"] > 4 * 4 * report["generator_parameters"]  # Adam: two moments, read and written
    first, second = report["first_steps"]
    assert 0 < first < second
    assert "generator backward" in shown
    assert "renderer backward: not counted, it works with NumPy." in shown
    assert "of floor" in shown

    new = tmp_path / "new.json"
    options = ["--no-floor", "--compare", str(file), "--profile", str(trace.parent), "--json", str(new)]
    main([*TINY, "corpus.batch_size=2", *SHORT, *options])
    shown = capsys.readouterr().out
    assert "prompts_per_step: 1 -> 2" in shown
    assert "overrides of the new one alone: corpus.batch_size=2" in shown
    assert "old / new" in shown
    assert "of floor" not in shown
    report = read_report(new)
    assert report["work"] is None
    assert report["stages"]["step"]["flop"] is None
    assert report["first_steps_since"] == "call"
    assert 0 < report["first_steps"][0] < 600
    assert report["kernels"][0]["milliseconds"] >= report["kernels"][-1]["milliseconds"] > 0
    assert sum(kernel["share"] for kernel in report["kernels"]) <= 1 + 1e-9
    names = [kernel["name"] for kernel in report["kernels"]]
    assert any(name.startswith("aten::") for name in names)
    assert not any(name.startswith(("stage: ", "Optimizer.")) for name in names)
    marks = [e["name"] for e in json.loads(trace.read_text())["traceEvents"] if e["name"].startswith("stage: ")]
    assert marks.count("stage: prior") == marks.count("stage: generator backward") == 3


def report_of(times: dict[str, float], gib: float | None = None, steps_per_second: float = 1.0, **settings) -> dict:
    stages = {name: {"milliseconds": time, "peak_gib": gib} for name, time in times.items()}
    return {"stages": stages, "steps_per_second": steps_per_second, "settings": settings}


def test_ratios_of_two_reports():
    old = report_of({"generator": 6.0, "VAE": 3.0, "step": 10.0}, gib=4.0)
    new = report_of({"generator": 2.0, "prior": 4.0, "step": 8.0}, gib=8.0)
    found = {change.stage: change for change in changes(old, new)}
    assert list(found) == ["generator", "VAE", "prior", "step"]
    assert [found[name].faster for name in found] == [3.0, None, None, 1.25]
    assert [found[name].smaller for name in found] == [0.5, None, None, 0.5]
    assert found["prior"].milliseconds == (None, 4.0)


def test_ratios_of_reports_without_memory():
    assert changes(report_of({"step": 10.0}), report_of({"step": 8.0}))[0].smaller is None


def test_differences_of_settings():
    old = report_of({}, device="A", torch="2.11", overrides=["a=1", "b=2"])
    new = report_of({}, device="B", torch="2.11", image_size=64, overrides=["b=2", "c=3"])
    assert differences(old, new) == [
        "device: A -> B",
        "image_size: unknown -> 64",
        "overrides of the old one alone: a=1",
        "overrides of the new one alone: c=3",
    ]
    assert differences(old, old) == []
    turned = report_of({}, device="A", torch="2.11", overrides=["b=2", "a=1"])
    assert differences(old, turned) == ["order of the overrides: a=1 b=2 -> b=2 a=1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON file"),
        ("[]", "no report"),
        ('{"stages": {"step": {}}}', "no report"),
    ],
)
def test_a_file_to_compare_with_is_looked_at_first(tmp_path, content, message):
    file = tmp_path / "old.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message):
        main(["no=such", "--compare", str(file)])


def test_files_that_cannot_be_written_are_refused_first(tmp_path):
    with pytest.raises(UserError, match=r"--json .*name a file"):
        main(["no=such", "--json", str(tmp_path / "missing" / "a.json")])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--profile .*cannot be made"):
        main(["no=such", "--profile", str(tmp_path / "file")])


def test_true_pictures_are_refused_before_time_is_lost():
    start = time.monotonic()
    with pytest.raises(UserError, match="guidance: true pictures are rendered of toys"):
        benchmark(["guidance=truth_toy"])
    assert time.monotonic() - start < 10


def test_a_step_that_fails_leaves_nothing_behind(monkeypatch):
    """An error in the step that is counted ends the counting."""
    from scaledreamer.system import TextTo3D

    step = TextTo3D.step

    def failing(self, *args, **kwargs):
        if self.batches_done == 1 + 1 + 3 + 1:  # warm-up, timed, memory, and the first of the counter's
            raise RuntimeError("broken")
        return step(self, *args, **kwargs)

    monkeypatch.setattr(TextTo3D, "step", failing)
    with pytest.raises(RuntimeError, match="broken"):
        benchmark(TINY, steps=1, warmup=1, floor=True)
    assert "numpy" not in vars(Tensor)
    assert not _get_current_dispatch_mode_stack()


def test_a_benchmark_that_is_ended_says_so(monkeypatch):
    from scaledreamer.system import TextTo3D

    step = TextTo3D.step

    def ended(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(TextTo3D, "step", ended)
    with pytest.raises(UserError, match=r"^the benchmark was ended by SIGTERM before all its steps were done"):
        benchmark(TINY, steps=1, warmup=1)


def test_the_age_of_this_process():
    before = process.age()
    time.sleep(0.05)
    assert 0.05 <= process.age() - before < 5
    assert math.isfinite(before)
    assert before > 0
