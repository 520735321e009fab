"""Re-opening runs: the pictures of the live system, nothing of training, and a line for whatever is not there."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from runs import SMALL, prepared, trained

from scaledreamer import __version__
from scaledreamer.errors import UserError
from scaledreamer.priors.random_weights import RandomWeights
from scaledreamer.priors.stable_diffusion import StableDiffusion
from scaledreamer.text.embedding import TextEmbedding
from scaledreamer.training.trained import Trained, choose_device, open_config, open_run

PROMPTS = ("a corgi", "a cat in a hat")


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A run of two steps, its system still in memory."""
    with pytest.MonkeyPatch.context() as patch:
        base = tmp_path_factory.mktemp("trained")
        patch.setenv("SCALEDREAMER_DATA", str(base / "data"))
        (base / "prompts.txt").write_text("\n".join(PROMPTS))
        directory = base / "outputs" / "name" / "time"
        options = [f"corpus.path={base / 'prompts.txt'}", "trainer.max_steps=2", "callbacks.checkpoints.keep_every=1"]
        run = trained(options, directory)
        run.system.eval()
        yield SimpleNamespace(run=run, system=run.system, directory=directory, base=base)


@pytest.fixture
def copied(live, tmp_path):
    """The run's folder once more, to be spoilt."""
    return Path(shutil.copytree(live.directory, tmp_path / "run"))


def change(run: Path, **parts) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    for part, values in parts.items():
        config[part].update(values)
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def picture(system, text: TextEmbedding) -> torch.Tensor:
    """Two views [2 P, 8, 8, 3] of each prompt."""
    cameras = system.cameras.orbit(2, device=system.device).select([0, 1] * len(text.pooled))
    with torch.no_grad():
        return system.render(text, cameras, 8).rgb


def first_wording(text: TextEmbedding) -> TextEmbedding:
    return TextEmbedding(pooled=text.pooled, tokens=text.tokens[:, :1])


# -- a run is what it was ----------------------------------------------------------------------------------------


def test_a_run_is_what_it_was(live):
    opened = open_run(live.directory, device="cpu")
    assert (opened.step, opened.directory) == (2, live.directory)
    assert opened.prompts.train == PROMPTS
    assert opened.config["generator"]["widths"] == [16, 8]
    assert not opened.system.training
    assert not any(p.requires_grad for p in opened.system.parameters())
    expected = live.system.state_dict()
    for name, value in opened.system.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert opened.system.state_dict().keys() == expected.keys()


def test_renders_equal_the_live_systems_bit_for_bit(live):
    opened = open_run(live.directory, device="cpu")
    text = opened.embed(PROMPTS)
    stored = live.run.data.dataset.__getitems__([0, 1]).text
    assert torch.equal(text.pooled, stored.pooled)
    assert torch.equal(text.tokens, stored.tokens[:, :1])
    assert torch.equal(picture(opened.system, text), picture(live.system, first_wording(stored)))
    assert torch.equal(picture(opened.system, text), picture(opened.system, text))


def test_the_checkpoint_of_a_step(live):
    """By its name, with or without its ending, by its path, or as the run itself."""
    folder = live.directory / "checkpoints"
    name = "step-0000001.ckpt"
    weight = "generator.sdf_network.layers.0.weight"
    first = torch.load(folder / name, weights_only=True)["state_dict"][weight]
    assert not torch.equal(first, live.system.state_dict()[weight])
    for checkpoint in (Path(name), Path(name).with_suffix(""), folder / name):
        opened = open_run(live.directory, checkpoint=checkpoint, device="cpu")
        assert opened.step == 1
        assert torch.equal(opened.system.state_dict()[weight], first)
    opened = open_run(folder / name, device="cpu")
    assert (opened.step, opened.directory) == (1, live.directory)
    assert opened.config == open_run(live.directory, device="cpu").config


def test_a_checkpoint_alone_is_enough(live, tmp_path):
    shutil.copy(live.directory / "checkpoints" / "last.ckpt", tmp_path / "mine.ckpt")
    opened = open_run(tmp_path / "mine.ckpt", device="cpu")
    assert (opened.step, opened.directory) == (2, None)
    with pytest.raises(UserError, match="is a checkpoint itself"):
        open_run(tmp_path / "mine.ckpt", checkpoint=Path("last.ckpt"), device="cpu")


