import json
import logging
import random
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scaledreamer.errors import UserError
from scaledreamer.priors import clip_text, locate
from scaledreamer.priors.layout import Configs
from scaledreamer.priors.parametrisation import alphas_cumprod, as_noise
from scaledreamer.priors.random_weights import write_random_prior
from scaledreamer.priors.sizes import TINY
from scaledreamer.priors.stable_diffusion import StableDiffusion
from scaledreamer.priors.weights import Weights

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny() -> StableDiffusion:
    prior = StableDiffusion(path="random:tiny")
    prior.setup(CPU)
    return prior


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("priors") / "tiny"
    write_random_prior(folder, "tiny")
    return folder


@pytest.fixture
def folder(written, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# -- the maths -----------------------------------------------------------------------------------------------------


def test_v_and_sample_predictions_are_converted_to_the_noise():
    torch.manual_seed(0)
    x0, eps, abar = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.tensor([0.9, 0.36, 0.0])
    a, b = abar.sqrt().view(3, 1, 1, 1), (1 - abar).sqrt().view(3, 1, 1, 1)
    noisy, v = a * x0 + b * eps, a * eps - b * x0
    torch.testing.assert_close(as_noise(v, noisy, abar, "v_prediction"), eps)
    torch.testing.assert_close(as_noise(x0, noisy, abar, "sample"), eps)
    assert as_noise(eps, noisy, abar, "epsilon") is eps
    # By hand at abar 0.36: eps = 0.6 v + 0.8 x_t.
    one = torch.ones(1, 1, 1, 1)
    assert as_noise(2 * one, 3 * one, torch.tensor([0.36]), "v_prediction").item() == pytest.approx(3.6)


def test_predict_noise_uses_the_prediction_type_of_the_scheduler(folder):
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    prior = StableDiffusion(path=str(folder))
    prior.setup(CPU)
    torch.manual_seed(0)
    x, t, tokens = torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), torch.randn(2, 77, 32)
    with torch.no_grad():
        v = prior._unet(x, t, encoder_hidden_states=tokens).sample
    abar = prior.alphas_cumprod[t].view(-1, 1, 1, 1)
    torch.testing.assert_close(prior.predict_noise(x, t, tokens), abar.sqrt() * v + (1 - abar).sqrt() * x)


def test_alphas_of_the_scaled_linear_schedule(tiny):
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(tiny.alphas_cumprod.double(), (1 - beta).cumprod(0), rtol=1e-4, atol=1e-6)
    assert tiny.alphas_cumprod.dtype == torch.float32
    zero_snr = Configs(**{**vars(TINY), "scheduler": TINY.scheduler | {"rescale_betas_zero_snr": True}})
    assert alphas_cumprod(zero_snr)[-1] < 1e-6


def test_latents_are_a_draw_of_the_posterior_and_differentiable(tiny):
    torch.manual_seed(0)
    images, noise = torch.rand(2, 3, 64, 64, requires_grad=True), torch.randn(2, 4, 8, 8)
    latents = tiny.encode_images(images, noise)
    assert latents.shape == (2, *tiny.latent_shape)
    moments = tiny._vae.quant_conv(tiny._vae.encoder(images))
    mean, log_variance = moments.chunk(2, dim=1)
    torch.testing.assert_close(latents, 0.18215 * (mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise))
    (gradient,) = torch.autograd.grad(latents[0].sum(), images)
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0  # each image's latents are its own


