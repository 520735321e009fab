"""Weights of the paper's checkpoints and of ours: every name and every value has its place."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from published_files import SMALL_PARTS, configuration, file_of, parts_of, published
from safetensors.torch import save_file
from test_hyper_ingp import golden_background, golden_generator
from test_triplane import load as golden_triplane
from test_volsdf import IMAGES, golden_scene

from scaledreamer.cameras import Rays
from scaledreamer.errors import UserError
from scaledreamer.training.build import PARTS, build
from scaledreamer.training.saved_weights import load_weights, read_weights

LAYOUTS = {
    "MG15_hyper_iNGP": "hyper_ingp",
    "DF415_3dconv_net": "3dconv",
    "AT2520_3dconv_net": "3dconv",
    "CP100k_3dconv_net": "3dconv_m2",
    "DL17k_triplane_transformer": "triplane_transformer",
    "single_asd_sd_nerf": "ingp",
    "single_asd_mv_nerf": "ingp_mv",
}
"""The paper's runs and the options that are theirs."""

RADIUS = {"ingp": 1.0, "ingp_mv": 1.0}  # of their boxes; 2 elsewhere

TYPES = {"float32": torch.float32, "int32": torch.int32, "bool": torch.bool}


@pytest.fixture
def small():
    """A small 3DConv system's parts and a file that fits them."""
    parts = parts_of("3dconv", *SMALL_PARTS["3dconv"])
    return parts, published(parts)


# -- the paper's layouts -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize("run", LAYOUTS)
def test_every_name_and_shape_of_the_papers_runs_loads(goldens, run):
    """At full size, on a device without memory."""
    layout = goldens("reference_checkpoint_layout").meta["configs"][run]["keys"]
    option = LAYOUTS[run]
    tensors = {k: torch.zeros((), dtype=TYPES[v["dtype"]]).expand(v["shape"]) for k, v in layout.items()}
    radius = RADIUS.get(option, 2.0)
    tensors["geometry.bbox"] = torch.tensor([[-radius] * 3, [radius] * 3])
    if "renderer.variance._inv_std" in tensors:
        tensors["renderer.variance._inv_std"] = torch.tensor(0.340119)
    config = configuration(option)
    with torch.device("meta"):
        parts = {name: build(config[name], text_dim=1024) for name in PARTS[:2]}
    parts["renderer"] = build(config["renderer"])  # its constant is compared
    load_weights(parts, file_of(tensors))
    needed = [n for n in tensors if not re.search(r"bbox|estimator\.(resolution|aabbs)", n) and tensors[n].numel()]
    for name in {re.sub(r"\d+", "N", name): name for name in needed}.values():  # one of each kind
        with pytest.raises(UserError, match="missing in the file: "):
            load_weights(parts, file_of({k: v for k, v in tensors.items() if k != name}))


@pytest.mark.parametrize("option", SMALL_PARTS)
def test_values_arrive_in_their_places(tmp_path, option):
    torch.manual_seed(0)
    source, target = (parts_of(option, *SMALL_PARTS[option], seed=seed) for seed in (1, 2))
    for part in ("generator", "background"):
        for parameter in source[part].parameters():
            torch.nn.init.normal_(parameter)
    torch.save({"state_dict": published(source), "epoch": 3, "global_step": 70}, tmp_path / "x.pth")
    saved = read_weights(tmp_path / "x.pth")
    load_weights(target, saved)
    assert saved.step == 70
    for part in PARTS:
        loaded = target[part].state_dict()
        assert loaded.keys() == source[part].state_dict().keys()
        for name, value in source[part].state_dict().items():
            assert torch.equal(loaded[name], value), f"{part}.{name}"


@torch.no_grad()
def test_golden_renders_from_a_file(goldens, tmp_path):
    """The reference's whole state through a file of Lightning's: its renders come out."""
    golden = goldens("volsdf_renderer")
    torch.save({"state_dict": golden.case("state"), "epoch": 0, "global_step": 5}, tmp_path / "scene.ckpt")
    parts: dict[str, Any] = dict(zip(PARTS, golden_scene(golden), strict=True))
    scramble(*parts.values())
    load_weights(parts, read_weights(tmp_path / "scene.ckpt"))
    case = golden.tensors
    rays = Rays(case["in.rays_o"], case["in.rays_d"])
    field = parts["generator"](case["in.text_embed"], case["in.noise"])
    found = parts["renderer"].render(field, rays, parts["background"](rays.directions), None)
    for theirs, ours in IMAGES.items():
        torch.testing.assert_close(getattr(found, ours), case[f"out.eval.{theirs}"], rtol=2e-4, atol=2e-5, msg=theirs)