def test_a_configuration_with_weights_of_a_file(live):
    config = yaml.safe_load((live.directory / "config.yaml").read_text())
    file = live.directory / "checkpoints" / "step-0000001.ckpt"
    opened = open_config(config, checkpoint=file, device="cpu")
    assert (opened.step, opened.directory) == (1, None)
    content = torch.load(file, weights_only=True)["state_dict"]
    published = {k.replace("generator.", "geometry."): v for k, v in content.items()}
    torch.save(published, live.base / "bare.pth")
    bare = open_config(config, checkpoint=live.base / "bare.pth", device="cpu")
    assert bare.step == 0  # the file does not say
    text = opened.embed(PROMPTS)
    assert torch.equal(picture(bare.system, text), picture(opened.system, text))


def test_a_new_run_starts_from_the_weights_of_another(live, monkeypatch, tmp_path, caplog):
    """Weights alone: the steps, the draws and the optimizer are its own."""
    monkeypatch.setenv("SCALEDREAMER_DATA", str(live.base / "data"))
    file = live.directory / "checkpoints" / "last.ckpt"
    options = [f"corpus.path={live.base / 'prompts.txt'}", f"checkpoint={file}", "trainer.max_steps=1", "seed=9"]
    run, _ = prepared([*SMALL, *options, "generator.sphere_radius=0.7"], tmp_path)
    assert "generator.sphere_radius was 0.8, is 0.7" in caplog.text
    expected = live.system.state_dict()
    for name, value in run.system.state_dict().items():
        assert torch.equal(value, expected[name]), name
    run.trainer.fit(run.system, datamodule=run.data)
    assert run.system.global_step == run.system.batches_done == 1
    assert len(open_run(tmp_path, device="cpu").prompts.train) == 2


# -- prompts -----------------------------------------------------------------------------------------------------


def test_unseen_prompts_are_embedded_as_training_would(live):
    opened = open_run(live.directory, device="cpu")
    unseen = ["a horse", PROMPTS[0], "a very long castle"]
    text = opened.embed(unseen)
    prior, views = live.run.system.guidance.prior, live.run.system.guidance.views
    expected = prior.encode_text([*unseen, *(f"{p}, side view" for p in unseen)])
    assert views.templates[0] == "{prompt}, side view"
    assert text.tokens.shape == (3, 1, prior.text_length, prior.text_dim)
    torch.testing.assert_close(text.pooled, expected.pooled[:3], rtol=2e-3, atol=2e-3)  # stored to half precision
    torch.testing.assert_close(text.tokens[:, 0], expected.tokens[3:], rtol=2e-3, atol=2e-3)
    assert text.prompts == tuple(unseen)
    assert picture(opened.system, text).shape == (6, 8, 8, 3)


def test_stored_prompts_need_no_text_encoder(live, monkeypatch):
    monkeypatch.setattr(RandomWeights, "text_encoder", lambda *_: pytest.fail("loaded the text encoder"))
    opened = open_run(live.directory, device="cpu")
    assert opened.embed([PROMPTS[1], PROMPTS[0], PROMPTS[1]]).pooled.shape[0] == 3
    with pytest.raises(pytest.fail.Exception):
        opened.embed(["a horse"])


def test_without_the_stored_embeddings_they_are_computed(live, monkeypatch, tmp_path):
    stored = open_run(live.directory, device="cpu").embed(PROMPTS)
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path))
    opened = open_run(live.directory, device="cpu")
    computed = opened.embed(PROMPTS)
    torch.testing.assert_close(computed.tokens, stored.tokens, rtol=2e-3, atol=2e-3)
    assert not list(tmp_path.rglob("*.embeddings"))  # a picture leaves nothing behind


def test_prompts_of_ones_own_need_no_corpus(live, copied):
    change(copied, corpus={"path": "nowhere/prompts.txt"})
    opened = open_run(copied, device="cpu")
    assert opened.embed(["a horse"]).pooled.shape[0] == 1
    with pytest.raises(UserError, match=r"nowhere/prompts\.txt"):
        _ = opened.prompts


# -- what does not load ------------------------------------------------------------------------------------------


