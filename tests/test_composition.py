"""The option files: each composes, and together they are the paper's runs, number by number."""

import copy
import functools
import json
from pathlib import Path
from typing import Any

import pytest

from scaledreamer.config import CONF, check, compose, plain
from scaledreamer.config.sweep import jobs, sweep_of
from scaledreamer.guidance.timesteps import TimestepSchedule
from scaledreamer.schedules import value_at
from scaledreamer.training.build import build

PAPER = ("generator=3dconv", "corpus=DF415", "guidance=asd_sd")


def composed(*overrides: str) -> dict[str, Any]:
    """The checked, plain configuration of a command line; with Stable Diffusion for prompts that are no toys."""
    other = any(o.startswith("corpus=") and "toybox" not in o for o in overrides)
    chosen = any(o.startswith(("guidance=", "experiment=")) for o in overrides)
    return copy.deepcopy(_composed((*overrides, "guidance=asd_sd") if other and not chosen else overrides))


@functools.cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    cfg = compose(overrides)
    check(cfg)
    return plain(cfg)


def at(config: dict[str, Any], key: str) -> Any:
    node = config
    for part in key.split("."):
        node = node[part]
    return node


@pytest.fixture(scope="module")
def paper() -> dict[str, Any]:
    return composed(*PAPER)


# -- the paper's numbers -----------------------------------------------------------------------------------------

DF415 = {
    # Asynchronous score distillation
    "guidance.rule._target_": "scaledreamer.guidance.rules.asd",
    "guidance.rule.guidance_scale": 7.5,
    "guidance.rule.eta": 0.1,
    "guidance.rule.random_shift": True,
    "guidance.timesteps.low": [[0, 0.5], [1, 0.02]],
    "guidance.timesteps.high": [[0, 0.98], [1, 0.5]],
    "guidance.weighting": "sds",
    "guidance.grad_clip": None,
    # Stable Diffusion 2.1-base, view prompts and Perp-Neg
    "guidance.prior.path": "sd21",
    "guidance.prior.negative_prompt": "",
    "guidance.prior.image_size": None,
    "guidance.views.front_threshold": 30,
    "guidance.views.back_threshold": 30,
    "guidance.views.overhead_threshold": 60,
    "guidance.views.perp_neg": 0.5,
    # 3DConv-net
    "generator._target_": "scaledreamer.generators.conv3d.Conv3DGenerator",
    "generator.radius": 2,
    "generator.sphere_radius": 0.8,
    "generator.normal_eps": 0.01,
    "generator.resolution": 128,
    "generator.widths": [512, 512, 512, 256, 128, 64],
    "generator.channel_multiplier": 1,
    "generator.channels": 32,
    "generator.latent_dim": 64,
    "generator.w_dim": 256,
    "generator.bias_resolution": 64,
    "generator.hidden": 64,
    "generator.noise": "random",
    # Background
    "background._target_": "scaledreamer.backgrounds.EnvironmentMap",
    "background.hidden": 16,
    "background.random_color_probability": 0.5,
    "background.widened": False,
    # Optimizer
    "optimizer._target_": "torch.optim.Adam",
    "optimizer.lr": 4e-3,
    "optimizer.betas": [0, 0.99],
    "parameter_groups": {"background": {"lr": 1e-3}},
    # Losses over the run
    "losses.distillation": 1,
    "losses.sparsity": 20,
    "losses.opaque": [[0.8, 0], [1, 10]],
    "losses.eikonal": [[0, 100], [0.1, 1]],
    # Renderer
    "renderer._target_": "scaledreamer.renderers.volsdf.VolSDFRenderer",
    "renderer.proposals": 128,
    "renderer.samples": 64,
    "renderer.log_inv_std": 0.340119,
    "renderer.near": 0.1,
    "renderer.far": 4.0,
    "renderer.alpha": "linear",
    # Cameras
    "cameras.distance": [1.0, 1.5],
    "cameras.fovy": [40, 70],
    "cameras.azimuth": [-180, 180],
    "cameras.elevation": [-10, 45],
    "cameras.views_per_prompt": 1,
    "cameras.image_size": 64,
    "cameras.test_distance": 1.5,
    "cameras.test_fovy": 70,
    "cameras.test_elevation": 15,
    "cameras.test_image_size": 512,
    # The run
    "corpus.batch_size": 1,
    "corpus.holdout": "published",
    "trainer.max_steps": 100_000,
    "trainer.accumulate_grad_batches": 1,
    "trainer.gradient_clip_val": None,
    "trainer.precision": "32-true",
}


@pytest.mark.parametrize("key", DF415)
def test_the_run_on_df415(paper, key):
    assert at(paper, key) == DF415[key]


