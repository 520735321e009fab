"""Hyper-iNGP against the reference's numbers, and properties of any batch."""

import pytest
import torch
from runs import SMALL, prepared
from test_hash_grid import options_of
from torch.nn import functional as F

from scaledreamer.config.check import check
from scaledreamer.config.compose import compose
from scaledreamer.encodings.hash_grid import HashGrid
from scaledreamer.errors import UserError
from scaledreamer.fields.hash_field import HashField
from scaledreamer.generators.hyper_ingp import HyperINGPGenerator
from scaledreamer.hash_background import HashBackground
from scaledreamer.hyper_network import HyperNetwork, networks
from scaledreamer.randomness import StepRandom

# Finite differences over 0.01 of numbers rounded at 1e-7 of their size, in steep random grids.
DIFFERENCES = {"rtol": 1e-4, "atol": 2e-4}


def state_of(golden, part):
    """The reference's tensors under our names: a change of prefix."""
    state = {k.replace("encoding.encoding.encoding.", "encoding."): v for k, v in golden.case(f"{part}.state").items()}
    state.pop("bbox", None)
    return state


def golden_generator(golden) -> HyperINGPGenerator:
    config = golden.meta["config"]["geometry"]
    generator = HyperINGPGenerator(
        text_dim=config["hypernet_config"]["c_dim"],
        encoding=HashGrid(**options_of(config["pos_encoding_config"])),
        hidden=config["hypernet_config"]["out_dims"]["sdf_weights"][0],
        hyper_hidden=config["hypernet_config"]["n_neurons"],
        radius=config["radius"],
        sphere_radius=config["sdf_bias_params"],
        normal_eps=config["finite_difference_normal_eps"],
        clamp_offsets=True,
    )
    generator.load_state_dict(state_of(golden, "geo"))
    return generator


def golden_background(golden, **options) -> HashBackground:
    config = golden.meta["config"]["background"]
    background = HashBackground(
        text_dim=config["hypernet_config"]["c_dim"],
        encoding=HashGrid(**options_of(config["pos_encoding_config"])),
        hidden=config["hypernet_config"]["out_dims"]["bg_weights"][0],
        hyper_hidden=config["hypernet_config"]["n_neurons"],
        **options,
    )
    background.load_state_dict(state_of(golden, "bg"))
    return background


# -- against the reference ---------------------------------------------------------------------------------------