def test_neither_denoiser_nor_trainer_is_touched(live, copied, monkeypatch):
    """The UNet and the VAE fail on being loaded; everything of training is not even there."""
    for part in ("unet", "vae"):
        monkeypatch.setattr(RandomWeights, part, lambda *_, part=part: pytest.fail(f"loaded the {part}"))
    monkeypatch.setattr(StableDiffusion, "setup", lambda *_: pytest.fail("set up the prior"))
    change(
        copied,
        trainer={"_target_": "nowhere.trainer"},
        data={"_target_": "nowhere.Data"},
        logger={"mine": {"_target_": "nowhere.Logger"}},
        callbacks={"mine": {"_target_": "nowhere.Callback"}},
    )
    opened = open_run(copied, device="cpu")
    assert picture(opened.system, opened.embed(["a horse"])).isfinite().all()
    with pytest.raises(RuntimeError, match="cannot be trained"):
        opened.system.on_fit_start()


# -- mistakes ----------------------------------------------------------------------------------------------------


def error_of(run: Path, **options) -> str:
    with pytest.raises(UserError) as error:
        open_run(run, **{"device": "cpu", **options})
    return str(error.value)


def test_folders_that_are_no_run(live, tmp_path):
    assert (
        error_of(tmp_path / "x") == f"run={tmp_path / 'x'} is not there; give the folder of a run, outputs/NAME/TIME."
    )
    assert "is no run: it has no config.yaml; give the folder" in error_of(tmp_path)
    parent = live.directory.parent
    assert error_of(parent) == f"run={parent} is no run: it has no config.yaml; its newest run is {live.directory}."


def test_a_run_without_the_checkpoint(live, copied):
    assert error_of(copied, checkpoint=Path("step-7")) == (
        f"checkpoint=step-7: no such file; run={copied} has last.ckpt, step-0000001.ckpt, step-0000002.ckpt."
    )
    shutil.rmtree(copied / "checkpoints")
    assert error_of(copied).startswith(f"run={copied} has no checkpoint: ")


def test_a_configuration_that_this_version_cannot_build(copied):
    change(copied, generator={"wings": 2})
    message = error_of(copied)
    assert message.startswith(f"{copied / 'config.yaml'}: generator.wings: no such option; ")
    file = copied / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    content["scaledreamer"]["version"] = "7.0.0"
    file.unlink()  # it is another name of a step's
    torch.save(content, file)
    os.utime(file)
    assert error_of(copied).endswith(f" It was made by scaledreamer 7.0.0, this is {__version__}; update it.")


def test_a_newer_version_that_builds_all_the_same_is_told(copied, caplog):
    file = copied / "checkpoints" / "step-0000001.ckpt"
    content = torch.load(file, weights_only=True)
    content["scaledreamer"]["version"] = "7.0.0"
    torch.save(content, file)
    assert isinstance(open_run(copied, checkpoint=file, device="cpu"), Trained)
    assert f"was made by scaledreamer 7.0.0, this is {__version__}" in caplog.text


@pytest.mark.parametrize("content", ["- a list", "a: [", "\0"])
def test_a_broken_configuration(copied, content):
    (copied / "config.yaml").write_text(content)
    message = error_of(copied)
    assert message.startswith(str(copied / "config.yaml"))
    assert "\n" not in message


def test_a_checkpoint_that_does_not_fit_its_configuration(copied):
    change(copied, generator={"channels": 5})
    message = error_of(copied)
    assert "generator.sdf_network.layers.0.weight, generator.feature_network.layers.0.weight: [64, 32]" in message


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="device=cuda: PyTorch sees no GPUs here; use device=cpu"):
        choose_device("cuda")
    with pytest.raises(UserError, match="device=gpu: choose auto, cpu, cuda or cuda:N"):
        choose_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(UserError, match="device=cuda:1: PyTorch sees 1 GPU here"):
        choose_device("cuda:1")


def test_a_bundled_prior_knows_toys_only(live, copied):
    opened = open_run(copied, device="cpu")
    toy = Trained(system=opened.system, config={"guidance": {"prior": {"path": "toy"}}}, directory=None, step=0)
    with pytest.raises(UserError, match="toy"):
        toy.embed(["a castle of sand"])
