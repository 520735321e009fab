"""The Triplane-Transformer and its field against the reference's numbers, by hand, and properties of any batch."""

import copy

import pytest
import torch
from runs import SMALL, prepared, trained_with
from torch.nn import functional as F

from scaledreamer.config import compose, plain
from scaledreamer.errors import UserError
from scaledreamer.fields.mlp import MLP
from scaledreamer.fields.triplane import TriplaneField
from scaledreamer.generators.transformer import Attention
from scaledreamer.generators.triplane_transformer import TriplaneTransformerGenerator
from scaledreamer.schedules import value_at

TEXTS = ["local", "global"]


def load(goldens, text, **options):
    golden = goldens("triplane_field")
    config = golden.meta["cases"][text]["config"]
    network = config["space_generator_config"]
    generator = TriplaneTransformerGenerator(
        text_dim=network["condition_dim"],
        text=text,
        resolution=network["triplane_high_res"],
        channels=network["triplane_dim"],
        width=network["inner_dim"],
        layers=network["num_layers"],
        attention_heads=network["num_heads"],
        mlp_ratio=network["mlp_ratio"],
        radius=config["radius"],
        sphere_radius=config["sdf_bias_params"],
        normal_eps=config["finite_difference_normal_eps"],
        clamp_offsets=True,
        **options,
    )
    case = golden.case(text)
    state = {k.removeprefix("state."): v for k, v in case.items() if k.startswith("state.")}
    generator.load_state_dict({k.removeprefix("space_generator."): v for k, v in state.items() if k != "bbox"})
    return generator, case


def small(text="local", **options) -> TriplaneTransformerGenerator:
    torch.manual_seed(0)
    sizes = {"resolution": 8, "channels": 3, "width": 12, "layers": 2, "attention_heads": 3}
    return TriplaneTransformerGenerator(text_dim=5, text=text, **{**sizes, **options})


def words(text, prompts=3) -> torch.Tensor:
    return torch.randn(*((prompts, 5) if text == "global" else (prompts, 7, 5)))


# -- the reference's numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
@torch.no_grad()
def test_golden_planes_encoding_and_field(goldens, text):
    generator, case = load(goldens, text)
    field = generator(case["in.text_embed"])
    torch.testing.assert_close(field.planes, case["out.planes"], rtol=1e-4, atol=1e-5)
    points = case["in.points"]  # a sixth of them outside the box
    torch.testing.assert_close(field.encode(points), case["out.enc"], rtol=1e-4, atol=1e-5)
    found = field.query(points)
    torch.testing.assert_close(found.sdf.reshape(-1, 1), case["out.sdf"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(field.sdf(points), found.sdf)
    color = torch.sigmoid(case["out.features"]) * 1.002 - 0.001
    torch.testing.assert_close(found.color.reshape(-1, 3), color, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.gradient.reshape(-1, 3), case["out.sdf_grad"], rtol=0, atol=2e-3)
    normal = F.normalize(found.gradient.reshape(-1, 3), dim=-1)
    torch.testing.assert_close(normal, case["out.normal"], rtol=0, atol=2e-3)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "computed again"])
@pytest.mark.parametrize("text", TEXTS)
def test_golden_gradients(goldens, text, checkpointing):
    generator, case = load(goldens, text, activation_checkpointing=checkpointing, widened=False)
    embedding = case["in.text_embed"].clone().requires_grad_()
    found = generator(embedding).query(case["in.points"])
    features = torch.logit(found.color.double()).float()
    loss = (
        (found.sdf.reshape(-1, 1) * case["in.w_sdf"]).mean()
        + (features.reshape(-1, 3) * case["in.w_features"]).mean()
        + 0.1 * (found.gradient.reshape(-1, 3) * case["in.w_sdf_grad"]).mean()
    )
    torch.testing.assert_close(loss, case["out.loss"], rtol=1e-3, atol=1e-5)
    loss.backward()
    gradients = {"text_embed": embedding.grad, **{n: p.grad for n, p in generator.named_parameters()}}
    expected = {k.removeprefix("grad."): v for k, v in case.items() if k.startswith("grad.")}
    assert len(expected) >= 9
    for key, value in expected.items():
        mine = gradients[key.removeprefix("space_generator.")]
        atol = 1e-5 * value.abs().max().item()
        torch.testing.assert_close(mine, value, rtol=1e-3, atol=atol, msg=lambda m, k=key: f"{k}: {m}")


