"""One prompt in a hash grid: the field by hand, the published layout, options, mistakes and whole runs."""

import json
import math

import pytest
import torch
from runs import SMALL, prepared, trained_with
from test_training import equal, figures
from test_volsdf import parallel_rays, some_rays
from torch.nn import functional as F

from scaledreamer.backgrounds import EnvironmentMap
from scaledreamer.config import check, compose, plain
from scaledreamer.encodings.hash_grid import HashGrid
from scaledreamer.errors import UserError
from scaledreamer.fields.blob import BlobField
from scaledreamer.generators.ingp import INGPGenerator
from scaledreamer.randomness import StepRandom
from scaledreamer.renderers.nerf import NeRFRenderer
from scaledreamer.renderers.occupancy import OccupancyGrid
from scaledreamer.schedules import value_at
from scaledreamer.system import TextTo3D
from scaledreamer.training.build import build_parts, require_known_prompts
from scaledreamer.training.checkpoints import read

TINY = {"n_levels": 4, "log2_size": 7, "base_resolution": 3, "growth": 1.5}


def small(*, spread: float = 1.0, **options) -> INGPGenerator:
    """With entries of the grid that far from 0."""
    torch.manual_seed(0)
    generator = INGPGenerator(encoding=HashGrid(**TINY), hidden=6, **options)
    torch.nn.init.normal_(generator.encoding.params, std=spread)
    return generator


def renderer(**options) -> NeRFRenderer:
    return NeRFRenderer(grid=OccupancyGrid(resolution=8), samples=48, **options)


TEXT = torch.zeros(1, 7)


# -- the field ---------------------------------------------------------------------------------------------------


def test_the_blob_by_hand():
    """softplus(10 (1 - |x| / 0.5)) where the grid is 0: softplus(10) in the middle, log 2 at 0.5."""
    field = small(spread=0.0)(TEXT)
    points = torch.tensor([[[0.0, 0, 0], [0.3, -0.4, 0], [0, 0.48, 0.64], [0, 0, -0.2]]])
    expected = [math.log1p(math.exp(10 * (1 - r / 0.5))) for r in (0.0, 0.5, 0.8, 0.2)]
    torch.testing.assert_close(field.density(points)[0], torch.tensor(expected))
    sampled = field.query(points, gradient=True)
    torch.testing.assert_close(sampled.color, torch.full((1, 4, 3), 0.5))
    # On the axis 0.2 below: the slope of softplus(6) is 0.9975, and that of the blob 20 along z.
    assert sampled.gradient is not None
    torch.testing.assert_close(sampled.gradient[0, 3], torch.tensor([0.0, 0, 19.95]), rtol=0.01, atol=0.6)
    assert field.query(points, gradient=False).gradient is None


def test_the_ball_that_is_seen_at_first():
    generator = small(spread=0.0)
    radius = generator.sphere_radius
    found = renderer()(generator(TEXT), parallel_rays([0.95 * radius, 1.05 * radius]), torch.zeros(1, 1, 2, 3))
    inside, outside = found.opacity.flatten().tolist()
    assert outside < 0.5 < inside


def test_other_blobs():
    field = small(spread=0.0, blob_scale=3.0, blob_radius=0.25)(TEXT)
    torch.testing.assert_close(field.density(torch.zeros(1, 1, 3)).item(), math.log1p(math.exp(3)), rtol=1e-5, atol=0)


def test_density_and_colour_are_read_from_the_same_features():
    generator = small()
    points = torch.rand(1, 30, 3) * 2 - 1
    features = generator.encoding((points + 1) / 2)
    raw = generator.density_network(features)[..., 0] + 10 - 20 * points.norm(dim=-1)
    sampled = generator(TEXT).query(points, gradient=True)
    torch.testing.assert_close(sampled.density, F.softplus(raw))
    torch.testing.assert_close(sampled.density, generator(TEXT).density(points))
    torch.testing.assert_close(sampled.color, torch.sigmoid(generator.feature_network(features)))


def test_differences_are_taken_inside_the_box():
    """At a face the grid beyond it is another: the point that is moved there stays on the face."""
    field = small()(TEXT)
    gradient = field.query(torch.tensor([[[1.0, 0.1, 0.2], [0.2, 0.1, 0.3]]]), gradient=True).gradient
    assert gradient is not None
    assert gradient[0, 0, 0] == 0
    assert (gradient[0].abs() > 0).sum() == 5


