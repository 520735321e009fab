"""Files of weights that do not fit are told from those that do, in words; and when a run looks at its file."""

import copy
from pathlib import Path

import pytest
import torch
from answers import answer
from published_files import SMALL_PARTS, configuration, file_of, parts_of, published
from runs import SMALL, prepared

from scaledreamer.backgrounds import EnvironmentMap
from scaledreamer.config import check, compose
from scaledreamer.errors import UserError
from scaledreamer.generators.base import Generator
from scaledreamer.training.build import build
from scaledreamer.training.names import MOST, listed
from scaledreamer.training.saved_weights import MARKS, load_weights


@pytest.fixture
def small():
    """A small 3DConv system's parts and a file that fits them."""
    parts = parts_of("3dconv", *SMALL_PARTS["3dconv"])
    return parts, published(parts)


def refused(parts, tensors, **more) -> str:
    """The message of a refused load, after making sure that it changed nothing."""
    before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    with pytest.raises(UserError) as error:
        load_weights(parts, file_of(tensors, **more))
    for name, part in parts.items():
        for key, value in part.state_dict().items():
            assert torch.equal(value, before[name][key]), key
    return str(error.value)


# -- files that do not fit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("here", SMALL_PARTS)
@pytest.mark.parametrize("there", SMALL_PARTS)
def test_a_wrong_pair_is_one_line_that_names_the_right_option(there, here):
    tensors = published(parts_of(there, *SMALL_PARTS[there]))
    parts = parts_of(here, *SMALL_PARTS[here])
    if there == here:
        load_weights(parts, file_of(tensors))
        return
    message = refused(parts, tensors)
    assert "\n" not in message
    assert f"weights.pth looks like a checkpoint of generator={there}, but the generator here is " in message
    assert type(parts["generator"]).__name__ in message


def test_marks_are_those_of_the_shipped_options():
    """Each word is in the names of its option's parameters, and in those of no other option's."""
    words = {}
    for option in MARKS.values():
        with torch.device("meta"):
            generator = build(configuration(option)["generator"], text_dim=8)
        words[option] = {word for name in generator.state_dict() for word in name.split(".")}
    for mark, option in MARKS.items():
        assert [named for named in words if mark in words[named]] == [option]


def test_all_mistakes_are_in_one_message(small):
    parts, tensors = small
    del tensors["geometry.space_generator.synthesis.blocks.0.conv0.bias"]
    del tensors["geometry.space_generator.synthesis.first_block.const"]
    del tensors["renderer.variance._inv_std"]
    tensors["geometry.extra"] = tensors["optimizer.m"] = torch.zeros(2)
    tensors["geometry.sdf_network.layers.0.weight"] = torch.zeros(4, 3)
    tensors["background.network.layers.0.weight"] = torch.zeros(16, 9, dtype=torch.int32)
    tensors["geometry.bbox"] = torch.tensor([[-1.0] * 3, [1.0] * 3])
    first, *mistakes, last = refused(parts, tensors).splitlines()
    assert first.startswith("weights.pth does not fit the generator, background and renderer of this run:")
    assert [line.strip() for line in mistakes] == [
        "missing in the file: generator.synthesis.first_block.const, generator.synthesis.blocks.0.conv0.bias, "
        "renderer.log_inv_std",
        "only in the file: geometry.extra, optimizer.m",
        "geometry.sdf_network.layers.0.weight: [4, 3] in the file, [64, 3] here",
        "background.network.layers.0.weight: int32 in the file, float32 here",
        "geometry.bbox: [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]] in the file, [[-2.0, -2.0, -2.0], [2.0, 2.0, 2.0]] by "
        "the options here",
    ]
    assert "guidance=" in last