def test_defaults_that_the_files_do_not_spell(paper):
    views = build(paper["guidance"]["views"])
    sides = ("side", "front", "back", "overhead")
    assert views.templates == tuple(f"{{prompt}}, {side} view" for side in sides)
    cameras = build(paper["cameras"])
    assert (cameras.layout, cameras.relative_distance) == ("independent", False)


def test_noise_levels_anneal_over_the_whole_run(paper):
    schedule: TimestepSchedule = build(paper["guidance"]["timesteps"])
    assert schedule.bounds(0.0, 1000) == (500, 980)
    assert schedule.bounds(0.5, 1000) == (260, 740)
    assert schedule.bounds(1.0, 1000) == (20, 500)


def test_losses_over_the_run(paper):
    opaque, eikonal = paper["losses"]["opaque"], paper["losses"]["eikonal"]
    assert [value_at(opaque, p) for p in (0, 0.8, 0.9, 1)] == pytest.approx([0, 0, 5, 10])
    assert [value_at(eikonal, p) for p in (0, 0.05, 0.1, 1)] == pytest.approx([100, 50.5, 1, 1])


def test_the_run_on_cp100k():
    config = composed("corpus=CP100k", "generator=3dconv_m2")
    assert config["trainer"]["max_steps"] == 300_000
    assert config["optimizer"]["_target_"] == "scaledreamer.optim.adan.Adan"
    assert config["optimizer"]["betas"] == [0.98, 0.92, 0.99]
    assert config["optimizer"]["eps"] == 1e-15
    same = composed(*PAPER)["generator"]
    assert config["generator"] == {**same, "channel_multiplier": 2}


def test_the_rules_that_the_paper_compares():
    rules = {name: composed(f"guidance={name}_sd")["guidance"] for name in ("asd", "sds", "csd")}
    assert rules["sds"]["rule"]["guidance_scale"] == 100
    assert rules["csd"]["rule"]["guidance_scale"] == 7.5
    rest = [{key: value for key, value in guidance.items() if key != "rule"} for guidance in rules.values()]
    assert rest[0] == rest[1] == rest[2]


# -- corpora -----------------------------------------------------------------------------------------------------

RUNS = [  # corpus, its published file, prompts (train, val, test), of them distinct in train, steps, accumulated
    ("MG15", "magic3d_15_prompt_library.json", (15, 15, 15), 15, 50_000, 1),
    ("DF415", "dreamfusion_415_prompt_library.json", (415, 16, 415), 415, 100_000, 1),
    ("AT2520", None, (2520, 56, 2520), 2520, 50_000, 1),
    ("DL17k", "instant3d_17000_prompt_library.json", (17241, 100, 100), 13551, 100_000, 2),
    ("CP100k", None, None, None, 300_000, 1),
    ("prompt", None, (1, 1, 1), 1, 25_000, 1),
]


@pytest.mark.parametrize(("corpus", "file", "prompts", "distinct", "steps", "accumulated"), RUNS)
def test_corpora_bring_their_prompts_and_steps(
    corpora_folder, monkeypatch, corpus, file, prompts, distinct, steps, accumulated
):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(corpora_folder.parent))
    config = composed(f"corpus={corpus}", *(["corpus.prompt=a corgi"] if corpus == "prompt" else []))
    assert config["trainer"]["max_steps"] == steps
    assert config["trainer"]["accumulate_grad_batches"] == accumulated
    if prompts is None:  # to be built by the user
        return
    if file is not None:
        assert config["corpus"]["source"]["file"] == file
    loaded = build(config["corpus"]).load()
    sizes = {name: len(getattr(loaded, name)) + loaded.duplicates[name] for name in ("train", "val", "test")}
    assert tuple(sizes.values()) == prompts
    assert len(loaded.train) == distinct


def test_what_the_splits_share(corpora_folder, monkeypatch):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(corpora_folder.parent))

    def load(*overrides: str):
        return build(composed(*overrides)["corpus"]).load()

    assert all((prompts := load(f"corpus={name}")).train == prompts.test for name in ("MG15", "DF415", "AT2520"))
    large = load("corpus=DL17k")
    assert large.val == large.test
    assert len(set(large.test) & set(large.train)) == 35
    assert len(load("corpus=DL17k", "corpus.holdout=unseen").test) == 65


def test_at2520_is_spelled_as_published(corpora_folder):
    published = json.loads((corpora_folder / "att3d_2520_prompt_library.json").read_text("utf-8"))
    spelled = build(composed("corpus=AT2520")["corpus"]).load()
    assert list(spelled.train) == published["train"]
    assert list(spelled.val) == published["val"]
    assert list(spelled.test) == published["test"]


