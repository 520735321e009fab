"""How near gradients are to plain PyTorch's: hand-worked likenesses, and the command."""

import json

import pytest
import torch

from scaledreamer.benchmark.gradients import alike, compare, main, plainly
from scaledreamer.benchmark.setting import configuration

TINY = ["generator=3dconv", "guidance=asd_sd", "guidance.prior.path=random:tiny", "corpus.batch_size=1"]
TINY += ["size=small", "trainer=cpu", "trainer.threads=1", "cameras.image_size=8"]


def test_likeness_by_hand():
    cosine, norm = alike(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 10.0]))
    assert (cosine, norm) == (pytest.approx(0.8), pytest.approx(0.5))


def test_plainly_means_no_kernels_and_no_half_precision():
    config = configuration(["experiment=df415", "guidance.prior.path=random:tiny"], 10)
    assert config["trainer"]["precision"] == "bf16-mixed"
    plain = plainly(config)
    assert plain["trainer"]["precision"] == "32-true"
    assert plain["generator"] == {**config["generator"], "backend": "torch", "cuda_graph": False}
    assert plain["renderer"]["backend"] == "torch"
    assert (plain["guidance"]["prior"]["speedup"], plain["guidance"]["prior"]["dtype"]) == ("none", "float32")
    assert plain["optimizer"] == config["optimizer"]
    hashed = plainly(configuration(["experiment=mg15", "guidance.prior.path=random:tiny"], 10))
    assert hashed["background"]["encoding"]["backend"] == hashed["generator"]["encoding"]["backend"] == "torch"


def test_on_a_cpu_the_plain_path_is_taken_anyway():
    found = compare(TINY, draws=2, after=1)
    assert set(found) == {"given"}
    assert found["given"].cosines == pytest.approx([1.0, 1.0], abs=1e-9)
    assert found["given"].norms == pytest.approx([1.0, 1.0], abs=1e-6)
    assert found["given"].norm_of_sum == pytest.approx(1.0, abs=1e-6)


def test_half_precision_is_seen(tmp_path, capsys):
    file = tmp_path / "found.json"
    main([*TINY, "trainer.precision=bf16-mixed", "--draws", "2", "--json", str(file)])
    shown, given = capsys.readouterr().out, json.loads(file.read_text())["given"]
    assert len(given["cosines"]) == 2
    assert all(0.9 < cosine < 0.99999 for cosine in given["cosines"])
    assert all(norm != 1 for norm in given["norms"])
    assert "of 2" in shown
    assert f"{given['norm_of_sum']:.4f}" in shown


@pytest.mark.parametrize("wrong", [["--draws", "0"], ["--after", "-1"]])
def test_wrong_numbers(wrong, capsys):
    with pytest.raises(SystemExit):
        main([*TINY, *wrong])
    assert "is not a whole number" in capsys.readouterr().err
