"""Training of the bundled priors: captions, tokens, pictures, and a loop that goes on where it stopped."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from scaledreamer.priors.clip_text import token_ids
from scaledreamer.toybox.training import vae
from scaledreamer.toybox.training.loop import Plan, fit
from scaledreamer.toybox.training.pictures import Pictures
from scaledreamer.toybox.training.words import LENGTH, captions, read_tokenizer, view_words, write_tokenizer
from scaledreamer.toybox.vocabulary import every_toy


def test_tuning_the_decoder_leaves_the_encoder(tmp_path):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(**vae.CONFIG, scaling_factor=0.7).half().save_pretrained(tmp_path / "vae")
    before = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    rgba = torch.randint(256, (4, 4, 64, 64), dtype=torch.uint8)
    some = Pictures(rgba=rgba, toy=torch.zeros(4), azimuth=torch.zeros(4), elevation=torch.zeros(4))
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
    for text in texts[::97]:
        assert len(tokenizer.tokenize(text)) == len(text.replace(",", " ,").split()), text
    rows = token_ids(tokenizer, texts[:200], LENGTH)
    assert max(row.index(tokenizer.eos_token_id) for row in rows) < LENGTH - 1
    assert tokenizer.unk_token_id not in tokenizer("a zebra!", add_special_tokens=False)["input_ids"]  # by letters


def test_pictures_are_put_on_a_colour():
    rgba = torch.zeros(2, 4, 64, 64, dtype=torch.uint8)
    rgba[0, 0], rgba[0, 3] = 255, 255  # a red picture
    some = Pictures(rgba=rgba, toy=torch.zeros(2), azimuth=torch.zeros(2), elevation=torch.zeros(2))
    red, plain = some.batch(torch.tensor([0, 1]), torch.Generator().manual_seed(0))
    assert red.flatten(1).mean(dim=1).tolist() == [1.0, -1.0, -1.0]
    assert plain.flatten(1).std(dim=1).tolist() == [0.0, 0.0, 0.0]
    assert -1 <= float(plain.min()) <= float(plain.max()) <= 1


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
