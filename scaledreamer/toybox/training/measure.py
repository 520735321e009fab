"""What the bundled denoisers draw, measured: ``python -m scaledreamer.toybox.training.measure toy``, or ``... toy_mv``.

These are the figures of their model cards. Pictures are drawn by DDIM (Song et al. 2021, equation 12, eta = 0) with
classifier-free guidance, and read by the judge, who never saw a picture of theirs.

Axes: N pictures, O toys, V views of each, H W pixels, L tokens, D text width, F features of the judge.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from scaledreamer.priors.multiview import MultiViewDiffusion
from scaledreamer.priors.stable_diffusion import StableDiffusion
from scaledreamer.toybox import weights
from scaledreamer.toybox.judge import Judge
from scaledreamer.toybox.scene import Scene
from scaledreamer.toybox.scores import iou
from scaledreamer.toybox.training.pictures import SIZE, ring_cameras
from scaledreamer.toybox.training.words import VIEW_WORDS
from scaledreamer.toybox.truth_renderer import render
from scaledreamer.toybox.vocabulary import KINDS, Toy, every_toy

SCALES = (1.0, 3.0, 7.5)
TOYS = 64
SEED = 77
STEPS = 30
SEEN_AS_TOY = 0.15
"""A pixel belongs to a drawn toy if a colour channel is this far from the corners'; the backgrounds are plain."""


class Sampler:
    """Draws pictures with a bundled prior.

    Args:
        prior: opened here, on the CPU.
        vae: folder whose decoder makes pictures of latents.
    """

    def __init__(self, prior: StableDiffusion, vae: Path) -> None:
        from diffusers import AutoencoderKL

        prior.prepare()
        prior.setup(torch.device("cpu"))
        self.prior = prior
        self.vae = AutoencoderKL.from_pretrained(str(vae)).float().eval()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], *, scale: float, seed: int, c2w: Tensor | None = None) -> Tensor:
        """Pictures [N, H, W, 3] in [0, 1] of N texts; of a multi-view prior with cameras ``c2w`` [N, 4, 4]."""
        prior, abars = self.prior, self.prior.alphas_cumprod
        tokens = prior.encode_text([*texts, ""]).tokens
        both = torch.cat([tokens[:-1], tokens[-1:].expand_as(tokens[:-1])])  # [2N, L, D]
        cameras = None if c2w is None else torch.cat([c2w, c2w])
        x = torch.randn(len(texts), *prior.latent_shape, generator=torch.Generator().manual_seed(seed))
        times = torch.linspace(prior.num_timesteps - 1, 0, STEPS + 1).round().long()
        for t, following in itertools.pairwise(times):
            noise = prior.predict_noise(torch.cat([x, x]), t.expand(2 * len(x)), both, c2w=cameras)
            conditional, unconditional = noise.chunk(2)
            noise = unconditional + scale * (conditional - unconditional)
            clean = (x - (1 - abars[t]).sqrt() * noise) / abars[t].sqrt()
            x = abars[following].sqrt() * clean + (1 - abars[following]).sqrt() * noise
        decoded = self.vae.decode(clean / self.vae.config["scaling_factor"]).sample  # pyright: ignore
        return ((decoded + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)


def some_toys(count: int, *, seed: int) -> list[Toy]:
    """Random toys, all different."""
    toys = every_toy()
    order = torch.randperm(len(toys), generator=torch.Generator().manual_seed(seed))
    return [toys[i] for i in order[:count].tolist()]


def recognised(judge: Judge, pictures: Tensor, prompts: Sequence[str], *, views: int = 1) -> Tensor:
    """1.0 [O] where the judge, having seen V pictures [O * V, H, W, 3] of a toy, names its prompt among all."""
    features = judge.see(pictures).unflatten(0, (-1, views)).mean(dim=1)  # [O, F]
    return ((features @ judge.read(prompts).T).argmax(dim=1) == torch.arange(len(prompts))).float()


def view_words(draw: Sampler, judge: Judge, kind: str) -> float:
    """Share of three toys of a kind, two pictures each, that are seen from the side, front or back as asked."""
    toys = [toy for toy in some_toys(len(every_toy()), seed=SEED) if toy.kind == kind][:3]
    words = VIEW_WORDS[1:4]
    texts = [toy.prompt + word for toy in toys for word in words for _ in range(2)]
    seen = judge.see(draw(texts, scale=3.0, seed=SEED)).unflatten(0, (len(toys), len(words), 2))
    asked = torch.stack([judge.read([toy.prompt + word for word in words]) for toy in toys])  # [O, words, F]
    told = torch.einsum("owpf,onf->owpn", seen, asked).argmax(dim=-1)
    return (told == torch.arange(len(words))[:, None]).float().mean().item()


def silhouettes(pictures: Tensor) -> Tensor:
    """1.0 [N, H, W] where a picture [N, H, W, 3] differs from the colour of its upper corners."""
    corners = torch.cat([pictures[:, :3, :3].flatten(1, 2), pictures[:, :3, -3:].flatten(1, 2)], dim=1)
    return ((pictures - corners.median(dim=1).values[:, None, None]).abs().amax(dim=-1) > SEEN_AS_TOY).float()


def measure_toy(judge: Judge) -> None:
    """Recall of samples, and view words obeyed."""
    draw = Sampler(StableDiffusion(path="toy"), weights.FOLDER / "toy" / "vae")
    prompts = [toy.prompt for toy in some_toys(TOYS, seed=SEED)]
    for scale in SCALES:
        recall = recognised(judge, draw(prompts, scale=scale, seed=SEED), prompts).mean().item()
        print(f"guidance {scale}: recall@1 {recall:.3f} of {TOYS} prompts", flush=True)
    obeyed = {kind: view_words(draw, judge, kind) for kind in KINDS}
    for kind, share in obeyed.items():
        print(f"{kind}: view words obeyed {share:.2f}")
    print(f"view words obeyed {sum(obeyed.values()) / len(obeyed):.3f}")


def measure_multiview(judge: Judge) -> None:
    """Recall of samples by all views, and agreement with the truth from the cameras that were asked for."""
    draw = Sampler(MultiViewDiffusion(path="toy_mv", base_path="toy"), weights.FOLDER / "toy" / "vae")
    toys, views = some_toys(TOYS, seed=SEED), draw.prior.views
    prompts = [toy.prompt for toy in toys]
    cameras = ring_cameras(TOYS * views, views, torch.Generator().manual_seed(SEED))
    truth = render(Scene.of(toys), cameras, SIZE, background=torch.zeros(3))
    there = (truth.opacity.flatten(1) > 0.5).float().view(-1, SIZE, SIZE)
    turned = there.unflatten(0, (-1, views)).roll(1, dims=1).flatten(0, 1)
    texts = [prompt for prompt in prompts for _ in range(views)]
    for scale in SCALES:
        pictures = draw(texts, scale=scale, seed=SEED, c2w=cameras.c2w)
        drawn = silhouettes(pictures)
        print(
            f"guidance {scale}: recall@1 {recognised(judge, pictures, prompts, views=views).mean():.3f} of {TOYS} "
            f"prompts; IoU with the truth {iou(drawn, there).mean():.3f}, with the truth turned by 90 degrees "
            f"{iou(drawn, turned).mean():.3f}",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m scaledreamer.toybox.training.measure", description=__doc__)
    parser.add_argument("prior", choices=("toy", "toy_mv"))
    measures = {"toy": measure_toy, "toy_mv": measure_multiview}
    measures[parser.parse_args(arguments).prior](Judge())


if __name__ == "__main__":
    main()
