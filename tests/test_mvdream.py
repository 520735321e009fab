"""MVDream's checkpoint: where each of its weights goes, and what is converted, kept and refused."""

import logging

import pytest
import torch
from ldm import tiny_state, write_tiny_checkpoint

from scaledreamer.errors import UserError
from scaledreamer.priors import locate, mvdream
from scaledreamer.priors.ldm_names import unet_names, vae_names
from scaledreamer.priors.multiview import MultiViewDiffusion
from scaledreamer.priors.multiview_unet import MultiViewUNet
from scaledreamer.priors.random_weights import RandomWeights, write_random_prior
from scaledreamer.priors.sizes import MVDREAM, TINY_MV
from scaledreamer.priors.stable_diffusion import StableDiffusion

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path):
    """An empty data folder; the published sizes are those of ``tiny_mv``."""
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(mvdream, "MVDREAM", TINY_MV)
    return tmp_path / "data"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("priors") / "tiny"
    write_random_prior(folder, "tiny")
    return folder


# -- names ---------------------------------------------------------------------------------------------------------


def test_every_weight_of_the_published_networks_has_its_place_both_ways(goldens):
    """690 of the UNet (686 that Stable Diffusion has, 4 of the camera) and 248 of the VAE, names and shapes."""
    from diffusers import AutoencoderKL

    meta = goldens("mvdream_sd21_keys").meta
    with torch.device("meta"):
        unet, vae = MultiViewUNet.from_config(MVDREAM.unet).unet.state_dict(), AutoencoderKL(**MVDREAM.vae).state_dict()
    for names, ours, published, count in (
        (unet_names(unet, MVDREAM.unet), unet, meta["unet"], 690),
        (vae_names(vae, MVDREAM.vae), vae, meta["first_stage"], 248),
    ):
        assert len(names) == len(published) == count
        back = {theirs: mine for mine, theirs in names.items()}
        assert len(back) == count
        assert set(back) == set(published)
        for theirs, told in published.items():
            mine = back[theirs]
            if told["diffusers"] is None:
                assert theirs.startswith("model.diffusion_model.camera_embed.")
            else:
                assert mine == told["diffusers"]
            squeezed = told["shape"][:2] if told.get("squeeze_1x1_conv_to_linear") else told["shape"]
            assert list(ours[mine].shape) == squeezed
    cameras = [names for names in meta["unet"].values() if names["diffusers"] is None]
    assert [c["shape"] for c in cameras] == [[1280, 16], [1280], [1280, 1280], [1280]]


# -- conversion ----------------------------------------------------------------------------------------------------


def prior_of(path, base) -> MultiViewDiffusion:
    prior = MultiViewDiffusion(path=str(path), base_path=str(base))
    prior.prepare()
    prior.setup(CPU)
    return prior


def answers(prior):
    torch.manual_seed(0)
    x, tokens, c2w = torch.randn(4, 4, 8, 8), torch.randn(4, 77, 32), torch.eye(4).repeat(4, 1, 1)
    c2w[:, :3, 3] = torch.randn(4, 3)
    return (
        prior.predict_noise(x, torch.full((4,), 500), tokens, c2w),
        prior.encode_images(torch.rand(4, 3, 64, 64), x),
    )


def test_a_checkpoint_is_converted_once_and_gives_the_numbers_of_its_weights(tmp_path, base, monkeypatch):
    file = write_tiny_checkpoint(tmp_path / "any name.pt")
    found = answers(prior_of(file, base))
    random = MultiViewDiffusion(path="random:tiny_mv")
    random.setup(CPU)
    for got, expected in zip(found, answers(random), strict=True):
        torch.testing.assert_close(got, expected)

    def unread(*_, **__):
        raise AssertionError("the checkpoint was read again")

    monkeypatch.setattr(mvdream, "read_checkpoint", unread)
    assert torch.equal(answers(prior_of(file, base))[0], found[0])
    folder = mvdream_folder(tmp_path, file)
    assert sorted(p.name for p in folder.iterdir()) == ["unet", "vae"]
    assert not list(folder.parent.glob("*.part"))
    assert len({p.stat().st_mode for p in folder.glob("*/*")}) == 1  # who may read one file may read all
    assert torch.equal(answers(prior_of(folder, base))[0], found[0])  # the folder is a prior like any other
    file.write_bytes(file.read_bytes() + b" ")  # another file at that place
    with pytest.raises(AssertionError, match="read again"):
        prior_of(file, base)


def mvdream_folder(tmp_path, file):
    return tmp_path / "data" / "priors" / mvdream.identity(file)


def test_the_parts_that_are_not_converted_are_the_base_s(tmp_path, base):
    file = write_tiny_checkpoint(tmp_path / mvdream.FILE)
    prior, single = prior_of(file, base), StableDiffusion(path=str(base))
    assert prior.fingerprint == single.fingerprint  # stored text embeddings serve both
    assert torch.equal(prior.encode_text(["a cat"]).tokens, single.encode_text(["a cat"]).tokens)
    assert (prior.views, prior.image_size, prior.latent_shape) == (4, 64, (4, 8, 8))
    with pytest.raises(UserError, match=r"'sd21' has not been fetched .* Set guidance\.prior\.base_path"):
        MultiViewDiffusion(path=str(file)).prepare()


