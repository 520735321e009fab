"""The bundled priors: what they say of true pictures, through the classes that load any other weights."""

import subprocess
import sys

import pytest
import torch

from scaledreamer.cameras import RandomCameras
from scaledreamer.priors.stable_diffusion import StableDiffusion
from scaledreamer.toybox import weights
from scaledreamer.toybox.judge import Judge
from scaledreamer.toybox.report import true_views
from scaledreamer.toybox.splits import small


@pytest.fixture(scope="module")
def prior() -> StableDiffusion:
    loaded = StableDiffusion(path="toy")
    loaded.prepare()
    loaded.setup(torch.device("cpu"))
    return loaded


@pytest.fixture(scope="module")
def pictures() -> tuple[list[str], torch.Tensor]:
    """Eight prompts and their toys from the front [8, 64, 64, 3]."""
    prompts = list(small().train[:8])
    camera = RandomCameras(test_distance=3.0, test_fovy=40.0).orbit(1)
    return prompts, true_views(prompts, camera, 64, supersample=2).rgb[:, 0]


def test_all_weights_are_small_and_safe():
    files = [f for f in weights.FOLDER.rglob("*") if f.is_file() and f.suffix not in (".py", ".pyc")]
    assert sum(f.stat().st_size for f in files) < 40e6
    assert {f.suffix for f in files} <= {".safetensors", ".json", ".txt", ".md"}
    assert not any("_name_or_path" in f.read_text("utf-8") for f in files if f.suffix == ".json")


def test_the_judge_names_true_toys(pictures):
    prompts, images = pictures
    gallery = [*small().train, *small().test]
    judge = Judge()
    named = (judge.see(images) @ judge.read(gallery).t()).argmax(dim=1)
    assert [gallery[i] for i in named] == prompts


def test_the_prior_denoises_better_with_the_right_words(prior, pictures):
    """Velocity error at a middle noise level: right prompt < wrong prompt, by a margin."""
    prompts, images = pictures
    generator = torch.Generator().manual_seed(0)
    latents = prior.encode_images(images.permute(0, 3, 1, 2) * 2 - 1, torch.zeros(8, *prior.latent_shape))
    noise = torch.randn(latents.shape, generator=generator)
    t = torch.full((8,), 600)
    a = prior.alphas_cumprod[t].view(-1, 1, 1, 1)
    noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
    tokens = prior.encode_text(prompts).tokens
    right = (prior.predict_noise(noisy, t, tokens) - noise).square().mean()
    wrong = (prior.predict_noise(noisy, t, tokens.roll(3, dims=0)) - noise).square().mean()
    assert right < 0.8 * wrong


def test_nothing_of_the_toybox_loads_with_stable_diffusion():
    code = (
        "import sys; from scaledreamer.config import compose, check; "
        "check(compose(['generator=3dconv', 'guidance=asd_sd', 'corpus=AT2520'])); "
        "import scaledreamer.training.build; "
        "sys.exit(any('toybox' in name for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