def test_a_batch_equals_its_samples(tiny):
    torch.manual_seed(0)
    x, t, tokens = torch.randn(3, 4, 8, 8), torch.tensor([1, 500, 999]), torch.randn(3, 77, 32)
    images = torch.rand(3, 3, 64, 64)
    together = tiny.predict_noise(x, t, tokens), tiny.encode_images(images, x)
    for i in range(3):
        s = slice(i, i + 1)
        torch.testing.assert_close(together[0][s], tiny.predict_noise(x[s], t[s], tokens[s]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together[1][s], tiny.encode_images(images[s], x[s]), rtol=1e-4, atol=1e-5)
    assert not together[0].requires_grad


def test_weights_are_frozen_and_the_decoder_is_gone(tiny):
    assert not any(p.requires_grad for model in (tiny._unet, tiny._vae) for p in model.parameters())
    assert not tiny._unet.training
    assert not any(name.startswith(("decoder", "post_quant")) for name, _ in tiny._vae.named_parameters())


def test_autocast_of_the_trainer_does_not_reach_the_prior(tiny):
    x, t, tokens = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 32)
    images = torch.rand(1, 3, 64, 64)
    expected = tiny.predict_noise(x, t, tokens), tiny.encode_images(images, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = tiny.predict_noise(x, t, tokens), tiny.encode_images(images, x)
    assert torch.equal(expected[0], got[0])
    assert torch.equal(expected[1], got[1])


@pytest.mark.parametrize(
    ("option", "given", "expected"),
    [
        ("auto", None, torch.float32),
        ("auto", torch.bfloat16, torch.bfloat16),
        ("bfloat16", torch.float32, torch.bfloat16),
    ],
)
def test_dtype_is_the_option_then_what_setup_is_given_then_the_device_s(option, given, expected):
    prior = StableDiffusion(path="random:tiny", dtype=option)
    prior.setup(CPU, given)
    assert {p.dtype for p in prior._unet.parameters()} == {expected}
    assert (
        prior.predict_noise(torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 77, 32)).dtype == torch.float32
    )
    assert prior.encode_images(torch.rand(1, 3, 64, 64), torch.randn(1, 4, 8, 8)).dtype == torch.float32
    assert prior.encode_text(["a"]).tokens.dtype == expected


def test_latents_and_noise_equal_the_reference_s(goldens):
    golden = goldens("asd_sd_loss")
    config, case = golden.meta["config"], golden.case("noperp_b2")

    class Given(Weights):
        configs = Configs(config["unet"], config["vae"], {"hidden_size": 12}, config["scheduler"])

        def unet(self, device):
            from diffusers import UNet2DConditionModel

            model = UNet2DConditionModel(**config["unet"])
            model.load_state_dict(golden.case("state.unet"))
            return model

        def vae(self, device):
            from diffusers import AutoencoderKL

            model = AutoencoderKL(**config["vae"])
            model.load_state_dict(golden.case("state.vae"), strict=False)
            return model

        text_encoder = tokenizer = None  # type: ignore[assignment]

    prior = StableDiffusion(path="unused")
    prior.__dict__["weights"] = Given()
    prior.setup(CPU)
    assert (prior.image_size, prior.latent_shape) == (512, (4, 64, 64))
    torch.testing.assert_close(prior.alphas_cumprod, golden.tensors["out.alphas_cumprod"])
    rgb = case["in.rgb"].permute(0, 3, 1, 2)
    images = torch.nn.functional.interpolate(rgb, (512, 512), mode="bilinear", align_corners=False) * 2 - 1
    latents = prior.encode_images(images, case["in.vae_posterior_noise"])
    torch.testing.assert_close(latents, case["out.latents"], rtol=1e-3, atol=1e-4)
    later: Tensor = case["out.t_plus"]
    abar = prior.alphas_cumprod[later].view(-1, 1, 1, 1)
    noisy = abar.sqrt() * case["out.latents"] + (1 - abar).sqrt() * case["in.noise"]
    predicted = prior.predict_noise(noisy, later, case["out.text_embeddings_fed"][-2:])
    torch.testing.assert_close(predicted, case["out.noise_pred_second"], rtol=1e-3, atol=1e-4)


# -- text ----------------------------------------------------------------------------------------------------------


def test_text_is_encoded_as_diffusers_does(tiny, written):
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(str(written / "tokenizer"))
    encoder = CLIPTextModel.from_pretrained(str(written / "text_encoder"))
    prompts = ["a corgi", "a squirrel riding a motorcycle", "", "x " * 200]
    ids = tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = encoder(ids)
    got = tiny.encode_text(prompts)
    torch.testing.assert_close(got.tokens, expected.last_hidden_state)
    torch.testing.assert_close(got.pooled, expected.pooler_output)
    # The pooled embedding is the one at the end token, which a cut text keeps as its last.
    torch.testing.assert_close(got.pooled[3], got.tokens[3, -1])
    assert ids[3, -1] == tokenizer.eos_token_id


