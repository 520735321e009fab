"""The toybox's truth: distances by hand, pictures of a ball by geometry, and what holds for every toy."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor

from scaledreamer.cameras import Cameras, look_at_origin
from scaledreamer.toybox import truth_renderer
from scaledreamer.toybox.catalogue import parts_of, slots
from scaledreamer.toybox.parts import ball, box, cylinder, egg, limb, ring, soft, tube
from scaledreamer.toybox.scene import RADIUS, Scene
from scaledreamer.toybox.truth_renderer import render
from scaledreamer.toybox.vocabulary import HATS, KINDS, STANDS, Toy, every_toy

GREY = torch.tensor([0.5, 0.5, 0.5])


def orbit(*azimuths: float, toys: int = 1, elevation: float = 15.0, distance: float = 3.0) -> Cameras:
    azimuth = torch.tensor(azimuths).repeat(toys)
    ones = torch.ones_like(azimuth)
    return look_at_origin(azimuth=azimuth, elevation=elevation * ones, distance=distance * ones, fovy=40 * ones)


def unplaced(*parts, **options) -> Scene:
    """Parts where they were put, in world units."""
    scene = Scene.of_parts(*parts, **options)
    here = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    return dataclasses.replace(scene, placement=torch.cat([here, scene.placement[:, 4:]], dim=-1))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def plain() -> Scene:
    """Toys of one colour and three of the hats: 168."""
    return Scene.of([toy for toy in every_toy() if toy.colour == "red" and toy.hat in (None, "top hat", "cap")])


@pytest.mark.parametrize(
    ("part", "point", "distance"),
    [
        (ball((0, 0, 0), 0.5), (1.0, 0, 0), 0.5),
        (ball((0, 0, 0), 0.5), (0.0, 0, 0), -0.5),
        (box((0, 0, 0), (0.5, 0.3, 0.4), edge=0.0), (0.8, 0.7, 0), 0.5),
        (box((0, 0, 0), (0.5, 0.3, 0.4), edge=0.0), (0.0, 0, 0), -0.3),
        (box((0.5, 0, 0), (0.2, 0.2, 0.2), mirror="x"), (-1.0, 0, 0), 0.3),
        (box((0.5, 0, 0), (0.2, 0.2, 0.2), mirror="x").moved((1, 0, 0)), (0, 0, 0), 0.3),
        (box((0, 0, 0), (0.5, 0.1, 0.1), turn=(90, 0, 0)), (0, 1.0, 0), 0.5),
        (cylinder((0, 0, 0), 0.5, 0.4, edge=0.0), (0.8, 0, 0.8), 0.5),
        (cylinder((0, 0, 0), 0.5, 0.4, along="x", edge=0.0), (0.8, 0, 0.8), 0.5),
        # A cone from radius 0.6 at z = -0.4 to a tip at z = 0.4: its side is 1 long, with the normal (0.8, 0.6).
        (cylinder((0, 0, 0), 0.3, 0.4, taper=0.3, edge=0.0), (0.7, 0, 0.3), 0.5),
        (cylinder((0, 0, 0), 0.3, 0.4, taper=0.3, edge=0.0), (0, 0, 0.9), 0.5),
        (limb((0, 0, 0), (0, 1, 0), 0.2), (0, 1.5, 0), 0.3),
        (limb((0, 0, 0), (0, 1, 0), 0.2), (0.5, 0.5, 0), 0.3),
        (ring((0, 0, 0), 0.5, 0.2), (0, 0, 0), 0.3),
        (ring((0, 0, 0), 0.5, 0.2), (0.5, 0, 0.5), 0.3),
        (tube((0, 0, 0), 0.5, 0.4, 0.1), (0, 0, 0), 0.4),
        (tube((0, 0, 0), 0.5, 0.4, 0.1), (0, 0.45, 0), -0.05),
        (egg((0, 0, 0), (1, 0.5, 0.5)), (2, 0, 0), 1.0),
        (egg((0, 0, 0), (1, 0.5, 0.5)), (0, 0, 1), 0.5),
    ],
)
def test_distances_by_hand(part, point, distance):
    found = unplaced(part).sdf(torch.tensor([[point]], dtype=torch.float))
    torch.testing.assert_close(found, torch.tensor([[distance]]), rtol=0, atol=2e-5)


def test_soft_parts_melt_by_the_logarithm_of_their_number():
    """Three equal parts sharply, softly: -blend * log 3 between them."""
    three = [ball((0, 0, 0), 0.5)] * 3
    point = torch.tensor([[[1.0, 0, 0]]])
    torch.testing.assert_close(unplaced(*three).sdf(point).item(), 0.5, rtol=0, atol=1e-5)
    melted = unplaced(*soft(*three), blend=0.1).sdf(point).item()
    torch.testing.assert_close(melted, 0.5 - 0.1 * math.log(3), rtol=0, atol=1e-5)


def test_picture_of_a_ball():
    """A ball of radius 0.9 from 3: the disc's radius, the depth in its middle, normals and the background."""
    scene = Scene.of_parts(ball((5.0, 1.0, -2.0), 2.0))
    background = torch.tensor([0.1, 0.2, 0.3])
    images = render(scene, orbit(30.0), 64, background=background, supersample=1)
    radius = 32 * math.tan(math.asin(RADIUS / 3)) / math.tan(math.radians(20))  # pixels
    torch.testing.assert_close(images.opacity.sum().item(), math.pi * radius**2, rtol=0.015, atol=0)
    middle = slice(31, 33)
    assert images.depth[0, middle, middle].mean().item() == pytest.approx(3 - RADIUS, abs=0.004)
    normal = images.normal[0, middle, middle].mean(dim=(0, 1)) * 2 - 1
    a, e = math.radians(30), math.radians(15)
    towards = torch.tensor([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
    torch.testing.assert_close(normal, towards, rtol=0, atol=0.02)
    torch.testing.assert_close(images.rgb[0, 0, 0], background)
    assert images.rgb.min() >= 0
    assert images.rgb.max() <= 1


def test_gradient_is_at_most_one(plain):
    points = (torch.rand(len(plain), 400, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1).requires_grad_()
    distance = plain.sdf(points)
    (gradient,) = torch.autograd.grad(distance.sum(), points)
    assert gradient.norm(dim=-1).max() < 1.03
    near = (distance.abs() < 0.05) & (distance > 0)
    assert gradient.norm(dim=-1)[near].mean() > 0.97


def test_eggs_are_not_too_flat():
    eggs = [p for toy in every_toy() for p in parts_of(toy) if toy.colour == "red" and p.shape == "ellipsoid"]
    assert max(max(p.size) / min(p.size) for p in eggs) <= 2 + 1e-6


def test_every_toy_fills_the_ball(plain):
    directions = torch.nn.functional.normalize(
        torch.randn(1, 600, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    ).expand(len(plain), -1, -1)
    assert plain.sdf(directions * (RADIUS + 0.02)).min() > 0
    assert plain.sdf(directions * RADIUS).amin(dim=-1).max() < 0.05


def test_chair_legs_are_thick():
    """At least 0.14 wide even where a hat and a stand make the chair small."""
    scene = Scene.of([Toy("chair", "red", hat, stand) for hat in (None, *HATS) for stand in (None, *STANDS)])
    scale, centre = scene.placement[:, None, :1], scene.placement[:, None, 1:4]
    leg = (torch.tensor([0.39, 0.39, 0.30]) - centre) * scale
    assert scene.sdf(leg).max() < -0.07


def test_batch_equals_singles_and_gather_equals_packing():
    toys = [Toy("robot", "red", "cap", "box"), Toy("fish", "blue"), Toy("chair", "white", None, "cloud")]
    points = torch.rand(3, 50, 3) * 2 - 1
    scene = Scene.of(toys)
    singles = [Scene.of([toy]) for toy in toys]
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(
        scene.sdf(points), torch.cat([s.sdf(p[None]) for s, p in zip(singles, points, strict=True)]), **close
    )
    torch.testing.assert_close(
        scene.albedo(points), torch.cat([s.albedo(p[None]) for s, p in zip(singles, points, strict=True)]), **close
    )
    order = torch.tensor([2, 0, 2])
    torch.testing.assert_close(scene[order].sdf(points), Scene.of([toys[i] for i in order]).sdf(points), **close)
    torch.testing.assert_close(scene[1:].sdf(points[1:]), scene.sdf(points)[1:], **close)
    torch.testing.assert_close(scene[1:2].trimmed().sdf(points[1:2]), scene.sdf(points)[1:2], **close)
    assert scene[1:2].trimmed().solids.shape[1] < scene.solids.shape[1] == slots()["solid"]
    assert len(scene) == 3


def test_setting_rays_aside_changes_nothing():
    scene = Scene.of([Toy("duck", "yellow", "crown"), Toy("train", "green", None, "drum")])
    rays = orbit(20.0, 200.0, toys=2).rays(16, 16)
    origins, directions = (x.reshape(2, -1, 3) for x in (rays.origins, rays.directions))
    dense = truth_renderer._look(scene, origins, directions, truth_renderer._as_it_is)
    sparse = truth_renderer._look_sparse(scene, origins, directions, truth_renderer._as_it_is)
    different = (dense - sparse).abs().amax(dim=-1) > 0.05
    assert different.float().mean() < 0.01  # rays that graze an edge


def test_compiles_into_one_graph(monkeypatch):
    monkeypatch.setattr(truth_renderer, "STEPS", 2)
    scene, cameras = Scene.of([Toy("cat", "orange")]), orbit(0.0, 90.0)
    compiled = torch.compile(render, backend="eager", fullgraph=True)
    assert compiled(scene, cameras, 4, background=GREY).rgb.shape == (2, 4, 4, 3)


def test_backgrounds_of_every_shape():
    scene, cameras = Scene.of([Toy("cat", "orange"), Toy("car", "blue")]), orbit(0.0, toys=2)
    reference = render(scene, cameras, 8, background=GREY).rgb
    for background in (GREY.expand(2, 3), GREY.expand(2, 8, 8, 3)):
        assert torch.equal(render(scene, cameras, 8, background=background).rgb, reference)


def count(rgb: Tensor, paint: tuple[float, float, float]) -> Tensor:
    """Pixels [...] whose hue is that of a paint, of images [..., H, W, 3]."""
    wanted = torch.nn.functional.normalize(torch.tensor(paint), dim=0)
    cosine = (torch.nn.functional.normalize(rgb, dim=-1) * wanted).sum(dim=-1)
    return ((cosine > 0.99) & (rgb.amax(dim=-1) > 0.4)).sum(dim=(-1, -2))


def test_front_features_are_in_front():
    """The robot's yellow eyes and the car's red tail lamps, from the front and from behind."""
    scene = Scene.of([Toy("robot", "blue"), Toy("car", "blue")])
    rgb = render(scene, orbit(0.0, 180.0, toys=2), 32, background=GREY).rgb.unflatten(0, (2, 2))
    eyes, tail = count(rgb[0], (1.0, 0.95, 0.55)), count(rgb[1], (0.8, 0.02, 0.05))
    assert eyes[0] >= 8
    assert eyes[1] == 0
    assert tail[0] == 0
    assert tail[1] >= 8


@pytest.fixture(scope="module")
def portraits() -> tuple[Tensor, Tensor]:
    """Colours [14, 4, 24, 24, 3] and silhouettes [14, 4, 24, 24] of the kinds from four sides."""
    scene = Scene.of([Toy(kind, "green") for kind in KINDS])
    images = render(scene, orbit(0.0, 90.0, 180.0, 270.0, toys=len(KINDS)), 24, background=GREY, supersample=1)
    return images.rgb.unflatten(0, (-1, 4)), images.opacity[..., 0].unflatten(0, (-1, 4)) > 0.5


def test_kinds_look_different(portraits):
    rgb, silhouettes = portraits
    for a, b in itertools.combinations(range(len(KINDS)), 2):
        both, either = silhouettes[a] & silhouettes[b], silhouettes[a] | silhouettes[b]
        iou = both.sum() / either.sum()
        difference = (rgb[a] - rgb[b]).abs().sum() / either.sum() / 3
        assert iou < 0.85 or difference > 0.15, f"{KINDS[a]} and {KINDS[b]}: IoU {iou:.2f}, colours {difference:.2f}"


def test_fronts_differ_from_backs(portraits):
    rgb, silhouettes = portraits
    for kind, pictures, masks in zip(KINDS, rgb, silhouettes, strict=True):
        difference = (pictures[0] - pictures[2].flip(1)).abs().sum() / (masks[0] | masks[2].flip(1)).sum() / 3
        assert difference > 0.08, f"{kind}: {difference:.3f}"
