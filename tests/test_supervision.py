"""The guidance that knows the answer."""

from types import SimpleNamespace

import torch

from scaledreamer.cameras import RandomCameras
from scaledreamer.guidance.views import PlainPrompt
from scaledreamer.randomness import StepRandom
from scaledreamer.text.embedding import TextEmbedding
from scaledreamer.toybox.scene import Scene
from scaledreamer.toybox.supervision import TrueRenders
from scaledreamer.toybox.truth_renderer import render
from scaledreamer.toybox.vocabulary import parse


def test_the_truth_itself_has_no_loss_and_an_offset_its_square():
    prompts = ("a red robot", "a blue duck on a drum")
    cameras = RandomCameras(distance=(3.0, 3.0), fovy=(40.0, 40.0), views_per_prompt=2)
    views = cameras.sample(2, StepRandom(seed=0, step=0))
    background = torch.rand(4, 16, 16, 3)
    truth = render(Scene.of([parse(p) for p in prompts]), views, 16, background=background).rgb
    text = TextEmbedding(pooled=torch.zeros(2, 1), tokens=torch.zeros(2, 1, 1, 1), prompts=prompts)
    guidance = TrueRenders(prior=None, views=PlainPrompt(), scale=2.0)  # type: ignore[arg-type]
    guidance.setup(torch.device("cpu"), torch.zeros(1, 1))

    def loss(rgb: torch.Tensor) -> float:
        rendering = SimpleNamespace(rgb=rgb, background=background)
        return float(guidance(rendering, text, views, progress=0, random=StepRandom(seed=0, step=0)).loss)  # type: ignore[arg-type]

    assert loss(truth) < 1e-8  # other padding, other order of sums: rounding alone
    torch.testing.assert_close(loss(truth + 0.1), 2.0 * 0.01 * 16 * 16 * 3, rtol=1e-4, atol=0)