def test_the_published_layout_maps_by_a_change_of_prefix(goldens):
    layout = goldens("reference_checkpoint_layout").meta["configs"]["DL17k_triplane_transformer"]["keys"]
    published = {
        k.removeprefix("geometry.").removeprefix("space_generator."): tuple(v["shape"])
        for k, v in layout.items()
        if k.startswith("geometry.") and k != "geometry.bbox"
    }
    node = plain(compose(["generator=triplane_transformer"]))["generator"]
    with torch.device("meta"):
        generator = TriplaneTransformerGenerator(text_dim=1024, **{k: v for k, v in node.items() if k != "_target_"})
    assert {k: tuple(v.shape) for k, v in generator.state_dict().items()} == published


# -- by hand -----------------------------------------------------------------------------------------------------


def test_attention_by_hand():
    """Two heads of width 1, all matrices the identity but a tripled output: each channel is its own softmax."""
    attention = Attention(width=2, context_width=2, heads=2)
    for layer, scale in ((attention.to_q, 1), (attention.to_k, 1), (attention.to_v, 1), (attention.to_out[0], 3)):
        layer.load_state_dict({**layer.state_dict(), "weight": scale * torch.eye(2)})
    torch.nn.init.zeros_(attention.to_out[0].bias)
    found = attention(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[2.0, 5.0], [0.0, 1.0]]]))
    e = 2.718281828459045**2  # of scores 2 and 0 in the first head; the second head's query is 0: the mean
    torch.testing.assert_close(found, torch.tensor([[[3 * 2 * e / (e + 1), 3 * 3.0]]]))


def test_what_gpus_compute_instead_is_the_same():
    """The last layer as one product, and q, k and v together."""
    generator = small()
    tokens = torch.randn(2, 3, 4, 4, 12)
    expected = generator.deconv(tokens.flatten(0, 1).movedim(-1, 1)).unflatten(0, (-1, 3))
    torch.testing.assert_close(generator._unfold(tokens), expected)
    assert generator._unfold(tokens).stride(2) == 1  # channels last
    x, context = torch.randn(2, 6, 12), torch.randn(2, 7, 5)
    for attention, other in ((generator.layers[0].self_attn, x), (generator.layers[0].cross_attn, context)):
        separate = attention.to_q(x), attention.to_k(other), attention.to_v(other)
        for one, two in zip(attention._together(x, other), separate, strict=True):
            torch.testing.assert_close(one, two)


def table(planes, **options) -> TriplaneField:
    """A field whose distance is the sum of its features, less the sphere."""
    channels = planes.shape[2]
    sdf_network = MLP([3 * channels, 1])
    torch.nn.init.ones_(sdf_network.layers[0].weight)
    defaults = {"radius": 2.0, "sphere_radius": 0.8, "eps": 0.01} | options
    return TriplaneField(planes=planes, sdf_network=sdf_network, feature_network=MLP([3 * channels, 4, 3]), **defaults)


def test_each_plane_is_read_along_its_axes():
    """Two pixels a side in [-2, 2]: centres at -1 and 1, so 0.5 is 3/4 of the way."""
    planes = torch.zeros(1, 3, 1, 2, 2)
    planes[0, 0, 0, :, 1] = 4.0  # rises with x
    planes[0, 1, 0, 1, :] = 8.0  # rises with z
    planes[0, 2, 0, :, 1] = 16.0  # rises with z
    found = table(planes).encode(torch.tensor([[[0.5, -1.0, -1.0], [-1.0, 1.0, 0.5], [3.5, 0.0, 0.5]]]))
    # The last point is outside the squares of the planes over x; the one over z and y still sees it.
    torch.testing.assert_close(found[0], torch.tensor([[3.0, 0.0, 0.0], [0.0, 6.0, 12.0], [0.0, 0.0, 12.0]]))


