import time

import pytest
import torch

from scaledreamer.errors import UserError
from scaledreamer.priors.multiview import MultiViewDiffusion
from scaledreamer.priors.random_weights import RandomWeights, write_random_prior
from scaledreamer.priors.sizes import MVDREAM, SD21, VOCABULARY
from scaledreamer.priors.stable_diffusion import StableDiffusion

CPU = torch.device("cpu")


def test_sd21_has_the_sizes_of_stable_diffusion_2_1_base():
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD21.unet)
        vae = AutoencoderKL(**SD21.vae)
        text = CLIPTextModel(CLIPTextConfig(**SD21.text_encoder))
    counts = [sum(p.numel() for p in model.parameters()) for model in (unet, vae, text)]
    assert counts == [865_910_724, 83_653_863, 340_387_840]  # those of the published files
    prior = StableDiffusion(path="random:sd21")
    assert (prior.image_size, prior.latent_shape, prior.text_dim, prior.text_length) == (512, (4, 64, 64), 1024, 77)


def test_mvdream_has_the_sizes_of_the_published_one():
    from scaledreamer.priors.multiview_unet import MultiViewUNet

    with torch.device("meta"):
        unet = MultiViewUNet.from_config(MVDREAM.unet)
    camera = 16 * 1280 + 1280 + 1280 * 1280 + 1280
    assert sum(p.numel() for p in unet.parameters()) == 865_910_724 + camera
    prior = MultiViewDiffusion(path="random:mvdream")
    assert (prior.views, prior.image_size, prior.latent_shape) == (4, 256, (4, 32, 32))
    assert (prior.text_dim, prior.text_length) == (1024, 77)


def test_same_seed_same_weights_and_the_global_generator_is_left_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second, other = (RandomWeights("tiny", seed).unet(CPU).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
    assert RandomWeights("tiny", 0).fingerprint != RandomWeights("tiny", 1).fingerprint
    with pytest.raises(UserError, match="random:tiny, random:sd15, random:sd21"):
        RandomWeights("sd3")


def test_diffusers_loads_a_written_prior(tmp_path):
    from diffusers import StableDiffusionPipeline

    write_random_prior(tmp_path, "tiny")
    pipeline = StableDiffusionPipeline.from_pretrained(str(tmp_path))
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline("a corgi", num_inference_steps=1, output_type="np").images
    assert images.shape == (1, 64, 64, 3)


@pytest.mark.parametrize("architecture", ["tiny", "sd21"])
def test_tokenizer_joins_letters_in_pairs_and_knows_every_byte(architecture):
    weights = RandomWeights(architecture)
    tokenizer = weights.tokenizer()
    size = weights.configs.text_encoder["vocab_size"]
    ids = tokenizer("A corgi")["input_ids"]
    words = ["<|startoftext|>", "a</w>", "co", "r", "gi</w>", "<|endoftext|>"]
    assert tokenizer.convert_ids_to_tokens(ids) == words or tokenizer.decode(ids[1:-1]).strip() == "a corgi"
    assert (ids[0], ids[-1]) == (size - 2, size - 1)
    assert tokenizer.eos_token_id == size - 1
    for text in ("é日本語 🙂", "\x00\x7f", "1,2; 'x'"):
        inner = tokenizer(text)["input_ids"][1:-1]
        assert size - 1 not in inner  # which also stands for what is unknown
    assert max(tokenizer("zz zz")["input_ids"][1:-1]) < VOCABULARY - 2


@pytest.mark.usefixtures("one_thread")
def test_tiny_is_quick_enough_for_tests():
    prior = StableDiffusion(path="random:tiny")
    prior.setup(CPU)
    images, noise = torch.rand(1, 3, 64, 64, requires_grad=True), torch.randn(1, 4, 8, 8)
    x, t, tokens = torch.randn(5, 4, 8, 8), torch.full((5,), 500), torch.randn(5, 77, 32)

    def step() -> float:
        start = time.perf_counter()
        prior.encode_images(images, noise).sum().backward()
        prior.predict_noise(x, t, tokens)
        return time.perf_counter() - start

    assert sum(p.numel() for p in prior._unet.parameters()) < 1_000_000
    fastest = min(step() for _ in range(5))
    assert fastest < 0.2  # about 20 ms where nothing else runs