def test_a_state_dict_of_a_trainer_and_a_linear_vae_are_taken_as_well(tmp_path, base):
    state = {k: v.flatten(1) if v.ndim == 4 and "attn_1" in k else v for k, v in tiny_state().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.ckpt")
    write_tiny_checkpoint(tmp_path / "b.pt")
    found = [answers(prior_of(tmp_path / name, base)) for name in ("a.ckpt", "b.pt")]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_projections_by_convolution_become_linear_ones_and_the_other_way_round(tmp_path):
    """Some checkpoints of the layout project into attention by 1 x 1 convolutions, as Stable Diffusion 1 does."""
    sizes = {**TINY_MV.unet, "use_linear_projection": False}
    with torch.device("meta"):
        model = MultiViewUNet.from_config(sizes).unet
    names = unet_names(model.state_dict(), sizes)
    state = {k: v for k, v in tiny_state().items() if k.startswith("model.")}
    made = mvdream.translated(state, {"unet": model}, {"unet": names}, tmp_path)["unet"]
    for ours, theirs in names.items():
        assert torch.equal(made[ours].flatten(), state[theirs].flatten())
        assert made[ours].shape == model.state_dict()[ours].shape
    one = "down_blocks.0.attentions.0.proj_in.weight"
    assert (made[one].ndim, state[names[one]].ndim) == (4, 2)


def test_a_hub_name_may_be_of_a_unet_alone(tmp_path, base, monkeypatch):
    cache, calls = tmp_path / "cache", []

    def snapshot_download(name, *, local_dir=None, allow_patterns=None, local_files_only=False):
        if not local_files_only:
            calls.append(name)
            RandomWeights("tiny_mv").unet(CPU).save_pretrained(cache / "unet")  # pyright: ignore
        elif not cache.exists():
            raise FileNotFoundError("not cached")
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    found = prior_of("someone/four-views", base)
    assert "someone/four-views" in calls
    calls.clear()
    assert prior_of("someone/four-views", base).fingerprint == found.fingerprint
    assert calls == []


def test_a_benchmark_stands_random_weights_in(data, tmp_path):
    assert locate.stand_in("mvdream") == "random:mvdream"
    (data / "priors" / "mvdream").mkdir(parents=True)
    write_tiny_checkpoint(data / "priors" / "mvdream" / mvdream.FILE)
    assert locate.stand_in("mvdream") == "mvdream"


def test_a_conversion_that_was_killed_is_done_again(tmp_path, base, data):
    file = write_tiny_checkpoint(tmp_path / "a.pt")
    folder = mvdream_folder(tmp_path, file)
    (folder / "vae").mkdir(parents=True)
    (folder / "vae" / "config.json").write_text("{")
    left = folder.with_name(f"{folder.name}.part") / "unet"
    left.mkdir(parents=True)
    (left / "config.json").write_text("{")
    prior_of(file, base)
    assert not left.parent.exists()


# -- what is refused -----------------------------------------------------------------------------------------------


def test_wrong_weights_are_named_one_by_one(tmp_path, base, caplog):
    state = tiny_state()
    camera, conv, vae = (
        "model.diffusion_model.camera_embed.0.weight",
        "model.diffusion_model.input_blocks.0.0.weight",
        "first_stage_model.quant_conv.bias",
    )
    for name in (camera, vae):
        del state[name]
    state[conv] = state[conv][:, :2]
    state["model.diffusion_model.extra"] = state["something.else"] = torch.zeros(1)
    file = tmp_path / "a.pt"
    torch.save(state, file)
    with caplog.at_level(logging.WARNING), pytest.raises(UserError) as caught:
        prior_of(file, base)
    message = str(caught.value)
    assert message.startswith(f"{file} is not sd-v2.1-base-4view.pt of MVDream: ")
    assert f"2 missing, e.g. {camera}" in message
    assert f"1 of another shape, e.g. {conv} [32, 2, 3, 3] instead of [32, 4, 3, 3]" in message
    assert "1 unexpected, e.g. model.diffusion_model.extra" in message
    logged = caplog.text
    assert all(name in logged for name in (camera, conv, vae, "model.diffusion_model.extra", "something.else"))
    assert not mvdream_folder(tmp_path, file).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"cannot be read as a checkpoint"),
        (b"PK\3\4 something", r"cannot be read as a checkpoint"),
        (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", r"cannot be read as a checkpoint"),  # would run a command
    ],
)
def test_another_file_is_refused_in_one_line_and_its_code_is_not_run(tmp_path, base, content, message):
    file = tmp_path / "a.pt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        prior_of(file, base)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_a_generator_is_refused(tmp_path, base):
    file = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"generator.weight": torch.zeros(3)}, "global_step": 7}, file)
    with pytest.raises(UserError, match=r"is not sd-v2.1-base-4view.pt of MVDream: weights are \d+ missing"):
        prior_of(file, base)


def test_single_view_and_multi_view_priors_are_not_taken_for_each_other(tmp_path, base):
    four = tmp_path / "four"
    RandomWeights("tiny_mv").unet(CPU).save_pretrained(four / "unet")  # pyright: ignore
    with pytest.raises(UserError, match=r"multi-view UNet without its vae: choose guidance/prior=mvdream"):
        StableDiffusion(path=str(four)).prepare()
    with pytest.raises(UserError, match=r"denoises 4 views .* StableDiffusion 1; use it with guidance/prior=mvdream"):
        StableDiffusion(path="random:tiny_mv").prepare()
    with pytest.raises(UserError, match=r"denoises 1 views .* MultiViewDiffusion 4; use it with guidance/prior=sd21"):
        MultiViewDiffusion(path=str(base)).prepare()
    with pytest.raises(UserError, match=r"'nobody/has' is not on this machine.*sd-v2.1-base-4view.pt.*random:tiny_mv"):
        _ = MultiViewDiffusion(path="nobody/has").text_dim
    (four / "unet" / "config.json").write_text(
        (four / "unet" / "config.json").read_text().replace('"projection"', '"timestep"')
    )
    with pytest.raises(UserError, match=r"4 views but does not take their cameras' 16 numbers"):
        MultiViewDiffusion(path=str(four), base_path=str(base)).prepare()
