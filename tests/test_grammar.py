"""Corpora spelled by a grammar."""

import json
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from scaledreamer.corpora.grammar import Grammar, sentences
from scaledreamer.errors import UserError

OPTION = Path(__file__).parents[1] / "conf" / "corpus" / "AT2520.yaml"


def test_first_place_changes_slowest():
    words = {"animal": ["a pig", "a {cat}"], "doing": ["running", "asleep"], "unused": ["x"]}
    assert sentences("{animal} {doing}!", words) == [
        "a pig running!", "a pig asleep!", "a {cat} running!", "a {cat} asleep!"
    ]  # fmt: skip
    assert sentences("{animal} and {animal}", words) == ["a pig and a pig", "a {cat} and a {cat}"]
    assert sentences("no place", words) == ["no place"]


def test_splits():
    splits = Grammar(train="a {x}", val="the {x}", words={"x": ["b", "c"]}).load()
    assert tuple(splits) == (["a b", "a c"], ["the b", "the c"], ["a b", "a c"])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{animal} {colour}", "no words for 'colour'; words are given for 'animal', 'none'"),
        ("{none}", "no words for 'none'"),
        ("{animal", "malformed"),
        ("{}", "no words for ''"),
    ],
)
def test_wrong_patterns(pattern, message):
    with pytest.raises(UserError, match=message):
        Grammar(train=pattern, words={"animal": ["a pig"], "none": []}).load()


def test_at2520_equals_the_published_file(corpora_folder):
    published = json.loads((corpora_folder / "att3d_2520_prompt_library.json").read_text("utf-8"))
    splits = instantiate(OmegaConf.load(OPTION).corpus.source, _convert_="all").load()
    for name, prompts in splits._asdict().items():
        assert len(prompts) == len(set(prompts))
        assert set(prompts) == set(published[name])
    assert splits.train == published["train"]  # in the same order, too


def test_at2520_without_the_published_file():
    splits = instantiate(OmegaConf.load(OPTION).corpus.source, _convert_="all").load()
    assert len(set(splits.train)) == 10 * 7 * 6 * 6
    assert len(set(splits.val)) == 56
    assert "an orangutan wielding a katana wearing a medieval armor wearing a tophat" in splits.train
