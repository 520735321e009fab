"""The multi-view prior and its guidance: the reference's numbers, runs, and what is refused."""

import functools
from types import SimpleNamespace

import pytest
import torch
from runs import SMALL, trained_with
from test_multiview_unet import golden_unet

from scaledreamer.cameras import RandomCameras
from scaledreamer.config import check, compose, plain
from scaledreamer.errors import UserError
from scaledreamer.guidance.distillation import ScoreDistillation
from scaledreamer.guidance.rules import Combination, asd
from scaledreamer.guidance.timesteps import Timesteps, TimestepSchedule
from scaledreamer.guidance.views import PlainPrompt, ViewPrompts, ViewText
from scaledreamer.priors.layout import Configs
from scaledreamer.priors.ldm_names import VAE, vae_names
from scaledreamer.priors.multiview import MultiViewDiffusion
from scaledreamer.priors.stable_diffusion import StableDiffusion
from scaledreamer.priors.weights import Weights
from scaledreamer.randomness import StepRandom
from scaledreamer.text.embedding import TextEmbedding
from scaledreamer.training.build import build, wordings

CPU = torch.device("cpu")
PLAIN = {"rtol": 1e-3, "atol": 1e-4}  # of one prediction
GUIDED = {"rtol": 1e-3, "atol": 7.5e-4}  # guidance multiplies a prediction's rounding as it does the prediction
CASES = ["one_prompt_4view", "two_prompts_8view_reference_buggy", "rgb_as_latents_4view"]


@pytest.fixture(scope="module")
def golden(goldens):
    return goldens("asd_mv_loss")