def test_another_sharpness_of_the_surface_is_told(small):
    parts, tensors = small
    tensors["renderer.variance._inv_std"] = torch.tensor(0.25)
    assert "renderer.variance._inv_std: 0.25 in the file, 0.340119 by the options here" in refused(parts, tensors)
    ours = {f"{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()}
    ours["renderer.log_inv_std"] = torch.tensor(0.25)
    assert "renderer.log_inv_std: 0.25 in the file, 0.340119 by the options here" in refused(parts, ours)


def test_a_background_of_another_kind(small):
    parts, tensors = small
    tensors["background.encoding.encoding.encoding.params"] = torch.zeros(30)
    assert "background.encoding.encoding.encoding.params: [30] in the file, [0] here" in refused(parts, tensors)


def test_a_name_for_which_there_are_two_tensors(small):
    parts, tensors = small
    tensors["generator.sdf_network.layers.0.weight"] = torch.zeros(64, 3)
    assert "only in the file: generator.sdf_network.layers.0.weight" in refused(parts, tensors)


def test_a_generator_of_someone_elses():
    """Without a table of names: its own checkpoints load, and its class is named where another's is given."""

    class Mine(Generator):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 3)

    parts = {"generator": Mine(), "background": EnvironmentMap()}
    state = {f"{name}.{k}": v + 1 for name, part in parts.items() for k, v in part.state_dict().items()}
    load_weights(parts, file_of(state))
    assert torch.equal(parts["generator"].layer.weight, state["generator.layer.weight"])
    other = {"version": "0.1.0", "config": {"generator": {"_target_": "theirs.Ellipsoids"}}}
    message = refused(parts, {"generator.x": torch.zeros(2)}, made_by=other)
    assert message == "weights.pth is a checkpoint of Ellipsoids, but the generator here is Mine."
    assert "missing in the file: generator.layer.weight" in refused(parts, {"generator.x": torch.zeros(2)})


def test_lists_of_names():
    names = [
        *(f"layers.{i}.norm.weight" for i in (0, 1, 2, 5)),
        "layers.7.bias",
        "plain",
        "net.3.mlp.0.w",
        "net.3.mlp.1.w",
    ]
    assert listed(names) == "layers.{0-2,5}.norm.weight, layers.7.bias, plain, net.3.mlp.0.w, net.3.mlp.1.w"
    assert listed([]) == ""
    many = [f"n{i}" for i in range(MOST + 3)]
    assert listed(many) == ", ".join(many[:MOST]) + " and 3 more"


# -- a run that starts from a file -------------------------------------------------------------------------------


@pytest.fixture
def prompt_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))
    path = tmp_path / "prompts.txt"
    path.write_text("a corgi\na cat\n")
    return f"corpus.path={path}"


def test_a_run_that_goes_on_does_not_read_the_file_again(tmp_path, prompt_file, monkeypatch, capsys):
    """``resume=auto`` with ``checkpoint=``, as jobs do that may be started again: weights first, then the run's own."""
    source = parts_of("3dconv", *(o for o in SMALL if o.startswith(("generator.", "renderer."))), text_dim=32)
    torch.save({"state_dict": published(source)}, tmp_path / "x.pth")
    monkeypatch.chdir(tmp_path)
    options = (*SMALL, prompt_file, "name=r", "resume=auto", f"checkpoint={tmp_path / 'x.pth'}")
    first = answer(*options, "trainer.max_steps=1", capsys=capsys, monkeypatch=monkeypatch)
    assert first.code == 0, first.errors
    (tmp_path / "x.pth").unlink()
    again = answer(*options, "trainer.max_steps=2", capsys=capsys, monkeypatch=monkeypatch)
    assert again.code == 0, again.errors
    (run,) = (tmp_path / "outputs" / "r").iterdir()
    assert sorted(p.name for p in (run / "checkpoints").glob("step*")) == ["step-0000001.ckpt", "step-0000002.ckpt"]


def test_a_file_that_does_not_fit_is_told_before_prompts_are_embedded(tmp_path, prompt_file, monkeypatch):
    parts = parts_of("hyper_ingp", *SMALL_PARTS["hyper_ingp"])
    torch.save(published(parts), tmp_path / "x.pth")
    monkeypatch.setattr("scaledreamer.text.settings.TextSettings.open", lambda *a, **k: pytest.fail("embedded"))
    with pytest.raises(UserError, match="looks like a checkpoint of generator=hyper_ingp"):
        prepared([*SMALL, prompt_file, f"checkpoint={tmp_path / 'x.pth'}"], tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["checkpoint=nowhere.pth"], "checkpoint: there is no file nowhere.pth. [command line, over conf/train.yaml]"),
        (["checkpoint=x.pth", "resume=outputs/a/b"], "checkpoint: gives initial weights, but resume= goes on with"),
        (["checkpoint=3"], "checkpoint: input should be a valid string"),
    ],
)
def test_mistakes_that_composition_tells(overrides, message, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    with pytest.raises(UserError) as error:
        check(compose(overrides))
    assert str(error.value).startswith(message)