def test_a_text_s_embedding_does_not_depend_on_its_batch(tiny, monkeypatch):
    prompts = ["a cat", "a dog", "a very long story about a bird"]
    together = tiny.encode_text(prompts)
    monkeypatch.setattr("scaledreamer.priors.clip_text.BATCH", 1)
    alone = tiny.encode_text(prompts)
    torch.testing.assert_close(together.tokens, alone.tokens, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(together.pooled, alone.pooled, rtol=1e-6, atol=1e-6)
    assert (together.pooled[0] - together.pooled[1]).abs().max() > 1e-3
    assert tiny.encode_text([]).tokens.shape == (0, 77, 32)


def test_cut_texts_are_counted_in_one_warning(caplog):
    prior = StableDiffusion(path="random:tiny")
    long = ["one " * 80, "two " * 80]
    with caplog.at_level(logging.WARNING):
        prior.encode_text(["a cat", *long, "word " * 10])
        prior.encode_text(long)  # told already
    (record,) = caplog.records
    assert record.getMessage().startswith("2 of 4 texts are longer than 77 tokens")
    assert "one one one" in record.getMessage()
    assert prior.report_cut(["a cat", *long]) == long
    # 75 tokens between start and end fit, 76 do not.
    assert prior.report_cut(["! " * 75, "!" * 75]) == []
    assert prior.report_cut(["! " * 76, "!" * 76]) == ["! " * 76, "!" * 76]


def test_words_have_the_tokens_of_whole_texts(monkeypatch):
    """Also where texts are odd; and in parts."""
    tokenizer = StableDiffusion(path="random:tiny")._get_tokenizer()
    draw, letters = random.Random(0), "abc de'fg, .!- é 日本 \u00a0 \u0301 🚀 Σς 12 <|endoftext|>"
    texts = ["".join(draw.choices(letters, k=draw.randint(5, 60))) for _ in range(300)]
    rows = tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
    monkeypatch.setattr(clip_text, "COUNTED", 7)
    for length in (10, 20, 30):
        cut = [text for text, row in zip(texts, rows, strict=True) if len(row) > length]
        assert clip_text.too_long(tokenizer, texts, length) == cut
        assert 0 < len(cut) < len(texts)


def test_text_encoder_is_loaded_on_demand_and_freed(tiny):
    tiny.release_text_encoder()
    assert tiny._text is None
    before = tiny.encode_text(["a cat"]).pooled
    assert tiny._text is not None
    tiny.release_text_encoder()
    assert torch.equal(tiny.encode_text(["a cat"]).pooled, before)


# -- folders -------------------------------------------------------------------------------------------------------


def test_a_folder_gives_the_same_numbers_as_the_weights_it_was_written_from(tiny, written):
    prior = StableDiffusion(path=str(written))
    prior.prepare()
    prior.setup(CPU)
    assert (prior.image_size, prior.latent_shape, prior.text_dim, prior.text_length) == (64, (4, 8, 8), 32, 77)
    x, t, tokens = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 32)
    torch.testing.assert_close(prior.predict_noise(x, t, tokens), tiny.predict_noise(x, t, tokens))
    torch.testing.assert_close(prior.encode_text(["a cat"]).tokens, tiny.encode_text(["a cat"]).tokens)


def test_constructor_reads_nothing():
    prior = StableDiffusion(path="nobody/has-this")
    with pytest.raises(UserError, match="not on this machine"):
        _ = prior.text_dim


def test_fp16_files_are_used_where_there_are_no_others(folder, tiny):
    for part, stem in {"unet": "diffusion_pytorch_model", "text_encoder": "model"}.items():
        (folder / part / f"{stem}.safetensors").rename(folder / part / f"{stem}.fp16.safetensors")
    prior = StableDiffusion(path=str(folder))
    prior.prepare()
    prior.setup(CPU)
    torch.testing.assert_close(prior.encode_text(["a cat"]).tokens, tiny.encode_text(["a cat"]).tokens)


