"""Corpora by name, the user's own prompt files, and the options of ``corpus=``."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from scaledreamer.config.signature import problems_of_call
from scaledreamer.corpora.corpus import Corpus
from scaledreamer.corpora.files import Splits, read_prompts
from scaledreamer.corpora.sources import Source
from scaledreamer.errors import UserError

CONF = Path(__file__).parents[1] / "conf"
OPTIONS = sorted(path.stem for path in (CONF / "corpus").glob("*.yaml"))
STEPS = {
    "MG15": 50_000,
    "DF415": 100_000,
    "AT2520": 50_000,
    "DL17k": 100_000,
    "CP100k": 300_000,
    "prompt": 25_000,
    "file": 50_000,
}
FILES = {
    "MG15": "magic3d_15_prompt_library.json",
    "DF415": "dreamfusion_415_prompt_library.json",
    "AT2520": "att3d_2520_prompt_library.json",
    "DL17k": "instant3d_17000_prompt_library.json",
}


@pytest.fixture
def compose(tmp_path):
    """Compose ``corpus=OPTION`` with overrides, in a run that has nothing else."""
    from hydra import compose, initialize_config_dir

    (tmp_path / "primary").mkdir()
    (tmp_path / "primary" / "only.yaml").write_text(
        f"defaults: [corpus: file, _self_]\nhydra: {{searchpath: ['file://{CONF}']}}\n"
    )

    def composed(option: str, *overrides: str):
        with initialize_config_dir(str(tmp_path / "primary"), version_base="1.3"):
            return compose("only", overrides=[f"corpus={option}", *overrides])

    return composed


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "corpora").mkdir(parents=True)
    return tmp_path / "data" / "corpora"


class Fixed(Source):
    """A source of given lists."""

    def __init__(self, *splits: list[str]) -> None:
        self.splits = splits

    @property
    def origin(self) -> str:
        return "a list"

    def load(self) -> Splits:
        return Splits.of(*self.splits)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_fits_the_constructor(compose, option):
    cfg = compose(option, "corpus.path=my.txt", "corpus.batch_size=3", "corpus.holdout=unseen")
    assert cfg.trainer.max_steps == STEPS.get(option, cfg.trainer.max_steps)
    if option in STEPS:
        assert cfg.trainer.get("accumulate_grad_batches", 1) == (2 if option == "DL17k" else 1)
    arguments = OmegaConf.to_container(cfg.corpus, throw_on_missing=True)
    source = arguments.pop("source")
    arguments.pop("_target_")
    assert problems_of_call(Corpus, arguments, partial=False, supplied=frozenset()) == []
    if source is not None:
        target = type(instantiate(source))
        source.pop("_target_")
        assert problems_of_call(target, source, partial=False, supplied=frozenset()) == []
    corpus = instantiate(cfg.corpus, _convert_="all")
    assert (corpus.name, corpus.path, corpus.batch_size, corpus.holdout) == (option, "my.txt", 3, "unseen")


@pytest.mark.parametrize("option", OPTIONS)
def test_own_file_or_prompt_replaces_those_of_every_option(compose, option, tmp_path, caplog):
    own = tmp_path / "my.txt"
    own.write_text("a cat\na dog\n")
    corpus = instantiate(compose(option, f"corpus.path={own}").corpus, _convert_="all")
    prompts = corpus.load()
    assert prompts.train == prompts.val == prompts.test == ("a cat", "a dog")
    published = corpus.source is not None and corpus.source.sha256 is not None
    assert ("is not the published file" in caplog.text) == published
    assert published or option not in FILES
    one = instantiate(compose(option, 'corpus.prompt="a corgi, {sitting}"').corpus, _convert_="all").load()
    assert one.train == one.val == one.test == ("a corgi, {sitting}",)


@pytest.mark.parametrize(
    ("option", "counts"),
    [("MG15", (15, 15, 15)), ("DF415", (415, 16, 415)), ("AT2520", (2520, 56, 2520)), ("DL17k", (13551, 100, 100))],
)
def test_counts_of_the_published_corpora(compose, option, counts, corpora_folder, data_folder, caplog):
    caplog.set_level(logging.INFO)
    if option != "AT2520":  # spelled, needs no file
        shutil.copy(corpora_folder / FILES[option], data_folder)
    prompts = instantiate(compose(option).corpus, _convert_="all").load()
    assert (len(prompts.train), len(prompts.val), len(prompts.test)) == counts
    assert prompts.duplicates == {"train": 17241 - 13551 if option == "DL17k" else 0, "val": 0, "test": 0}
    assert f"{counts[0]} train" in caplog.text
    assert ("3690 of train's 17241" in caplog.text) == (option == "DL17k")


def test_unseen_leaves_the_65_new_prompts_of_dl17k(compose, corpora_folder, data_folder):
    shutil.copy(corpora_folder / FILES["DL17k"], data_folder)
    prompts = instantiate(compose("DL17k", "corpus.holdout=unseen").corpus, _convert_="all").load()
    assert len(prompts.test) == 65
    assert not set(prompts.test) & set(prompts.train)


@pytest.mark.parametrize("option", FILES)
def test_path_to_the_published_file_gives_no_warning(compose, option, corpora_folder, caplog):
    corpus = instantiate(compose(option, f"corpus.path={corpora_folder / FILES[option]}").corpus, _convert_="all")
    assert corpus.load().train
    assert "published" not in caplog.text


def test_duplicates_go_split_by_split_and_order_stays(caplog):
    caplog.set_level(logging.INFO)
    corpus = Corpus(name="c", source=Fixed(["b ", "a", " b", "", "c", "a"], ["a"], ["a", "d", "a"]))
    prompts = corpus.load()
    assert (prompts.train, prompts.val, prompts.test) == (("b", "a", "c"), ("a",), ("a", "d"))
    assert prompts.duplicates == {"train": 2, "val": 0, "test": 1}
    assert "2 of train's 5" in caplog.text


def test_holdout():
    source = Fixed(["a", "b"], ["a"], ["b", "c", "a", "d"])
    assert Corpus(name="c", source=source).load().test == ("b", "c", "a", "d")
    assert Corpus(name="c", source=source, holdout="unseen").load().test == ("c", "d")
    assert Corpus(name="c", source=source, holdout="unseen", max_prompts=1).load().test == ("c",)
    with pytest.raises(UserError, match=r"leaves no test prompt: all 2 of c are in train"):
        Corpus(name="c", source=Fixed(["a", "b"]), holdout="unseen").load()


def test_max_prompts_cuts_every_split():
    prompts = Corpus(name="c", source=Fixed(["a", "a", "b", "c"], ["d"], ["e", "f", "g"]), max_prompts=2).load()
    assert (prompts.train, prompts.val, prompts.test) == (("a", "b"), ("d",), ("e", "f"))


def test_contradicting_or_missing_prompts():
    with pytest.raises(UserError, match="both set"):
        Corpus(name="c", path="a.txt", prompt="a").load()
    with pytest.raises(UserError, match=r"corpus=file has no prompts of its own; set corpus\.prompt"):
        Corpus(name="file").load()
    with pytest.raises(UserError, match="blank"):
        Corpus(name="prompt", prompt=" ").load()


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", '{"train": ["a", " b "], "val": ["c"], "test": ["d"]}', (["a", "b"], ["c"], ["d"])),
        ("a.JSON", b'\xef\xbb\xbf["a", "b {x}"]', (["a", "b {x}"],) * 3),
        ("a.json", '{"train": ["a"], "test": ["t"]}', (["a"], ["t"], ["t"])),
        ("a.txt", "\ufeffa\r\n\n  # no\n caf\u00e9, {p}\nlast", (["a", "caf\u00e9, {p}", "last"],) * 3),
        ("a.txt", "a\u2028b\nc", (["a\u2028b", "c"],) * 3),  # only line ends end lines
        ("a.csv", "Prompt\n\"a, b\"\n\nc\n", (["a, b", "c"],) * 3),
        ("a.csv", "a cat\na dog\n", (["a cat", "a dog"],) * 3),
        ("a.csv", "id,split,caption\n1,train,a\n2,test,b\n3,validation,c\n", (["a"], ["c"], ["b"])),
        ("a.csv", 'text,prompt\nno,"say ""hi"""\n', (['say "hi"'],) * 3),
    ],
)  # fmt: skip
def test_own_files(tmp_path, name, content, expected):
    assert tuple(read_prompts(write(tmp_path / name, content))) == expected