def test_golden_field_and_gradients(goldens):
    """Text through the hyper-network and the grid to the differences of the sdf, and back to every parameter."""
    golden = goldens("hyper_ingp")
    case, generator = golden.case("geo"), golden_generator(golden)
    text = case["in.text_embed"].clone().requires_grad_()
    points = case["in.points"]
    field = generator(text)
    for layers, name in ((field.sdf_layers, "sdf_weights"), (field.color_layers, "feature_weights")):
        for i, weight in enumerate(layers):
            torch.testing.assert_close(weight, case[f"out.cache.{name}.{i}"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(field.encode(points).flatten(0, 1), case["out.encoding"], rtol=1e-4, atol=1e-5)
    sampled = field.query(points)
    features = torch.logit(sampled.color).flatten(0, 1)
    sdf, gradient = sampled.sdf.reshape(-1, 1), sampled.gradient.flatten(0, 1)
    torch.testing.assert_close(sdf, case["out.sdf"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features, case["out.features"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, case["out.sdf_grad"], **DIFFERENCES)
    torch.testing.assert_close(F.normalize(gradient, dim=-1), case["out.normal"], rtol=0, atol=2e-4)
    loss = (
        (sdf * case["in.w_sdf"]).mean()
        + (features * case["in.w_features"]).mean()
        + 0.1 * (gradient * case["in.w_sdf_grad"]).mean()
    )
    torch.testing.assert_close(loss, case["out.loss"], rtol=1e-4, atol=1e-5)
    loss.backward()
    found = {"text_embed": text.grad, **{name: p.grad for name, p in generator.named_parameters()}}
    expected = golden.case("geo.grad")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-3, atol=1e-5 * value.abs().max().item(), msg=lambda m, n=name: f"{n}: {m}"
        )


def test_golden_background(goldens):
    golden = goldens("hyper_ingp")
    case = golden.case("bg")
    color = golden_background(golden)(case["in.dirs"], case["in.text_embed"])
    torch.testing.assert_close(color, case["out.color"], rtol=1e-4, atol=1e-5)


def test_published_layout(goldens):
    """Every published tensor of the paper's run on MG15 has its place, with its shape."""
    keys = goldens("reference_checkpoint_layout").meta["configs"]["MG15_hyper_iNGP"]["keys"]
    config = compose(["generator=hyper_ingp"])
    parts = {"geometry": (HyperINGPGenerator, config.generator), "background": (HashBackground, config.background)}
    for prefix, (made, node) in parts.items():
        options = {k: v for k, v in node.items() if k not in ("_target_", "encoding")}
        with torch.device("meta"):
            grid = HashGrid(**{k: v for k, v in node.encoding.items() if k != "_target_"})
            part = made(text_dim=1024, encoding=grid, **options)
        theirs = {
            k.removeprefix(f"{prefix}.").replace("encoding.encoding.encoding.", "encoding."): v["shape"]
            for k, v in keys.items()
            if k.startswith(f"{prefix}.") and k != "geometry.bbox"
        }
        assert theirs == {k: list(v.shape) for k, v in part.state_dict().items()}


# -- by hand and in batches --------------------------------------------------------------------------------------


def test_emitted_networks_by_hand():
    """Two inputs, two hidden, one output: relu(1 a + 3 b) 5 + relu(2 a - 4 b) 6, another network for the second row."""
    first = torch.tensor([[[1.0, 2.0], [3.0, -4.0]], [[1.0, 0.0], [0.0, 1.0]]])
    second = torch.tensor([[[5.0], [6.0]], [[1.0], [1.0]]])
    x = torch.tensor([[[1.0, 1.0], [3.0, 1.0]], [[2.0, 7.0], [-1.0, 3.0]]])
    found = networks(x, [first, second])[..., 0]
    torch.testing.assert_close(found, torch.tensor([[20.0, 6 * 5.0 + 2 * 6.0], [9.0, 3.0]]))


def test_weights_are_emitted_in_order():
    """The last layer's bias numbers what is emitted: row by row, layer by layer, network by network."""
    hypernet = HyperNetwork(text_dim=3, hidden=4, networks=[[2, 3, 1], [2, 1]])
    last = hypernet.layers[3]
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.arange(11.0))
    (first, second), (third,) = hypernet(torch.randn(5, 3))
    assert first[4].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert second[4].tolist() == [[6], [7], [8]]
    assert third[4].tolist() == [[9], [10]]


TINY = {"n_levels": 4, "log2_size": 7, "base_resolution": 3, "growth": 1.5}


def small(**options) -> HyperINGPGenerator:
    torch.manual_seed(0)
    generator = HyperINGPGenerator(text_dim=7, encoding=HashGrid(**TINY), hidden=6, hyper_hidden=5, **options)
    torch.nn.init.normal_(generator.encoding.params)
    return generator


def small_background(**options) -> HashBackground:
    torch.manual_seed(0)
    background = HashBackground(text_dim=7, encoding=HashGrid(**TINY), hidden=6, hyper_hidden=5, **options)
    torch.nn.init.normal_(background.encoding.params)
    return background


def test_a_batch_equals_its_samples():
    generator, text, points = small(), torch.randn(3, 7), torch.rand(3, 40, 3) * 4 - 2
    together = generator(text).query(points)
    assert generator(text).prompts == 3
    for i in range(3):
        alone = generator(text[i : i + 1]).query(points[i : i + 1])
        torch.testing.assert_close(together.sdf[i], alone.sdf[0])
        torch.testing.assert_close(together.color[i], alone.color[0])
        torch.testing.assert_close(together.gradient[i], alone.gradient[0], **DIFFERENCES)
    torch.testing.assert_close(generator(text).sdf(points), together.sdf)
    assert (together.sdf[0] - generator(text).sdf(points[:1].expand(3, -1, -1))[1]).abs().max() > 0.01


def test_every_parameter_learns():
    generator = small()
    sampled = generator(torch.randn(2, 7)).query(torch.rand(2, 300, 3) * 4 - 2)
    (sampled.sdf.sum() + sampled.color.sum() + sampled.gradient.sum()).backward()
    assert [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_starts_as_its_sphere():
    """Entries of 1e-4 leave the sphere of radius 0.5, whose distances grow by one per unit, also outside the box."""
    torch.manual_seed(0)
    generator = HyperINGPGenerator(text_dim=7, encoding=HashGrid(**TINY))
    points = (torch.rand(2, 500, 3) * 2 - 1) * 3
    sampled = generator(torch.randn(2, 7)).query(points)
    torch.testing.assert_close(sampled.sdf, points.norm(dim=-1) - 0.5, rtol=0, atol=2e-3)
    far = points.norm(dim=-1) > 0.5
    assert (sampled.gradient.norm(dim=-1) - 1)[far].abs().max() < 0.05


def test_the_centre_has_a_finite_gradient():
    points = torch.zeros(1, 1, 3, requires_grad=True)
    small()(torch.randn(1, 7)).query(points).sdf.sum().backward()
    assert torch.isfinite(points.grad).all()


def test_clamped_offsets_differ_only_at_the_faces():
    text, points = torch.randn(1, 7), torch.tensor([[[0.3, 0.2, 0.1], [2.3, 0.2, 0.1]]])
    free, clamped = (small(clamp_offsets=c)(text).query(points).gradient[0] for c in (False, True))
    torch.testing.assert_close(free[0], clamped[0])
    assert (clamped[1] - free[1]).norm() > 10  # what the reference feeds its eikonal loss


def test_half_precision_does_not_reach_distances():
    generator, text, points = small(), torch.randn(2, 7), torch.rand(2, 50, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = generator(text).query(points)
    full = generator(text).query(points)
    torch.testing.assert_close(half.gradient, full.gradient)
    torch.testing.assert_close(half.color, full.color)


def test_a_field_has_the_box_of_its_generator():
    field = small(radius=1.5)(torch.randn(1, 7))
    assert isinstance(field, HashField)
    inside = torch.full((1, 1, 3), 1.5)
    torch.testing.assert_close(field.encode(inside), field.encoding(torch.ones(1, 1, 3)))
    torch.testing.assert_close(field.encode(-inside), field.encoding(torch.zeros(1, 1, 3)))


# -- background --------------------------------------------------------------------------------------------------


def directions(images):
    return F.normalize(torch.randn(images, 4, 3, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_backgrounds_are_of_their_prompts():
    background, text = small_background(), torch.randn(3, 7)
    together = background(directions(3), text)
    alone = [background(directions(3)[i : i + 1], text[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    same = directions(1).expand(2, -1, -1, -1)
    one, other = background(same, text[:2])
    assert (one - other).abs().max() > 0.01


def test_training_replaces_a_fifth_of_the_images_by_one_colour_each():
    background, text = small_background(), torch.randn(100, 7)
    found = background(directions(100), text, StepRandom(seed=0, step=0))
    flat = (found.flatten(1, 2).std(dim=1) < 1e-6).all(dim=-1)
    assert 8 <= int(flat.sum()) <= 32  # 20 +- 3 deviations
    torch.testing.assert_close(found[~flat], background(directions(100), text)[~flat])
    off = small_background(random_color_probability=0.0)
    torch.testing.assert_close(
        off(directions(100), text, StepRandom(seed=0, step=0)), background(directions(100), text)
    )


# -- options and runs --------------------------------------------------------------------------------------------


def test_the_option_has_the_papers_numbers():
    config = compose(["generator=hyper_ingp", "corpus=MG15", "guidance=asd_sd"])
    check(config)
    growth = config.generator.encoding.growth
    assert 16 * growth**15 == pytest.approx(4096, rel=1e-5)
    assert config.background.encoding.growth == 1
    assert (config.generator.sphere_radius, config.background.random_color_probability) == (0.5, 0.2)
    assert (config.optimizer["_target_"], config.optimizer.lr, config.optimizer.betas) == (
        "torch.optim.Adam",
        0.004,
        [0.0, 0.99],
    )
    assert config.parameter_groups == {"background": {"lr": 0.001}}
    assert (config.losses.sparsity, config.losses.opaque) == (20, [[0.8, 0], [1, 10]])
    assert config.losses.eikonal == [[0, 100], [0.1, 1]]
    assert config.trainer.max_steps == 50_000


def test_a_missing_backend_is_refused_when_the_run_is_composed(monkeypatch):
    monkeypatch.setattr("scaledreamer.encodings.backends.find_spec", lambda name: None)
    config = compose(["generator=hyper_ingp", "guidance=asd_sd", "corpus=MG15", "generator.encoding.backend=triton"])
    with pytest.raises(UserError, match=r"^generator: hash grid with backend=triton: .* \[command line"):
        check(config)


def test_a_backend_of_gpus_is_refused_on_a_cpu_when_the_run_is_composed():
    options = ["generator=hyper_ingp", "guidance=asd_sd", "corpus=MG15", "trainer=cpu"]
    config = compose([*options, "background.encoding.backend=triton"])
    with pytest.raises(
        UserError, match=r"^background\.encoding\.backend: triton needs a GPU, and trainer\.accelerator"
    ):
        check(config)


def test_a_wrong_value_of_the_grid_is_refused_with_its_place():
    config = compose(["generator=hyper_ingp", "guidance=asd_sd", "corpus=MG15", "background.encoding.log2_size=40"])
    with pytest.raises(UserError, match=r"background\.encoding\.log2_size: .* less than or equal to 24"):
        check(config)


def test_two_steps_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\na dog\na red house\n")
    small_run = [option for option in SMALL if not option.startswith("generator")]
    sizes = ["generator.hidden=8", "generator.encoding.n_levels=3", "generator.encoding.log2_size=9"]
    options = [f"corpus.path={file}", "corpus.batch_size=2", "cameras.views_per_prompt=2", "trainer.max_steps=2"]
    run, _ = prepared([*small_run, "generator=hyper_ingp", *sizes, *options], tmp_path / "run")
    initial = {name: p.detach().clone() for name, p in run.system.named_parameters()}
    run.trainer.fit(run.system, datamodule=run.data)
    assert run.trainer.global_step == 2
    moved = {name for name, p in run.system.named_parameters() if not torch.equal(p, initial[name])}
    assert {"generator.encoding.params", "background.encoding.params"} <= moved
    assert moved == {name for name in initial if "log_inv_std" not in name}
    assert all(p.isfinite().all() for p in run.system.parameters())
    groups = {g["name"]: g["lr"] for g in run.trainer.optimizers[0].param_groups}
    assert groups == {"generator": 0.004, "background": 0.001}