def test_image_size_is_chosen_and_checked(written):
    prior = StableDiffusion(path=str(written), image_size=96)
    assert (prior.image_size, prior.latent_shape) == (96, (4, 12, 12))
    with pytest.raises(UserError, match="image_size=90 is not a multiple of 8"):
        _ = StableDiffusion(path=str(written), image_size=90).image_size


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "unet/config.json").unlink(), r"unet/config.json is missing"),
        (lambda f: (f / "vae/config.json").write_text("{"), r"vae/config.json cannot be read"),
        (lambda f: shutil.rmtree(f / "vae"), r"vae/config.json is missing"),
        (lambda f: (f / "tokenizer/vocab.json").unlink(), r"tokenizer/vocab.json is missing"),
        (lambda f: truncate(f / "unet/diffusion_pytorch_model.safetensors"), r"safetensors has \d+ bytes, its header"),
        (lambda f: (f / "text_encoder/model.safetensors").write_bytes(b""), r"model.safetensors is cut short"),
        (lambda f: (f / "text_encoder/model.safetensors").write_bytes(b"\7" * 3000), r"not a safetensors file"),
        (lambda f: (f / "vae/diffusion_pytorch_model.safetensors").unlink(), r"not the weights of its vae"),
        (lambda f: (f / "text_encoder_2").mkdir(), r"not a Stable Diffusion 1.x or 2.x .*SDXL"),
        (lambda f: edit(f / "unet/config.json", in_channels=9), r"takes 9 channels where the VAE makes 4"),
        (lambda f: edit(f / "unet/config.json", addition_embed_type="text_time"), r"wants more than text"),
        (lambda f: edit(f / "unet/config.json", cross_attention_dim=768), r"wants text 768 wide.* is 32"),
        (lambda f: edit(f / "scheduler/scheduler_config.json", prediction_type="flow"), r"prediction_type is 'flow'"),
    ],
)
def test_a_broken_folder_is_refused_in_one_line_that_names_the_file(folder, harm, message):
    harm(folder)
    with pytest.raises(UserError, match=message) as caught:
        StableDiffusion(path=str(folder)).prepare()
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_the_configuration_are_refused(folder):
    edit(folder / "unet" / "config.json", block_out_channels=[32, 128])
    with pytest.raises(UserError, match=r"unet.*(do not fit|does not fit|cannot be loaded)"):
        StableDiffusion(path=str(folder)).setup(CPU)


def test_fingerprint_is_that_of_the_text_encoder_and_tokenizer(folder, written):
    def now() -> str:
        return StableDiffusion(path=str(folder)).fingerprint

    first = now()
    assert first == StableDiffusion(path=str(written)).fingerprint  # wherever it lies
    edit(folder / "unet" / "config.json", sample_size=16)
    assert now() == first
    path = folder / "text_encoder" / "model.safetensors"
    weights = bytearray(path.read_bytes())
    weights[-1] ^= 1
    path.write_bytes(weights)
    second = now()
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    assert len({first, second, now()}) == 3


# -- where a path leads --------------------------------------------------------------------------------------------


def test_missing_weights_name_every_way_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path))
    for path in ("sd21", "/no/such/folder"):
        with pytest.raises(UserError) as caught:
            StableDiffusion(path=path).prepare()
        for way in ("local folder", "hub name", "python -m scaledreamer.fetch sd21", "random:tiny"):
            assert way in str(caught.value)
    (tmp_path / "model.ckpt").write_text("")
    with pytest.raises(UserError, match="single file"):
        StableDiffusion(path=str(tmp_path / "model.ckpt")).prepare()
    with pytest.raises(UserError, match="no such architecture; there are random:tiny"):
        StableDiffusion(path="random:huge").prepare()


def test_a_fetched_name_is_found_in_the_data_folder(monkeypatch, written, tmp_path):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path))
    shutil.copytree(written, tmp_path / "priors" / "sd15")
    prior = StableDiffusion(path="sd15")
    prior.prepare()
    assert prior.text_dim == 32


def test_a_hub_name_is_downloaded_once_and_then_found_offline(monkeypatch, written, tmp_path):
    cache, calls = tmp_path / "cache", []

    def snapshot_download(name, *, local_dir=None, allow_patterns=None, local_files_only=False):
        calls.append((name, local_files_only))
        if local_files_only and not cache.exists():
            raise FileNotFoundError("not cached")
        if not local_files_only:
            shutil.copytree(written, cache, dirs_exist_ok=True)
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    prior = StableDiffusion(path="someone/model")
    with pytest.raises(UserError, match="'someone/model' is not on this machine"):
        _ = prior.latent_shape
    prior.prepare()
    assert prior.latent_shape == (4, 8, 8)
    assert calls.count(("someone/model", False)) == 1
    StableDiffusion(path="someone/model").prepare()
    assert calls.count(("someone/model", False)) == 1
    truncate(cache / "vae" / "diffusion_pytorch_model.safetensors")  # a broken cache is downloaded again
    StableDiffusion(path="someone/model").prepare()
    assert calls.count(("someone/model", False)) == 2


def test_a_download_that_fails_says_why_and_what_else_there_is(monkeypatch):
    def snapshot_download(name, **options):
        raise ConnectionError("no route to the hub\nmore\nlines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(UserError, match=r"cannot download someone/model \(no route to the hub\).*local folder"):
        locate.prepare("someone/model")