def test_the_text_does_not_matter_but_its_number():
    generator, points = small(), torch.rand(1, 20, 3)
    many = generator(torch.randn(3, 7))
    assert many.prompts == 3
    one = generator(torch.randn(1, 7)).density(points)
    torch.testing.assert_close(many.density(points.expand(3, -1, -1)), one.expand(3, -1))


def test_normals_point_outwards():
    field = small(spread=0.0)(TEXT)
    found = renderer()(field, parallel_rays([0.0, 0.3]), torch.zeros(1, 1, 2, 3))
    assert found.normal is not None
    normal = found.normal / found.opacity * 2 - 1
    torch.testing.assert_close(normal[0, 0, 0], torch.tensor([1.0, 0, 0]), rtol=0, atol=0.05)
    assert normal[0, 0, 1, 2] > 0.4


def test_every_parameter_learns_from_a_render():
    generator, background = small(), EnvironmentMap(encoding=HashGrid(**TINY), random_color_probability=0.0)
    rays, random = some_rays(2), StepRandom(seed=0, step=0)
    found = renderer(normals=True)(generator(TEXT), rays, background(rays.directions), random)
    (found.rgb.square().sum() + found.facing_away.sum()).backward()
    named = [*generator.named_parameters(), *background.named_parameters()]
    assert [n for n, p in named if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert all(p.grad.isfinite().all() for _, p in named)


def test_learning_moves_matter():
    """Light where there is none and matter where there is light: a blob becomes a picture."""
    generator, rays = small(spread=1e-2), parallel_rays([-0.5, -0.2, 0.2, 0.5])
    wanted = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 4, 1)
    optimizer = torch.optim.AdamW(generator.parameters(), lr=0.05, betas=(0.0, 0.99), eps=1e-15)
    drawn = renderer()
    for step in range(40):
        field, random = generator(TEXT), StepRandom(seed=0, step=step)
        drawn.update(field, random)
        loss = (drawn(field, rays, torch.zeros(1, 1, 4, 3), random).opacity - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.03


def test_half_precision_does_not_reach_densities():
    generator, rays, background = small(), some_rays(1), torch.rand(1, 6, 5, 3)
    full = renderer()(generator(TEXT), rays, background)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = renderer()(generator(TEXT), rays, background)
    torch.testing.assert_close(half.rgb, full.rgb)
    assert half.rgb.dtype == torch.float32


def test_a_background_in_a_hash_grid():
    background = EnvironmentMap(encoding=HashGrid(**TINY), random_color_probability=0.0)
    torch.nn.init.normal_(background.encoding.params)
    directions = F.normalize(torch.randn(1, 2, 2, 3), dim=-1)
    expected = torch.sigmoid(background.network(background.encoding(directions / 2 + 0.5)))
    torch.testing.assert_close(background(directions), expected)
    assert background.constants() == {}


# -- options -----------------------------------------------------------------------------------------------------

ONE = ("guidance=asd_sd", "corpus=prompt", "corpus.prompt=a corgi")


def composed(*overrides: str):
    cfg = compose(overrides)
    check(cfg)
    return plain(cfg)


@pytest.mark.parametrize("run", ["sd", "mv"])
def test_published_layout_and_learning_rates(goldens, run):
    """Every tensor of the paper's two runs on one prompt has its place, with its shape and its learning rate."""
    layout = goldens("reference_checkpoint_layout").meta["configs"][f"single_asd_{run}_nerf"]
    config = composed(f"experiment=one_prompt_{run}", "corpus.prompt=a corgi")
    with torch.device("meta"):
        parts = build_parts(config, text_dim=1024)
    ours = {}
    for word, part in (("geometry", parts["generator"]), ("background", parts["background"])):
        for name, parameter in part.named_parameters():
            ours[f"{word}.{name.replace('encoding.', 'encoding.encoding.encoding.')}"] = list(parameter.shape)
    assert ours == {k: v["shape"] for k, v in layout["keys"].items() if v["kind"] == "param"}
    optimizer = layout["optimizer_groups"]
    assert config["optimizer"]["_target_"] == f"torch.optim.{optimizer['name']}"
    assert {k: config["optimizer"][k] for k in optimizer["args"]} == optimizer["args"]
    rates, own = {k: v["lr"] for k, v in optimizer["params"].items()}, config["parameter_groups"]
    for name in ours:
        theirs = max((k for k in rates if name.startswith(k)), key=len)
        mine = max((k for k in own if name.replace("geometry", "generator").startswith(k)), key=len, default=None)
        assert (own[mine]["lr"] if mine else config["optimizer"]["lr"]) == rates[theirs], name


def test_the_runs_on_one_prompt_have_the_papers_numbers():
    sd, mv = (composed(f"experiment=one_prompt_{run}", "corpus.prompt=a corgi") for run in ("sd", "mv"))
    for config, samples, sparsity in ((sd, 512, 30), (mv, 256, 20)):
        assert config["trainer"]["max_steps"] == 25_000
        assert config["cameras"]["image_size"] == [[0, 64], [0.4, 256]]
        generator, losses = config["generator"], config["losses"]
        assert (generator["radius"], generator["blob_scale"], generator["blob_radius"]) == (1, 10, 0.5)
        assert generator["encoding"]["growth"] == 1.447269237440378
        assert (config["renderer"]["samples"], config["renderer"]["grid"]["resolution"]) == (samples, 32)
        assert config["background"]["random_color_probability"] == 0.5
        assert (losses["sparsity"], losses.get("eikonal", 0)) == (sparsity, 0)
        # The reference's [10000, 0, 100, 10001] of 25,000 steps.
        assert [value_at(losses["opaque"], step / 25_000) for step in (0, 10_000, 10_001, 25_000)] == [0, 0, 100, 100]
    assert sd["losses"]["orient"] == 0
    assert value_at(mv["losses"]["orient"], 1.0) == 100
    assert (sd["cameras"]["test_distance"], mv["cameras"]["test_distance"]) == (1.2, 3.0)
    assert mv["cameras"]["views_per_prompt"] == 4


def test_the_generator_brings_its_renderer():
    assert composed("generator=ingp", *ONE)["renderer"]["_target_"].endswith("NeRFRenderer")
    assert composed("generator=ingp_mv", *ONE, "size=small")["renderer"]["samples"] == 64


REFUSED = [
    (
        ["generator=ingp", "renderer=volsdf", *ONE],
        "renderer: VolSDFRenderer renders sdf fields, but INGPGenerator makes",
    ),
    (["generator=3dconv", "renderer=nerf", *ONE], "renderer: NeRFRenderer renders density fields, but Conv3D"),
    (["generator=ingp"], "corpus: INGPGenerator serves one prompt per run; name it with corpus=prompt"),
    (["generator=ingp", "guidance=asd_sd", "corpus=DF415"], "corpus: INGPGenerator serves one prompt per run"),
    (["generator=ingp", *ONE, "losses.orient=1"], "losses.orient: needs renderer.normals=true. [command line"),
    (["generator=ingp", *ONE, "+losses.eikonal=[[0,0],[1,1]]"], "losses.eikonal: NeRFRenderer renders nothing for it"),
    (
        ["generator=3dconv", *ONE, "+losses.orient=1"],
        "losses.orient: VolSDFRenderer renders nothing for it; set it to 0",
    ),
    (["generator=ingp", *ONE, "cameras.image_size=[[0.4,64],[0,256]]"], "cameras.image_size: "),
    (["generator=ingp", *ONE, "cameras.image_size=[[0,64],[0.4,0]]"], "cameras.image_size: "),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_does_not_go_together_is_one_line(overrides, message):
    with pytest.raises(UserError) as caught:
        check(compose(overrides))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_what_goes_together_passes():
    composed("generator=ingp", "corpus.prompt=a red duck", "losses.orient=0", "+losses.eikonal=[[0,0],[1,0]]")
    composed("generator=ingp_mv", *ONE)


# -- runs --------------------------------------------------------------------------------------------------------

RUN = (
    *(option for option in SMALL if not option.startswith(("generator", "renderer", "corpus"))),
    "corpus=prompt",
    "corpus.prompt=a corgi",
    "generator=ingp",
    "size=small",
    "generator.hidden=8",
    "generator.encoding.n_levels=3",
    "generator.encoding.log2_size=9",
    "background.encoding.n_levels=2",
    "background.encoding.log2_size=8",
    "renderer.samples=16",
    "renderer.grid.resolution=6",
    "renderer.grid.every=2",
    "trainer.max_steps=6",
)


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))


