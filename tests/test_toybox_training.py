"""Training of the bundled priors: captions, tokens, pictures, and a loop that goes on where it stopped."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextModel

from scaledreamer.priors.clip_text import token_ids
from scaledreamer.priors.multiview import MultiViewDiffusion
from scaledreamer.toybox import weights
from scaledreamer.toybox.training import multiview, text, vae
from scaledreamer.toybox.training.latents import BACKGROUNDS, Latents
from scaledreamer.toybox.training.loop import Plan, fit
from scaledreamer.toybox.training.pictures import Pictures, ring_cameras
from scaledreamer.toybox.training.words import (
    LENGTH,
    PLAIN,
    captions,
    read_tokenizer,
    token_table,
    view_words,
    write_tokenizer,
)
from scaledreamer.toybox.vocabulary import every_toy


def pictures_of(rgba: torch.Tensor) -> Pictures:
    zeros = torch.zeros(len(rgba))
    cameras = ring_cameras(-(-len(rgba) // 4) * 4, 4, torch.Generator().manual_seed(0))
    return Pictures(rgba=rgba, toy=zeros.long(), azimuth=zeros, elevation=zeros, c2w=cameras.c2w[: len(rgba)])


def test_tuning_the_decoder_leaves_the_encoder(tmp_path):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(**vae.CONFIG, scaling_factor=0.7).half().save_pretrained(tmp_path / "vae")
    before = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    rgba = torch.randint(256, (4, 4, 64, 64), dtype=torch.uint8)
    some = pictures_of(rgba)
    assert vae.tune_decoder(some, tmp_path, Plan(steps=2, lr=1e-3, warmup=0, average=0.5), batch=2, compiled=False)
    after = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    changed = {name.partition(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {"decoder", "post_quant_conv"}
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    assert config["scaling_factor"] == 0.7
    assert str(tmp_path) not in str(config)


def test_view_words_follow_the_camera():
    azimuth = torch.tensor([0.0, 44, 46, -90, 136, 180, 0, 350, -170])
    elevation = torch.tensor([0.0, 10, 0, 0, 0, 0, 61, 0, 60])
    assert view_words(azimuth, elevation).tolist() == [2, 2, 1, 1, 3, 3, 4, 2, 3]


def test_every_word_is_one_token_and_every_caption_fits(tmp_path):
    texts = [text for row in captions(every_toy()) for text in row]
    write_tokenizer(tmp_path, texts)
    tokenizer = read_tokenizer(tmp_path)
    for caption in texts[::97]:
        assert len(tokenizer.tokenize(caption)) == len(caption.replace(",", " ,").split()), caption
    rows = token_ids(tokenizer, texts[:200], LENGTH)
    assert max(row.index(tokenizer.eos_token_id) for row in rows) < LENGTH - 1
    assert tokenizer.unk_token_id not in tokenizer("a zebra!", add_special_tokens=False)["input_ids"]  # by letters


def test_pictures_are_put_on_a_colour():
    rgba = torch.zeros(2, 4, 64, 64, dtype=torch.uint8)
    rgba[0, 0], rgba[0, 3] = 255, 255  # a red picture
    some = pictures_of(rgba)
    red, plain = some.batch(torch.tensor([0, 1]), torch.Generator().manual_seed(0))
    assert red.flatten(1).mean(dim=1).tolist() == [1.0, -1.0, -1.0]
    assert plain.flatten(1).std(dim=1).tolist() == [0.0, 0.0, 0.0]
    assert -1 <= float(plain.min()) <= float(plain.max()) <= 1


def test_pictures_of_a_toy_can_share_their_colour():
    some = pictures_of(torch.zeros(4, 4, 64, 64, dtype=torch.uint8))
    shared = some.batch(torch.arange(4), torch.Generator().manual_seed(0), together=2)[:, :, 0, 0]
    assert torch.equal(shared[0], shared[1])
    assert torch.equal(shared[2], shared[3])
    assert not torch.equal(shared[1], shared[2])


def test_rings_go_around_a_toy_in_equal_steps():
    cameras = ring_cameras(8, 4, torch.Generator().manual_seed(0))
    steps = (cameras.azimuth.view(2, 4).diff(dim=1) + 360) % 360
    torch.testing.assert_close(steps, torch.full((2, 3), 90.0))
    for same in (cameras.elevation, cameras.distance):
        assert (same.view(2, 4) == same.view(2, 4)[:, :1]).all()
    assert cameras.elevation[0] != cameras.elevation[4]
    assert float(cameras.elevation.max()) < 60


def test_noise_and_velocity_give_the_latents_back(tmp_path):
    """x_0 = sqrt(abar) x_t - sqrt(1 - abar) v, with a VAE of almost no deviation."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(**vae.CONFIG, scaling_factor=0.7).save_pretrained(tmp_path / "vae")
    some = pictures_of(torch.randint(256, (2, 4, 64, 64), dtype=torch.uint8))
    latents = Latents(some, tmp_path, seed=0)
    assert len(latents) == BACKGROUNDS * 2
    index, t = torch.tensor([0, 1, 0, 1]), torch.tensor([10, 500, 900, 999])
    noisy = latents.noisy(index, t, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    z = latents._mean[index] + latents._std[index] * torch.randn(4, 4, 16, 16, generator=generator)
    a = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod[t]
    a = a.view(-1, 1, 1, 1)
    torch.testing.assert_close(a.sqrt() * noisy.latents - (1 - a).sqrt() * noisy.velocity, z)


def test_the_multi_view_denoiser_trains_and_is_saved(tmp_path):
    some = pictures_of(torch.randint(256, (8, 4, 64, 64), dtype=torch.uint8))
    plan = Plan(steps=2, lr=1e-3, warmup=0, average=0.5)
    base = weights.FOLDER / "toy"
    assert multiview.train_multiview(some, base, tmp_path, plan, batch=2, compiled=False)
    prior = MultiViewDiffusion(path=str(tmp_path), base_path=str(base))
    prior.prepare()
    prior.setup(torch.device("cpu"))
    inputs = torch.randn(4, *prior.latent_shape), torch.full((4,), 500), torch.randn(4, LENGTH, prior.text_dim)
    assert prior.predict_noise(*inputs, some.c2w[:4]).isfinite().all()


def test_learning_rate_warms_up_and_falls():
    plan = Plan(steps=1000, lr=1.0, warmup=100)
    assert plan.lr_at(0) == pytest.approx(0.01)
    assert plan.lr_at(99) == pytest.approx(1.0)
    assert plan.lr_at(550) == pytest.approx(0.01 + 0.99 / 2)
    assert plan.lr_at(1000) == pytest.approx(0.01)


def test_a_stopped_training_goes_on(tmp_path):
    def train(folder, plan):
        torch.manual_seed(0)
        model = nn.Linear(4, 1)

        def loss(generator):
            x = torch.randn(32, 4, generator=generator)
            return {"mse": (model(x)[:, 0] - x.sum(dim=1)).square().mean()}

        return fit(model, loss, plan, state=folder), model.weight.detach().clone()

    plan = Plan(steps=300, lr=0.05, warmup=10, average=0.9)
    done, whole = train(tmp_path / "whole", plan)
    assert done
    torch.testing.assert_close(whole, torch.ones(1, 4), atol=0.02, rtol=0)
    stopped, early = train(tmp_path / "parts", replace(plan, minutes=0.0))  # after one step
    assert not stopped
    assert float((early - whole).abs().max()) > 0.1
    done, rest = train(tmp_path / "parts", plan)
    assert done
    torch.testing.assert_close(rest, whole, atol=0.01, rtol=0)  # moments are kept in bfloat16
    assert not (tmp_path / "parts").exists()  # a training that begins later must not go on from there


def test_sums_of_words():
    """Two words of one role and a second role: the part that belongs to the pair alone is left out."""
    words = torch.tensor([[1.0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]])
    vectors = torch.tensor([[2.0, 0], [-2, 0], [0, 1], [0, -1]])
    pair = torch.tensor([[0.5, 0.5], [-0.5, -0.5], [-0.5, -0.5], [0.5, 0.5]])
    pooled = 3 + words @ vectors + pair
    sums = text.additive(pooled, words)
    torch.testing.assert_close(sums, 3 + words @ vectors)
    assert text.share_of(pooled, sums) == pytest.approx(1 - 2 / (16 + 4 + 2))


def test_tuning_the_text_encoder_makes_its_pooled_embedding_a_sum(tmp_path, monkeypatch):
    some = every_toy()[::20]
    monkeypatch.setattr(text, "every_toy", lambda: some)
    toy = weights.FOLDER / "toy"
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(toy / part, tmp_path / part)
    kept = load_file(tmp_path / "text_encoder" / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    disturbed = {n: t + 0.02 * torch.randn(t.shape, generator=generator).half() for n, t in kept.items()}
    save_file(disturbed, tmp_path / "text_encoder" / "model.safetensors", metadata={"format": "pt"})

    def explained() -> float:
        encoder = CLIPTextModel.from_pretrained(tmp_path / "text_encoder", dtype=torch.float32)
        pooled = text._pooled(encoder, token_table(read_tokenizer(tmp_path / "tokenizer"), some)[:, PLAIN])
        return text.share_of(pooled, text.additive(pooled, torch.stack([text.word_counts(toy, PLAIN) for toy in some])))

    before = explained()
    text.tune_text(tmp_path, Plan(steps=20, lr=3e-4, warmup=2, average=0.5), device=torch.device("cpu"), batch=32)
    assert explained() > before