@pytest.fixture(scope="module")
def prior(golden) -> MultiViewDiffusion:
    """The class that loads MVDream, with the reference's small UNet and VAE."""
    vae_sizes = golden.meta["config"]["first_stage"]["ddconfig"]
    blocks = len(vae_sizes["ch_mult"])

    class Given(Weights):
        configs = Configs(
            unet={"views": 4, "in_channels": 4, "sample_size": 32},
            vae={
                "block_out_channels": [vae_sizes["ch"]] * blocks,
                "down_block_types": ["DownEncoderBlock2D"] * blocks,
                "up_block_types": ["UpDecoderBlock2D"] * blocks,
                "layers_per_block": 1,
                "scaling_factor": golden.meta["config"]["scale_factor"],
            },
            text_encoder={"hidden_size": 12, "max_position_embeddings": 5},
            scheduler={"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
        )

        def unet(self, device):
            return golden_unet(golden, 4)

        def vae(self, device):
            from diffusers import AutoencoderKL

            model = AutoencoderKL(**self.configs.vae)
            given = golden.case("state.first_stage_model")
            for ours, theirs in vae_names(model.state_dict(), self.configs.vae).items():
                if ours.startswith(("encoder.", "quant_conv.")):
                    weight = model.state_dict()[ours]
                    weight.copy_(given[theirs.removeprefix(VAE)].view_as(weight))
            return model

        text_encoder = tokenizer = None  # type: ignore[assignment]

    found = MultiViewDiffusion(path="unused")
    found.__dict__["weights"] = Given()
    found.setup(CPU)
    return found


@pytest.fixture(scope="module")
def distilled(golden, prior):
    """``distilled(NAME)``: what our guidance makes of a case of the reference."""
    return functools.cache(lambda name: _distilled(golden, prior, name))


def _distilled(golden, prior, name):
    case, tokens = golden.case(name), golden.case(name)["out.context_fed"]
    images = len(case["in.c2w"])
    guidance = ScoreDistillation(prior=prior, rule=asd, timesteps=TimestepSchedule(), views=PlainPrompt())
    guidance.setup(CPU, golden.tensors["in.negative.local"])
    none = tokens[:images, None][:, :0]
    # As the reference feeds them: of two prompts it gives each in turn to the views, where ours go to their own.
    words = ViewText(positive=tokens[:images], negatives=none, weights=none.new_zeros(images, 0))
    step = Timesteps(
        t=case["in.t"].expand(images), u=case["in.t_plus_rand"].expand(images), t_min=20, t_max=980, num_timesteps=1000
    )
    rgb = case["in.rgb"].clone().requires_grad_()
    if rgb.shape[-1] == 4:  # rendered latents: enlarged, not encoded
        latents = torch.nn.functional.interpolate(
            rgb.permute(0, 3, 1, 2), (32, 32), mode="bilinear", align_corners=False
        )
    else:
        latents = guidance.encode(rgb, posterior=case["in.vae_posterior_noise"])
    found = guidance.distill(latents, words, step, noise=case["in.noise"], c2w=case["in.c2w"])
    return SimpleNamespace(case=case, guidance=guidance, words=words, step=step, rgb=rgb, latents=latents, found=found)


def test_the_golden_prior_has_the_reference_s_sizes_and_noise_schedule(golden, prior):
    assert (prior.image_size, prior.latent_shape, prior.text_dim) == (256, (4, 32, 32), 12)
    torch.testing.assert_close(prior.alphas_cumprod, golden.tensors["out.alphas_cumprod"])


@pytest.mark.parametrize("name", CASES)
def test_golden_loss_and_gradient(distilled, name):
    result = distilled(name)
    case = result.case
    torch.testing.assert_close(result.found.loss, case["out.loss_asd"], rtol=2e-3, atol=0)
    scale = case["out.grad_latents"].abs().max().item()
    torch.testing.assert_close(result.found.gradient, case["out.grad_latents"], rtol=5e-3, atol=1e-5 * scale)
    if "grad.rgb" in case:
        (gradient,) = torch.autograd.grad(result.found.loss, result.rgb)
        scale = case["grad.rgb"].abs().max().item()
        torch.testing.assert_close(gradient, case["grad.rgb"], rtol=5e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("name", ["one_prompt_4view", "rgb_as_latents_4view"])
def test_golden_predictions(distilled, name):
    result = distilled(name)
    case = result.case
    torch.testing.assert_close(result.latents.detach(), case["out.latents"], rtol=1e-4, atol=1e-4)
    (_, first), (_, second) = result.guidance.rule(result.step).parts
    assert torch.equal(torch.cat([first.t, first.t, second.t]), case["out.t_fed"])
    rule = Combination(((1.0, first), (-1.0, second)))
    answers = result.guidance.ask(rule, case["out.latents"], result.words, noise=case["in.noise"], c2w=case["in.c2w"])
    torch.testing.assert_close(first.value(answers), case["out.noise_pred_first"], **GUIDED)
    torch.testing.assert_close(second.value(answers), case["out.noise_pred_second"], **PLAIN)
    raw = [answers("text", first.t), answers("null", first.t), answers("text", second.t)]
    torch.testing.assert_close(torch.cat(raw), case["out.noise_pred_raw"], **PLAIN)


# -- the guidance --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> MultiViewDiffusion:
    found = MultiViewDiffusion(path="random:tiny_mv")
    found.setup(CPU)
    return found


def test_a_step_asks_three_things_of_each_view_at_timesteps_that_an_object_s_views_share(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(tiny, "_denoise", lambda *inputs: asked.append(inputs) or inputs[0])
    cameras = RandomCameras(layout="ring", views_per_prompt=4)
    random = StepRandom(seed=0, step=0)
    text = TextEmbedding(pooled=torch.randn(2, 32), tokens=torch.randn(2, 1, 77, 32))
    guidance = ScoreDistillation(prior=tiny, rule=asd, timesteps=TimestepSchedule(), views=PlainPrompt())
    null = torch.randn(77, 32)
    guidance.setup(CPU, null)
    monkeypatch.setattr(tiny, "_denoise", lambda *inputs: asked.append(inputs) or inputs[0])
    views = cameras.sample(2, random)
    guidance(SimpleNamespace(rgb=torch.rand(8, 16, 16, 3)), text, views, progress=0.5, random=random)
    ((latents, t, tokens, c2w),) = asked  # one call
    assert len(latents) == 3 * 8
    objects = t.view(3, 2, 4)
    assert (objects == objects[..., :1]).all()
    assert len(objects[0].unique()) == 2
    assert torch.equal(objects[0], objects[1])
    assert (objects[2] >= objects[0]).all()
    assert torch.equal(c2w, views.c2w.repeat(3, 1, 1))
    own = text.tokens[:, 0].repeat_interleave(4, dim=0)
    assert torch.equal(tokens, torch.cat([own, null.expand(8, -1, -1), own]))


def test_a_batch_of_objects_equals_its_objects(tiny):
    torch.manual_seed(0)
    x, t, tokens = torch.randn(8, 4, 8, 8), torch.tensor([100] * 4 + [900] * 4), torch.randn(8, 77, 32)
    c2w = RandomCameras(layout="ring", views_per_prompt=4).sample(2, StepRandom(seed=0, step=0)).c2w
    together = tiny.predict_noise(x, t, tokens, c2w)
    assert together.dtype == torch.float32
    for rows in (slice(0, 4), slice(4, 8)):
        alone = tiny.predict_noise(x[rows], t[rows], tokens[rows], c2w[rows])
        torch.testing.assert_close(together[rows], alone, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="needs c2w"):
        tiny.predict_noise(x, t, tokens)


def test_half_precision_and_the_trainer_s_autocast(tiny):
    prior = MultiViewDiffusion(path="random:tiny_mv", dtype="bfloat16")
    prior.setup(CPU)
    torch.manual_seed(0)
    x, t, tokens = torch.randn(4, 4, 8, 8), torch.full((4,), 500), torch.randn(4, 77, 32)
    c2w = RandomCameras(layout="ring", views_per_prompt=4).sample(1, StepRandom(seed=0, step=0)).c2w
    exact = tiny.predict_noise(x, t, tokens, c2w)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tiny.predict_noise(x, t, tokens, c2w), exact)
        rounded = prior.predict_noise(x, t, tokens, c2w)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.1)


@pytest.mark.gpu
def test_a_recorded_graph_gives_the_plain_call_s_numbers_for_other_inputs_too():
    device = torch.device("cuda")
    plain, recorded = (
        MultiViewDiffusion(path="random:tiny_mv", dtype="float32", speedup=speedup)
        for speedup in ("none", "cuda_graph")
    )
    for prior in (plain, recorded):
        prior.setup(device)
    for step in range(3):
        draws = torch.Generator(device).manual_seed(step)
        x, tokens = (torch.randn(8, *s, generator=draws, device=device) for s in ((4, 8, 8), (77, 32)))
        random = StepRandom(seed=0, step=step, device=device)
        c2w = RandomCameras(layout="ring", views_per_prompt=4).sample(2, random).c2w
        t = torch.full((8,), 100 * step + 50, device=device)
        found = recorded.predict_noise(x, t, tokens, c2w)
        torch.testing.assert_close(found, plain.predict_noise(x, t, tokens, c2w), rtol=1e-3, atol=1e-4)


# -- what the generator reads --------------------------------------------------------------------------------------


def test_a_generator_reads_tokens_of_the_prompt_as_it_is_with_any_prior():
    local, pooled = SimpleNamespace(text="local"), SimpleNamespace(text="global")
    sides = ViewPrompts().templates
    assert wordings(local, ViewPrompts()) == ("{prompt}", *sides)
    assert wordings(pooled, ViewPrompts()) == sides
    assert wordings(local, PlainPrompt()) == wordings(pooled, PlainPrompt()) == ("{prompt}",)


def test_the_guidance_reads_the_wordings_of_its_views(monkeypatch):
    prior = StableDiffusion(path="random:tiny")
    asked = []
    guidance = ScoreDistillation(
        prior=prior, rule=asd, timesteps=TimestepSchedule(), views=ViewPrompts(perp_neg=0.0, front_threshold=180.0)
    )
    guidance.setup(CPU, torch.zeros(77, 32))
    monkeypatch.setattr(prior, "_denoise", lambda x, t, tokens: asked.append(tokens) or x)
    random = StepRandom(seed=0, step=0)
    cameras = RandomCameras(elevation=(0, 0)).sample(1, random)
    tokens = torch.arange(5.0).view(1, 5, 1, 1).expand(1, 5, 77, 32)  # as it is, side, front, back, overhead
    for some in (tokens, tokens[:, 1:]):
        text = TextEmbedding(pooled=torch.zeros(1, 32), tokens=some)
        guidance(SimpleNamespace(rgb=torch.rand(1, 8, 8, 3)), text, cameras, progress=0, random=random)
    assert asked[0][:, 0, 0].tolist() == asked[1][:, 0, 0].tolist()
    assert asked[0][0, 0, 0] == 2.0 or asked[0][0, 0, 0] == 3.0  # front, or back within its threshold


# -- runs ----------------------------------------------------------------------------------------------------------

GENERATORS = ("3dconv", "triplane_transformer", "hyper_ingp")


def composed(*overrides: str):
    cfg = compose(overrides)
    check(cfg)
    return plain(cfg)


@pytest.mark.parametrize("generator", GENERATORS)
def test_every_generator_composes_with_mvdream(generator):
    config = composed(f"generator={generator}", "guidance=asd_mv", "corpus=DL17k")
    assert config["name"] == f"{generator}_DL17k_asd_mv"
    guidance: ScoreDistillation = build(config["guidance"])
    assert (guidance.prior.views, guidance.views.templates) == (4, ("{prompt}",))
    assert guidance.prior.negative_prompt.startswith("ugly, blurry")
    assert guidance.timesteps.bounds(0.0, 1000) == (500, 980)


MVDREAM_RUN = {
    "path": "mvdream",
    "base_path": "sd21",
    "cameras.distance": [0.8, 1.0],
    "cameras.relative_distance": True,
    "cameras.fovy": [15, 60],
    "cameras.azimuth": [-180, 180],
    "cameras.elevation": [0, 30],
    "cameras.views_per_prompt": 4,
    "cameras.layout": "ring",
    "cameras.image_size": 64,
    "cameras.test_distance": 3.0,
    "cameras.test_fovy": 40,
}


def test_the_paper_s_run_with_mvdream():
    config = composed("generator=triplane_transformer", "guidance=asd_mv", "corpus=DL17k")
    found = {key: config["guidance"]["prior"].get(key) for key in ("path", "base_path")}
    found |= {f"cameras.{key}": value for key, value in config["cameras"].items()}
    assert {key: found[key] for key in MVDREAM_RUN} == MVDREAM_RUN
    assert config["guidance"]["rule"]["guidance_scale"] == 7.5
    assert config["trainer"]["accumulate_grad_batches"] == 2


def test_rules_with_mvdream_differ_in_the_rule_alone():
    found = {name: composed(f"guidance={name}_mv", "corpus=DL17k") for name in ("asd", "sds", "csd")}
    rules = [config["guidance"].pop("rule")["_target_"].rpartition(".")[2] for config in found.values()]
    assert rules == ["asd", "sds", "csd"]
    names = [config.pop("name") for config in found.values()]
    assert len(set(names)) == 3
    assert found["asd"] == found["sds"] == found["csd"]


@pytest.mark.parametrize("views", [3, 2, 6])
def test_views_that_do_not_make_up_objects_are_refused(views):
    with pytest.raises(UserError) as caught:
        composed("guidance=asd_mv", "corpus=AT2520", f"cameras.views_per_prompt={views}")
    message = str(caught.value)
    assert message.startswith("cameras.views_per_prompt: MultiViewDiffusion denoises 4 views of an object together")
    assert f"a multiple of 4, not {views}" in message
    assert "\n" not in message


def test_eight_views_are_two_rings_of_four():
    cameras: RandomCameras = build(
        composed("guidance=asd_mv", "corpus=AT2520", "cameras.views_per_prompt=8")["cameras"]
    )
    found = cameras.sample(3, StepRandom(seed=0, step=0))
    turns = (found.azimuth.view(3, 2, 4).diff(dim=-1) % 360).flatten()
    torch.testing.assert_close(turns, torch.full_like(turns, 90.0), rtol=0, atol=1e-3)
    rings = found.elevation.view(3, 2, 4)
    assert (rings == rings[..., :1]).all()
    assert len(rings[..., 0].unique()) == 6
    strips = ((found.azimuth + 180) / 15).floor().long() % 24  # 24 cameras, one in each part of the circle
    assert sorted(strips.tolist()) == list(range(24))
    with pytest.raises(UserError, match=r"cameras.views_per_ring: 3 does not divide cameras.views_per_prompt=4"):
        RandomCameras(layout="ring", views_per_prompt=4, views_per_ring=3)


def test_toys_are_asked_of_the_bundled_multi_view_prior():
    config = composed("guidance=asd_toymv")
    assert config["guidance"]["prior"]["path"] == "toy_mv"
    assert config["guidance"]["prior"]["base_path"] == "toy"
    cameras = config["cameras"]
    assert (cameras["distance"], cameras["fovy"], cameras["elevation"]) == ([2.8, 3.2], [40, 40], [-10, 45])
    assert (cameras["relative_distance"], cameras["layout"], cameras["views_per_prompt"]) == (False, "ring", 4)
    with pytest.raises(UserError, match="toys"):
        composed("guidance=asd_toymv", "corpus=AT2520")


TRIPLANE = (
    "generator=triplane_transformer",
    "generator.resolution=8",
    "generator.width=16",
    "generator.layers=1",
    "generator.attention_heads=2",
    "generator.channels=4",
)


@pytest.mark.parametrize(
    ("generator", "prior"),
    [((), "tiny_mv"), (TRIPLANE, "tiny_mv"), (TRIPLANE, "tiny")],
    ids=["3dconv", "triplane", "triplane, single-view"],
)
def test_a_step_with_a_tiny_multi_view_prior(tmp_path, monkeypatch, generator, prior):
    """And, for what a generator reads, with a single-view one, whose views word the prompt otherwise."""
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))
    (tmp_path / "prompts.txt").write_text("a cat\na red house\n")
    small = [o for o in SMALL if not (generator and o.startswith("generator"))]
    own = [f"guidance={'asd_mv' if prior == 'tiny_mv' else 'asd_sd'}", f"guidance/prior={prior}"]
    own += [f"corpus.path={tmp_path / 'prompts.txt'}", "corpus.batch_size=2", "trainer.max_steps=1"]
    run = trained_with([*small, *generator, *own], tmp_path / "run")
    figures = run.trainer.logged_metrics
    assert figures["train/score_norm"] > 0
    assert torch.isfinite(figures["train/loss"])
    if generator:  # it reads the prompts as they are, not as a view words them
        data = run.data.dataset
        read = data.embeddings.rows([0, 1]).tokens[:, 0]
        plain = run.system.guidance.prior.encode_text(data.prompts).tokens
        torch.testing.assert_close(read, plain.half().float(), rtol=0, atol=1e-3)
