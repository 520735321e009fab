"""Parts of rendering that need no run."""

import dataclasses

import pytest
import torch

from scaledreamer.render import maps
from scaledreamer.render.writers import Writers
from scaledreamer.renderers.base import Rendering


def test_maps_of_one_ray():
    """Something red that looks along +x, 2 world units away, stops three fifths of the light; black is behind it."""
    one = torch.ones(1, 1, 1, 1)
    red, x = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 0.5, 0.5])
    rendering = Rendering(
        rgb=0.6 * red * one,
        foreground=0.6 * red * one,
        background=0 * red * one,
        opacity=0.6 * one,
        depth=0.6 * 2.0 * one,
        depth_variance=0 * one,
        normal=0.6 * x * one,
    )
    span = maps.Span.around(distance=2.5, radius=1.0)
    assert (span.near, span.far) == (1.5, 3.5)
    assert maps.stored("rgb", rendering, span).flatten().tolist() == [153, 0, 0]
    assert maps.stored("rgba", rendering, span).flatten().tolist() == [255, 0, 0, 153]
    assert maps.shown("rgba", rendering, span).flatten().tolist() == [255, 102, 102]  # in front of white
    assert maps.stored("normal", rendering, span).flatten().tolist() == [153, 76, 76]
    assert maps.stored("opacity", rendering, span).flatten().tolist() == [153]
    assert maps.stored("depth", rendering, span).flatten().tolist() == [16384]  # (2 - 1.5) / 2 of 65535
    assert maps.shown("depth", rendering, span).flatten().tolist() == [64, 64, 64]
    thin = dataclasses.replace(rendering, opacity=0.4 * one, depth=0.8 * one)
    assert maps.stored("depth", thin, span).flatten().tolist() == [65535]
    inside = maps.Span.around(distance=1.5, radius=2.0)  # the camera is in the box
    assert (inside.near, inside.far) == (0.0, 3.0)


def test_writers_pass_on_what_goes_wrong_and_hold_back():
    done = []
    with Writers(threads=2, ahead=2) as writers:
        for i in range(20):
            writers.submit(lambda i=i: done.append(i))
            assert i + 1 - len(done) <= 2 + 1
    assert sorted(done) == list(range(20))
    with pytest.raises(ZeroDivisionError), Writers() as writers:
        writers.submit(lambda: 1 / 0)