@pytest.mark.usefixtures("data")
def test_a_resumed_run_equals_the_unbroken_one(tmp_path):
    """The grid goes on with its memory, and its next update comes when it would have come."""
    run = (*RUN, "callbacks.checkpoints.keep_every=3", "renderer.normals=true", "losses.orient=1")
    trained_with(run, tmp_path / "unbroken")
    trained_with(run, tmp_path / "resumed", checkpoint=tmp_path / "unbroken" / "checkpoints" / "step-0000003.ckpt")
    unbroken, resumed = (read(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("unbroken", "resumed"))
    for part in ("state_dict", "optimizer_states", "batches_done"):
        assert equal(unbroken[part], resumed[part]), part
    assert not unbroken["state_dict"]["renderer.grid.binaries"].all()
    whole, rest = figures(tmp_path / "unbroken"), figures(tmp_path / "resumed")
    assert all(whole[step] == rest[step] for step in (3, 4, 5))
    assert whole[5]["train/orient"] >= 0


@pytest.mark.usefixtures("data")
def test_pictures_grow_during_the_run(tmp_path, monkeypatch):
    """8 x 8 for half of the run, 12 x 12 from there on, and two prompts of a step are the same object."""
    sizes = []
    render = TextTo3D.render

    def watched(self, text, cameras, size, random=None):
        sizes.append(size)
        return render(self, text, cameras, size, random)

    monkeypatch.setattr(TextTo3D, "render", watched)
    options = ("cameras.image_size=[[0,8],[0.5,12]]", "corpus.batch_size=2", "callbacks.previews=null")
    run = trained_with((*RUN, *options), tmp_path / "run")
    assert sizes == [8, 8, 8, 12, 12, 12]
    field = run.system.field(run.data.dataset.embeddings.rows([0, 0]))
    assert isinstance(field, BlobField)
    assert field.prompts == 2
    groups = {g["name"]: g["lr"] for g in run.trainer.optimizers[0].param_groups}
    assert groups.pop("generator") == 0.01
    assert groups == dict.fromkeys(
        ("generator.density_network", "generator.feature_network", "background.network"), 0.001
    )


@pytest.mark.usefixtures("data")
def test_a_file_of_several_prompts_is_refused_when_it_is_read(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a corgi\na cat\n")
    options = [option for option in RUN if not option.startswith("corpus")]
    with pytest.raises(UserError, match=r"^2 prompts are too many: INGPGenerator serves one prompt per run; name it"):
        prepared((*options, "corpus=file", f"corpus.path={file}"), tmp_path / "run")
    file.write_text("a corgi\na corgi\n")
    _, config = prepared((*options, "corpus=file", f"corpus.path={file}"), tmp_path / "run")
    require_known_prompts(config, ["a corgi"])
    with pytest.raises(UserError, match=r"^'a cat': this INGPGenerator has learned 'a corgi' alone\.$"):
        require_known_prompts({**config, "corpus": {"prompt": "a corgi"}}, ["a cat"])


@pytest.mark.slow
@pytest.mark.usefixtures("data")
def test_a_toy_is_learned_from_its_words(tmp_path):
    """A third of the experiment's steps: nearer to the truth than the ball that it begins as, and told from others."""
    options = ("callbacks.progress=null", "callbacks.previews=null", "callbacks.toybox.frames=0")
    trained_with(("experiment=toybox_one_prompt", "trainer.max_steps=100", *options), tmp_path / "run")
    scores = json.loads((tmp_path / "run" / "toybox" / "scores.json").read_text())
    found = {name: value[0] for name, value in scores["seen"].items()}
    assert scores["protocol"]["gallery"] == 127
    assert found["recall"] == found["upright"] == 1
    assert found["iou"] > found["sphere_iou"] + 0.15