def test_empty_planes_are_a_sphere_also_outside_the_box():
    points = (torch.rand(1, 2000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1) * 6
    sampled = table(torch.zeros(1, 3, 2, 4, 4)).query(points)
    torch.testing.assert_close(sampled.sdf, points.norm(dim=-1) - 0.8)
    far = points.norm(dim=-1) > 1
    assert (sampled.gradient.norm(dim=-1) - 1).square()[far].max() < 1e-3
    clamped = table(torch.zeros(1, 3, 2, 4, 4), clamp_offsets=True).query(points).gradient.norm(dim=-1)
    assert clamped[(points.abs() > 2.5).any(dim=-1)].min() > 2  # what the reference feeds its eikonal loss


def test_widened_colours_reach_beyond_zero_and_one():
    field = table(torch.full((1, 3, 1, 2, 2), 1e4), widened=True)
    for layer, value in ((field.feature_network.layers[0], 1.0), (field.feature_network.layers[2], -1.0)):
        torch.nn.init.constant_(layer.weight, value)
    color = field.query(torch.zeros(1, 1, 3)).color
    torch.testing.assert_close(color, torch.full((1, 1, 3), -0.001))


def test_half_precision_does_not_reach_distances():
    field, points = table(torch.randn(1, 3, 2, 4, 4)), torch.rand(1, 100, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sampled = field.query(points)
    torch.testing.assert_close(sampled.gradient, field.query(points).gradient)


# -- any batch, any memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
@torch.no_grad()
def test_a_batch_equals_its_samples(text):
    generator, embedding, points = small(text), words(text), torch.rand(3, 40, 3) * 6 - 3
    together = generator(embedding)
    assert (together.prompts, together.planes.shape) == (3, (3, 3, 3, 8, 8))
    batch = together.query(points)
    for i in range(3):
        one = generator(embedding[i : i + 1]).query(points[i : i + 1])
        for name in ("sdf", "color"):
            torch.testing.assert_close(getattr(batch, name)[i], getattr(one, name)[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(batch.gradient[i], one.gradient[0], rtol=0, atol=2e-3)


@pytest.mark.parametrize("text", TEXTS)
def test_activation_checkpointing_changes_memory_alone(text):
    embedding = words(text)
    results = []
    for checkpointing in (False, True):
        generator, held = small(text, activation_checkpointing=checkpointing), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, held=held: held.append(t.numel()) or t, lambda t: t):
            planes = generator.planes(embedding)
        planes.square().mean().backward()
        results.append((planes.detach(), {n: p.grad for n, p in generator.named_parameters()}, sum(held)))
    (planes, gradients, kept), (same, again, fewer) = results
    assert torch.equal(planes, same)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, again[name], msg=name)
    assert fewer < 0.25 * kept


@pytest.mark.parametrize("text", TEXTS)
def test_every_parameter_learns_and_every_word_counts(text):
    generator, embedding = small(text), words(text).requires_grad_()
    sampled = generator(embedding).query(torch.rand(3, 50, 3) * 2 - 1)
    (sampled.sdf.sum() + sampled.color.square().sum()).backward()
    silent = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    assert (embedding.grad.abs().sum(dim=-1) > 0).all()


@pytest.mark.parametrize("text", TEXTS)
@torch.no_grad()
def test_half_precision_stays_close(text):
    generator, embedding = small(text), words(text)
    full = generator.planes(embedding)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = generator.planes(embedding)
    assert (half.float() - full).norm() / full.norm() < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 7}, r"generator\.resolution=7: must be even"),
        ({"attention_heads": 5}, r"generator\.width=12: must be a multiple of generator\.attention_heads=5"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        small(**options)


# -- runs --------------------------------------------------------------------------------------------------------

TINY = (
    *(option for option in SMALL if not option.startswith("generator")),
    "generator=triplane_transformer",
    "generator.resolution=8",
    "generator.channels=4",
    "generator.width=16",
    "generator.layers=2",
    "generator.attention_heads=2",
    "trainer.max_steps=2",
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_run_of_two_steps(tmp_path, monkeypatch, text):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog\na red house\n")
    options = [*TINY, f"corpus.path={prompts}", f"generator.text={text}", "corpus.batch_size=2"]
    untrained, _ = prepared(options, tmp_path / "untrained")
    before = copy.deepcopy(untrained.system.generator.state_dict())
    after = trained_with(options, tmp_path / "kept").system.generator.state_dict()
    assert [n for n, value in after.items() if torch.equal(value, before[n]) or not value.isfinite().all()] == []
    again = trained_with([*options, "generator.activation_checkpointing=true"], tmp_path / "again")
    for name, value in again.system.generator.state_dict().items():
        torch.testing.assert_close(value, after[name], rtol=1e-3, atol=1e-5, msg=name)


def test_the_options_are_the_papers():
    config = plain(compose(["generator=triplane_transformer", "corpus=DL17k"]))
    generator, background = config["generator"], config["background"]
    assert (generator["radius"], generator["sphere_radius"], generator["normal_eps"]) == (2, 0.8, 0.01)
    assert (generator["text"], generator["clamp_offsets"], generator["widened"]) == ("local", False, True)
    assert (background["hidden"], background["random_color_probability"], background["widened"]) == (16, 0, True)
    optimizer = {k: v for k, v in config["optimizer"].items() if not k.startswith("_")}
    assert optimizer == {"lr": 2e-4, "betas": [0.98, 0.92, 0.99], "eps": 1e-15}
    assert config["optimizer"]["_target_"] == "scaledreamer.optim.adan.Adan"
    assert config["parameter_groups"] == {}  # the background learns at the same rate
    losses = config["losses"]
    assert (losses["distillation"], losses["sparsity"], losses["eikonal"]) == (1, 20, 0.01)
    assert [value_at(losses["opaque"], p) for p in (0, 0.8, 0.9, 1)] == pytest.approx([0, 0, 0.5, 1])