@pytest.mark.parametrize("text", ["local", "global"])
@torch.no_grad()
def test_golden_triplane_from_a_file(goldens, tmp_path, text):
    generator, case = golden_triplane(goldens, text)
    state = {f"geometry.{k.removeprefix('state.')}": v for k, v in case.items() if k.startswith("state.")}
    torch.save(state, tmp_path / "bare.pth")
    scramble(generator)
    load_weights({"generator": generator}, read_weights(tmp_path / "bare.pth"))
    torch.testing.assert_close(generator.planes(case["in.text_embed"]), case["out.planes"], rtol=1e-4, atol=1e-5)
    found = generator(case["in.text_embed"]).query(case["in.points"])
    torch.testing.assert_close(found.sdf.reshape(-1, 1), case["out.sdf"], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_golden_hyper_ingp_from_a_file(goldens, tmp_path):
    golden = goldens("hyper_ingp")
    parts = {"generator": golden_generator(golden), "background": golden_background(golden)}
    state = {f"geometry.{k}": v for k, v in golden.case("geo.state").items()}
    state |= {f"background.{k}": v for k, v in golden.case("bg.state").items()}
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    scramble(*parts.values())
    load_weights(parts, read_weights(tmp_path / "x.pth"))
    case = golden.case("geo")
    found = parts["generator"](case["in.text_embed"]).query(case["in.points"])
    torch.testing.assert_close(found.sdf.reshape(-1, 1), case["out.sdf"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.logit(found.color).flatten(0, 1), case["out.features"], rtol=1e-4, atol=1e-5)
    case = golden.case("bg")
    color = parts["background"](case["in.dirs"], case["in.text_embed"])
    torch.testing.assert_close(color, case["out.color"], rtol=1e-4, atol=1e-5)


def scramble(*parts) -> None:
    for part in parts:
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter)


# -- kinds of files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["lightning", "bare", "old", "safetensors"])
def test_forms_of_a_file(tmp_path, small, form):
    parts, tensors = small
    tensors["geometry.sdf_network.layers.0.weight"].fill_(3.0)
    path = tmp_path / "x.pth"
    if form == "safetensors":
        path = tmp_path / "x.safetensors"
        save_file(tensors, path)
    else:
        content = {"state_dict": tensors, "optimizer_states": [{}]} if form == "lightning" else tensors
        torch.save(content, path, _use_new_zipfile_serialization=form != "old")
    load_weights(parts, read_weights(path))
    assert (parts["generator"].sdf_network.layers[0].weight == 3).all()


def test_half_precision_is_cast(tmp_path):
    """As tiny-cuda-nn may store its grids."""
    parts = parts_of("hyper_ingp", *SMALL_PARTS["hyper_ingp"])
    tensors = published(parts)
    grid = torch.linspace(-1, 1, len(tensors["geometry.encoding.encoding.encoding.params"]))
    tensors["geometry.encoding.encoding.encoding.params"] = grid.half()
    load_weights(parts, file_of(tensors))
    params = parts["generator"].encoding.params
    assert params.dtype == torch.float32
    assert torch.equal(params.detach(), grid.half().float())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no weights: neither a checkpoint of Lightning nor a state_dict of tensors"),
        ({"epoch": 3}, "holds no weights"),
        ({"state_dict": {}}, "holds no weights"),
        ({"state_dict": {"a": 1.0}}, "holds no weights"),
        ({"state_dict": {}, "hyper_parameters": OmegaConf.create({"a": 1})}, r"more than weights \(omegaconf\."),
    ],
)
def test_files_without_weights_alone(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=message) as error:
        read_weights(tmp_path / "x.pth")
    assert "\n" not in str(error.value)
    assert str(tmp_path / "x.pth") in str(error.value)


def test_the_advice_for_a_file_with_objects_works(tmp_path, monkeypatch, small):
    """What the message says to run makes a file that loads."""
    _, tensors = small
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": tensors, "hyper_parameters": OmegaConf.create({"a": 1})}, "x.ckpt")
    with pytest.raises(UserError) as error:
        read_weights(Path("x.ckpt"))
    command = re.search(r'python -c "(.*)"$', str(error.value))
    assert command is not None
    exec(command[1], {})
    assert read_weights(Path("weights.pth")).tensors.keys() == tensors.keys()


def test_files_that_are_none_of_pytorchs(tmp_path):
    for content in (b"", b"hello there, this is a text", b"PK\x03\x04 cut"):
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(UserError, match=r"x\.pth: not a readable checkpoint"):
            read_weights(tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"nowhere\.pth: No such file"):
        read_weights(tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match="Is a directory"):
        read_weights(tmp_path)