def test_val_is_the_first_16_of_test(tmp_path):
    prompts = [f"p{i}" for i in range(40)]
    splits = read_prompts(write(tmp_path / "a.json", json.dumps(prompts)))
    assert (splits.val, splits.test) == (prompts[:16], prompts)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "is empty"),
        ("a.txt", "# only\n", "has no prompt to train on"),
        ("a.txt", b"fine\nbad \xff\n", "line 2: byte 0xff is not UTF-8"),
        ("a.txt", b"\xef\xbb\xbffine\nfine\nbad \xe9t\xe9\n", "line 3: byte 0xe9 is not UTF-8"),
        ("a.md", "a", r"'\.md' is not a kind of prompt file; use \.json, \.txt or \.csv"),
        ("a.json", '{"train": ["a",\n  }', "line 2 column 3: not JSON"),
        ("a.json", '{"prompts": ["a"]}', r"needs \{\"train\": .*it has 'prompts'"),
        ("a.json", "3", "needs"),
        ("a.json", '{"train": "a"}', "'train' must be a list of prompts, not str"),
        ("a.json", '{"train": ["a", 3]}', r"train\[1\] must be a string, not 3"),
        ("a.json", '{"train": ["a"], "val": ["b", null]}', r"val\[1\] must be a string, not null"),
        ("a.json", '{"train": ["", "  "]}', "has no prompt to train on"),
        ("a.json", '["\\ud800"]', r"train\[0\] has half of a surrogate pair"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.csv", "x,y\n1,2\n", "several columns, and none is named prompt, caption, text"),
        ("a.csv", "prompt\na, b\n", "line 2: 2 columns where the first line has 1"),
        ("a.csv", "id,prompt\n1\n", "line 2: 1 columns where the first line has 2"),
        ("a.csv", "prompt,split\na,dev\n", "line 2: split 'dev' is none of train, val, test"),
        ("a.csv", "prompt,split\na,test\n", "has no prompt to train on"),
        ("a.csv", 'prompt\n"a\n', "not CSV"),
    ],
)
def test_wrong_files_are_named_in_one_line(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as caught:
        read_prompts(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt: there is no such prompt file"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(UserError, match="is a folder"):
        read_prompts(tmp_path)


def test_unknown_splits_are_warned_of(tmp_path, caplog):
    read_prompts(write(tmp_path / "a.json", '{"train": ["a"], "valid": ["b"]}'))
    assert "ignoring 'valid'" in caplog.text
