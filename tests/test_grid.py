"""Every generator with every prior and renderer: composes or says why not, and takes a training step."""

import itertools
import math

import pytest
import torch
from runs import prepared

from scaledreamer.config import CONF, check, compose
from scaledreamer.errors import UserError

GENERATORS = sorted(path.stem for path in (CONF / "generator").glob("*.yaml"))
RENDERERS = sorted(path.stem for path in (CONF / "renderer").glob("*.yaml"))
GUIDANCES = ("asd_sd", "asd_mv", "asd_toy", "asd_toymv")
ONE_PROMPT = tuple(name for name in GENERATORS if name.startswith("ingp"))  # a hash grid per prompt, rendered as NeRF


def command(generator: str, guidance: str, renderer: str) -> list[str]:
    toy = "toy" in guidance
    corpus = ["corpus=toybox"] if toy else ["corpus=AT2520"]
    if generator in ONE_PROMPT:
        corpus = ["corpus=prompt", f"corpus.prompt='a red {'duck' if toy else 'corgi'}'"]
    return [f"generator={generator}", f"guidance={guidance}", *corpus, f"renderer={renderer}"]


@pytest.mark.parametrize(
    ("generator", "guidance", "renderer"), list(itertools.product(GENERATORS, GUIDANCES, RENDERERS)), ids=str
)
def test_a_combination_composes_or_says_why_not(generator, guidance, renderer):
    fits = (generator in ONE_PROMPT) == (renderer == "nerf")
    cfg = compose(command(generator, guidance, renderer))
    if fits:
        check(cfg)
        return
    with pytest.raises(UserError, match=r"^renderer: \w+ renders \w+ fields, but \w+ makes \w+ fields"):
        check(cfg)


TINY = {"asd_sd": ["guidance/prior=tiny"], "asd_mv": ["guidance/prior=tiny_mv"], "asd_toy": [], "asd_toymv": []}
STEPPED = [name for name in GENERATORS if name not in ("3dconv_m2", "3dconv_toy_deep")]  # a size of another one each


SHORT = (
    *("size=small", "trainer=cpu", "trainer.max_steps=1", "trainer.log_every_n_steps=1", "cameras.image_size=8"),
    *("corpus.batch_size=1", "corpus.max_prompts=1", "logger=none", "callbacks.previews=null"),
    *("callbacks.checkpoints=null", "callbacks.progress=null"),
)


@pytest.fixture(scope="module")
def _data(tmp_path_factory, one_thread):
    """Text embeddings are stored once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALEDREAMER_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.mark.usefixtures("_data")
@pytest.mark.parametrize(("generator", "guidance"), list(itertools.product(STEPPED, GUIDANCES)), ids=str)
def test_a_combination_takes_a_step(generator, guidance, tmp_path):
    renderer = "nerf" if generator in ONE_PROMPT else "volsdf"
    chosen = command(generator, guidance, renderer)
    unscored = ["callbacks.toybox=null"] if "corpus=toybox" in chosen else []
    run, config = prepared([*chosen, *TINY[guidance], *SHORT, *unscored], tmp_path)
    before = {name: value.clone() for name, value in run.system.generator.named_parameters()}
    run.trainer.fit(run.system, datamodule=run.data)
    assert math.isfinite(run.trainer.callback_metrics["train/loss"])
    assert any(not torch.equal(value, before[name]) for name, value in run.system.generator.named_parameters())
    assert config["cameras"]["views_per_prompt"] % (4 if "mv" in guidance else 1) == 0
