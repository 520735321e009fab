"""Small stand-ins that several tests share."""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from scaledreamer.priors.base import TextEncoding


class Angles(SimpleNamespace):
    """Cameras of which only the angles matter."""

    def __len__(self) -> int:
        return len(self.azimuth)


class FakePrior:
    """A prior whose noise estimate is any function of (latents, timesteps, tokens)."""

    views, image_size, latent_shape, text_dim, text_length, num_timesteps = 1, 8, (4, 4, 4), 1, 1, 1000
    negative_prompt, fingerprint = "", "fake"

    def __init__(self, predict: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        self.predict = predict
        self.alphas_cumprod = torch.linspace(0.999, 0.001, 1000)
        self.calls: list[int] = []

    def prepare(self) -> None: ...

    def setup(self, device, dtype=None) -> None: ...

    def release_text_encoder(self) -> None: ...

    def report_cut(self, prompts) -> list[str]:
        return []

    def encode_text(self, prompts, device=None) -> TextEncoding:
        numbers = torch.tensor([float(len(p)) for p in prompts])
        return TextEncoding(pooled=numbers[:, None], tokens=numbers[:, None, None])

    def encode_images(self, images: Tensor, noise: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(images, 2).mean(dim=1, keepdim=True).expand(-1, 4, -1, -1) + 0 * noise

    def predict_noise(self, latents, timesteps, tokens, c2w=None) -> Tensor:
        self.calls.append(latents.shape[0])
        return self.predict(latents, timesteps, tokens)


def mixing(latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
    """A noise estimate that depends on everything it is given, element by element."""
    t = timesteps.view(-1, 1, 1, 1) / 1000
    word = tokens.flatten(1).mean(dim=1).view(-1, 1, 1, 1)
    grid = torch.linspace(-1, 1, latents[0].numel()).view_as(latents[0])
    return torch.sin(latents * (1 + t)) + torch.cos(word * grid + t)