# -- every file --------------------------------------------------------------------------------------------------

ONE_PROMPT = ["corpus=prompt", "corpus.prompt=a corgi"]

COMPANIONS = {
    "corpus=prompt": ["corpus.prompt=a corgi"],
    "corpus=file": ["corpus.path=prompts.txt"],
    "generator=ingp": ONE_PROMPT,
    "generator=ingp_mv": ONE_PROMPT,
    "generator=ingp_toy": ["corpus.prompt=a red duck"],
    "renderer=nerf": ["generator=ingp", *ONE_PROMPT],
    "experiment=one_prompt_sd": ["corpus.prompt=a corgi"],
    "experiment=one_prompt_mv": ["corpus.prompt=a corgi"],
    "hydra/launcher=slurm_8gpu": ["trainer=ddp"],
    "hydra/launcher=slurm_multinode": ["trainer=ddp", "trainer.num_nodes=2"],
}
"""What an option leaves to the user."""


def options() -> list[list[str]]:
    """The choice that selects each option file, found by their places."""
    chosen = []
    for path in sorted(CONF.glob("*/**/*.yaml")):
        group = path.parent.relative_to(CONF)
        if group.parts[0] in ("protocol", "callback"):  # of evaluate.py; of options that take it in
            continue
        if group.parts[0] == "size" and len(group.parts) > 1:  # size/generator/small_3dconv.yaml goes with two choices
            size, _, option = path.stem.partition("_")
            chosen.append([f"size={size}", f"{group.name}={option}"])
        else:
            chosen.append([f"{group.as_posix()}={path.stem}"])
    return chosen


@pytest.mark.parametrize("choice", options(), ids=" ".join)
def test_every_option_composes_and_passes(choice):
    config = composed(*choice, *(more for option in choice for more in COMPANIONS.get(option, [])))
    assert config["name"]


@pytest.mark.parametrize("path", sorted(CONF.glob("*/**/*.yaml")), ids=lambda p: p.relative_to(CONF).as_posix())
def test_every_option_says_what_it_is(path: Path):
    lines = path.read_text("utf-8").splitlines()
    said = [line for line in lines[:2] if line.startswith("# ") and not line.startswith("# @package")]
    assert said or path.is_relative_to(CONF / "size")


# -- one value, one place ----------------------------------------------------------------------------------------


def test_a_shorter_run_has_the_same_schedules():
    usual, short = composed(*PAPER), composed(*PAPER, "trainer.max_steps=300")
    assert short["trainer"].pop("max_steps") == 300
    assert usual["trainer"].pop("max_steps") == 100_000
    assert short == usual


def test_each_choice_changes_its_own_nodes_only():
    """A generator brings its optimizer, a prior its cameras, a corpus its steps; nothing else follows a choice."""
    usual = composed(*PAPER)

    def changed(*overrides: str) -> set[str]:
        other = composed(*PAPER, *overrides)
        return {key for key in usual if usual[key] != other[key]} - {"name"}

    assert changed("generator=3dconv_m2") == {"generator", "optimizer"}
    assert changed("guidance/prior=sd15") == {"guidance"}
    assert changed("corpus=MG15") == {"corpus", "trainer"}
    assert changed("logger=none") == {"logger"}


def test_an_experiment_counts_after_the_choices_and_before_the_command_line():
    assert composed("experiment=trial", "corpus=DF415")["trainer"]["max_steps"] == 20
    assert composed("experiment=trial", "trainer.max_steps=7")["trainer"]["max_steps"] == 7
    assert composed("experiment=trial", "trainer=auto")["trainer"]["accelerator"] == "auto"


def test_names_tell_runs_apart():
    assert composed(*PAPER)["name"] == "3dconv_DF415_asd_sd"
    assert composed("name=mine")["name"] == "mine"


# -- sweeps of several numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count"), [("hparams_toybox", 27), ("hparams_sd", 18)])
def test_hparams_are_learning_rate_by_scale_by_eta(name, count):
    cfg = compose([f"experiment={name}"])
    check(cfg)
    combinations = jobs(sweep_of(cfg.hydra))
    assert len({tuple(job) for job in combinations}) == count
    keys = ["optimizer.lr", "guidance.rule.guidance_scale", "guidance.rule.eta"]
    for job in combinations:
        assert [override.partition("=")[0] for override in job] == keys
    for job in (combinations[0], combinations[-1]):
        config = composed(f"experiment={name}", *job)
        assert [at(config, key) for key in keys] == [float(override.partition("=")[2]) for override in job]
