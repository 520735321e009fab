"""CP100k from Cap3D's captions."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from scaledreamer.corpora.cap3d import FILE, Count, build, captions, choose, main
from scaledreamer.errors import UserError

ROOT = Path(__file__).parents[1]


def read(path):
    count = Count()
    return list(captions(path, count)), count


def test_captions(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text(
        "\ufeffuid,caption\n"
        'u1,"a chair, with ""red"" legs"\n'
        "u2,  a   cat \n"
        "\n"
        "u3,a dog, asleep\n"
        'u4,"""a whole quote"""\n'
        "u5,\n"
        "u6\n"
        ",without id\n"
        "u7,caption\n",
        "utf-8",
    )
    found, count = read(path)
    assert found == ['a chair, with "red" legs', "a cat", "a dog, asleep", "a whole quote", "caption"]
    assert (count.rows, count.unusable) == (8, 3)


def test_no_header_loses_no_row(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("u1,a cat\nu2,a dog\n")
    assert read(path)[0] == ["a cat", "a dog"]


def test_choice_depends_on_the_texts_and_the_seed_alone():
    texts = [f"text {i}" for i in range(1000)]
    chosen = choose(texts, size=50, seed=0)
    shuffled = texts * 3
    random.Random(0).shuffle(shuffled)
    assert choose(shuffled, size=50, seed=0) == chosen
    assert len(set(chosen)) == 50
    assert choose(texts, size=20, seed=0) == chosen[:20]  # a smaller choice is the beginning of a larger one
    assert set(choose(texts, size=50, seed=1)) != set(chosen)
    assert sorted(choose(texts, size=2000, seed=0)) == sorted(texts)


def test_command_builds_what_the_option_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))
    path = tmp_path / "c.csv"
    path.write_text("".join(f"u{i},thing {i // 2}\n" for i in range(1000)))
    assert main([str(path), "--size", "300", "--val", "10", "--test", "20"]) == 0
    assert "1000 rows, 0 without a caption" in capsys.readouterr().out
    content = json.loads((tmp_path / "data" / "corpora" / FILE).read_text("utf-8"))
    assert [len(content[name]) for name in ("train", "val", "test")] == [270, 10, 20]
    everything = [prompt for split in content.values() for prompt in split]
    assert len(set(everything)) == 300
    option = OmegaConf.load(ROOT / "conf" / "corpus" / "CP100k.yaml").corpus
    splits = instantiate(option.source).load()
    assert splits.train == content["train"]
    assert [p.name for p in (tmp_path / "data" / "corpora").iterdir()] == [FILE]


def test_runs_as_a_module_with_one_line_for_mistakes(tmp_path):
    command = [sys.executable, "-m", "scaledreamer.corpora.cap3d", str(tmp_path / "none.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "none.csv" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (b"u,a\nu,\xff\n", {}, "line 2: byte 0xff is not UTF-8"),
        (b'u,a\nu,"b"c\n', {}, "line 2: not CSV"),
        (b"one column\n", {}, "has no caption; it must have two columns"),
        (b"u,a\nu,b\nu,c\n", {}, "only 3 distinct captions; lower --val 2 and --test 2"),
        (b"u,a\n", {"size": 4}, "--size 4 leaves nothing to train on"),
        (b"u,a\n", {"val": 0}, "must be at least 1"),
    ],
)
def test_mistakes(tmp_path, content, arguments, message):
    (tmp_path / "c.csv").write_bytes(content)
    out = tmp_path / "out.json"
    with pytest.raises(UserError, match=message):
        build(tmp_path / "c.csv", out, **{"size": 10, "val": 2, "test": 2, "seed": 0, **arguments})
    assert [p.name for p in tmp_path.iterdir()] == ["c.csv"]


PEAK = """
import re, sys
from pathlib import Path
from scaledreamer.corpora.cap3d import build

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

folder = Path(sys.argv[1])
build(folder / "small.csv", folder / "out.json", size=2000, val=100, test=100, seed=0)
before = peak()
print(build(folder / "large.csv", folder / "out.json", size=2000, val=100, test=100, seed=0))
print("grown by", peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of the process's memory")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    for name, rows in (("small", 5000), ("large", 300_000)):
        lines = (f"{i},a thing of number {i % 250_000} among very many others of its kind\n" for i in range(rows))
        (tmp_path / f"{name}.csv").write_text("".join(lines))
    command = [sys.executable, "-c", PEAK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "300000 rows" in done.stdout
    assert int(done.stdout.split()[-1]) < 4000  # kB; the captions alone are 15,000, their hashes another 10,000
