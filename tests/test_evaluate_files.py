"""What evaluate.py writes, keeps, shows beside each other and refuses."""

import csv
import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from answers import answer
from evaluations import PROMPTS, open_shaken, options, rows_of, write_run
from test_loggers import wandb_records

from scaledreamer.errors import UserError
from scaledreamer.evaluate import job, table, views
from scaledreamer.evaluate.job import evaluate
from scaledreamer.evaluate.rows import Row, Rows

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """See ``write_run``."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALEDREAMER_DATA", str(folder / "data"))
        write_run(folder)
    return folder


@pytest.fixture
def run(base, tmp_path, monkeypatch) -> Path:
    """A copy of the run, whose weights are shaken when it is opened."""
    monkeypatch.setenv("SCALEDREAMER_DATA", str(base / "data"))
    monkeypatch.setattr(job, "open_run", open_shaken)
    return Path(shutil.copytree(base / "first", tmp_path / "mine")) / "run"


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """Prompts that are looked at, in order."""
    found: list[str] = []
    real = views.scored

    def counting(trained, prompts, **given):
        found.extend(prompts)
        return real(trained, prompts, **given)

    monkeypatch.setattr(job, "scored", counting)
    return found


# -- files -------------------------------------------------------------------------------------------------------


def test_the_files_agree(base, run):
    (found,) = evaluate(options(base, run))
    folder = run / "evaluate" / "scaledreamer"
    with (folder / "prompts.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = rows_of(run)
    assert [line["prompt"] for line in lines] == list(rows) == list(PROMPTS)
    for line in lines:
        row = rows[line["prompt"]]
        assert {name: str(value) for name, value in row.items()} == line
    content = json.loads((folder / "summary.json").read_text())
    assert (content["step"], content["run"]) == (2, str(run))
    assert content["protocol"] == found.protocol
    for name, group in found.groups.items():
        assert content["groups"][name]["prompts"] == group.prompts
        assert content["groups"][name]["measures"] == {m: list(v) for m, v in group.measures.items()}
    mean = sum(row["similarity"] for row in rows.values()) / len(rows)
    assert content["groups"]["all"]["measures"]["similarity"][0] == pytest.approx(mean)


def test_the_table_of_a_run(base, run, capsys):
    table.show(evaluate(options(base, run)))
    printed = capsys.readouterr().out
    for words in ("protocol scaledreamer: clip, 6 views of 16 pixels", "mine/run, step 2", "all (6)"):
        assert words in printed
    for words in ("seen (4)", "unseen (2)", "seen - unseen", "file train+test (6 texts, "):
        assert words in printed
    (line,) = [line for line in printed.splitlines() if "CLIP similarity" in line]
    mean = sum(row["similarity"] for row in rows_of(run).values()) / 6
    assert line.split("│")[2].split()[0] == f"{mean:.3f}"


# -- what is kept ------------------------------------------------------------------------------------------------


def test_what_is_scored_is_kept_and_needs_no_clip(base, run, asked, monkeypatch):
    first = evaluate(options(base, run))
    assert asked == list(PROMPTS)
    monkeypatch.setattr(views.Judge, "of", lambda *_: pytest.fail("loaded the CLIP"))
    again = evaluate(options(base, run))
    assert asked == list(PROMPTS)
    assert first == again
    monkeypatch.undo()


def test_overwrite_scores_anew(base, run, asked):
    evaluate(options(base, run))
    evaluate(options(base, run, prompts="test", overwrite=True))
    assert asked == [*PROMPTS, "a cat", "a tree", "a green bird on a rock"]
    evaluate(options(base, run))  # the others are still known
    assert len(asked) == 9


def test_a_call_that_dies_goes_on_where_it_was(base, run, monkeypatch):
    scored, done = views.scored, []

    def dying(trained, prompts, **given):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(prompts)
        return scored(trained, prompts, **given)

    monkeypatch.setattr(job, "scored", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(options(base, run, batch=2))
    (rows,) = (run / "evaluate" / "scaledreamer").glob("rows-*.jsonl")
    assert len(rows.read_text().splitlines()) == 1 + 4
    with rows.open("a") as file:  # half of a line, as a killed process leaves it
        file.write('{"prompt": "a tree", "in_gall')
    done.clear()
    (found,) = evaluate(options(base, run, batch=2))
    assert done == [["a tree", "a green bird on a rock"]]
    assert found.groups["all"].prompts == 6
    header, *kept = map(json.loads, rows.read_text().splitlines())
    assert header["recipe"] == found.recipe
    assert sorted(row["prompt"] for row in kept) == sorted(PROMPTS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["protocol.views=4"], "protocol"),
        (["gallery=test"], "gallery"),
        (["checkpoint=step-0000001"], "step, weights"),
    ],
)
def test_another_protocol_gallery_or_checkpoint_begins_anew_and_says_so(base, run, asked, caplog, change, words):
    caplog.set_level("INFO")
    evaluate(options(base, run, prompts=["a cat"]))
    assert "scored anew" not in caplog.text
    (other,) = evaluate(options(base, run, *change, prompts=["a cat"]))
    assert asked == ["a cat", "a cat"]
    assert f"scored anew: what was scored before had another {words}" in caplog.text
    assert json.loads((run / "evaluate" / "scaledreamer" / "summary.json").read_text())["step"] == other.step
    evaluate(options(base, run, prompts=["a cat"]))  # and back: that is known
    assert len(asked) == 2


def test_rows_take_the_last_of_two(tmp_path):
    rows = Rows(tmp_path, {"a": 1})
    rows.add([Row("x", True, {"similarity": 0.1}), Row("é\n", False, {})])
    rows.add([Row("x", True, {"similarity": 0.2})])
    assert Rows(tmp_path, {"a": 1}).known == rows.known
    assert rows.known["x"].measures == {"similarity": 0.2}
    assert Rows(tmp_path, {"a": 2}).known == {}


def test_two_calls_do_not_write_into_one_folder(base, run, monkeypatch):
    def second(*arguments):
        with pytest.raises(UserError, match=r"^run: another process evaluates into "):
            evaluate(options(base, run))
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_scored_and_written", second)
    with pytest.raises(KeyboardInterrupt):
        evaluate(options(base, run))


# -- several runs ------------------------------------------------------------------------------------------------


def test_several_runs_side_by_side_with_one_clip(base, run, tmp_path, monkeypatch, capsys):
    other = Path(shutil.copytree(run, tmp_path / "mine" / "other"))
    loaded, real = [], views.Judge.of
    monkeypatch.setattr(views.Judge, "of", lambda *given: (loaded.append(given), real(*given))[1])
    found = evaluate(dataclasses.replace(options(base, run), run=[str(run), str(other), str(run)]))
    assert len(loaded) == 1
    assert [evaluation.directory for evaluation in found] == [run, other]
    assert rows_of(run) == rows_of(other)
    table.show(found)
    printed = capsys.readouterr().out
    assert "run, step 2" in printed
    assert "other, step 2" in printed
    (line,) = [line for line in printed.splitlines() if "CLIP similarity" in line]
    cells = [cell.strip() for cell in line.split("│")[2:-1]]
    assert cells[0] == "all"
    assert cells[1] == cells[2] != ""


# -- W&B ---------------------------------------------------------------------------------------------------------


def test_wandb_gets_the_means_into_the_runs_own_summary(base, run, monkeypatch, tmp_path):
    for key in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    (found,) = evaluate(options(base, run, prompts=["a cat", "a tree"], log_to_wandb=True))
    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    assert path.stem.startswith("run-mine-run-")  # the id that training gives this folder
    records = list(wandb_records(path))
    items = [item for r in records if r.HasField("summary") for item in r.summary.update]
    stored = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
    assert found.figures["evaluate/scaledreamer/seen/similarity"] == rows_of(run)["a cat"]["similarity"]
    for name, value in found.figures.items():
        assert stored[name] == pytest.approx(value)


# -- what is refused ---------------------------------------------------------------------------------------------

WRONG = {
    "": "run: is required; set run=...",
    "run=nowhere": "run: nowhere is no folder; give one that train.py has made, run=outputs/NAME/TIME.",
    "run=[RUN,nowhere]": "run: nowhere is no folder;",
    "run=[]": "run: input should be a valid string, or list should have at least 1 item",
    "run=null": "run: input should be a valid string, or input should be a valid array, not None. [command line",
    "run=RUN prompts=tset": "prompts: 'tset' is no split, did you mean 'test'?",
    "run=RUN prompts=['']": "prompts: number 1 is blank; write one.",
    "run=RUN sample=0": "sample: input should be greater than or equal to 1, not 0.",
    "run=RUN gallery=tset": "gallery: 'tset' is neither a prompt file nor one of train, val, test, all; give one, or",
    "run=RUN gallery=empty.txt": "gallery: empty.txt is empty; put at least one prompt into it.",
    "run=RUN protocol=toybx": "protocol=toybx: no such option; did you mean 'toybox'?",
    "run=RUN protocol=prd protocol.view=3": "protocol.view: no such key; did you mean 'views'? [",
    "run=RUN protocol=prd protocol.views=0": "protocol.views: input should be greater than or equal to 1, not 0.",
    "run=RUN protocol=prd protocol.elevation=90": "protocol.elevation: input should be less than or equal to 89, ",
    "run=RUN protocol=prd protocol.name=a/b": "protocol: name=a/b cannot be a folder's; use letters, ",
    "run=RUN protocol=prd protocol.front=front": "protocol.front: a template must contain {prompt}, not 'front'.",
    "run=RUN protocol=prd protocol.background=red": "protocol.background: input should be 'learned', 'white', ",
    "run=RUN protocol=toybox protocol.views=6": "protocol: views=6 must be a multiple of 4: toys are turned by ",
    "run=RUN protocol.toybox.background=white": "protocol: background=white must be grey: that is behind the ",
    "run=RUN protocol=toybox": "'a cat' is no toy of the toybox; write a colour and a kind, as in ",
    "run=RUN protocol=prd protocol.clip=nowhere": "protocol.clip: there is no folder 'nowhere'; give one in ",
    "run=RUN protocol=prd protocol.clip=RUN": "RUN/config.json is missing: that is no CLIP in transformers' layout; ",
    "run=RUN protocol=prd": "cannot download openai/clip-vit-base-patch32 (",
    "run=RUN protocl=prd": "protocl: no such key; did you mean 'protocol'?",
    "run=RUN device=tpu": "device=tpu: choose auto, cpu, cuda or cuda:N.",
    "run=RUN checkpoint=step-7": "checkpoint=step-7: no such file; run=",
    "run=EMPTY": "run=EMPTY has no checkpoint",
    "-m run=RUN,nowhere": "run: nowhere is no folder;",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_mistake_is_one_line(base, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    shutil.copytree(base / "first" / "run", "EMPTY", ignore=shutil.ignore_patterns("checkpoints"))
    shutil.copytree(base / "first" / "run", "RUN")
    Path("empty.txt").touch()
    found = answer(*arguments.split(), capsys=capsys, monkeypatch=monkeypatch, script="evaluate")
    assert found.error.splitlines()[0].startswith(WRONG[arguments])
    assert len(found.error.splitlines()) == 1
    assert not list(tmp_path.rglob("summary.json"))


# -- the command -------------------------------------------------------------------------------------------------


def test_the_command_scores_a_run(base, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = set(os.listdir(tmp_path))
    small = ["protocol=prd", f"protocol.clip={base / 'clip'}", "protocol.size=16", "prompts=test", "device=cpu"]
    found = answer(f"run={run}", *small, capsys=capsys, monkeypatch=monkeypatch, script="evaluate")
    assert found.code == 0, found.errors
    assert "picture 12/12" in found.errors  # 3 prompts, 4 views
    folder = run / "evaluate" / "prd"
    (rows,) = folder.glob("rows-*.jsonl")
    names = sorted(p.name for p in folder.iterdir() if p.name != ".lock")
    assert names == ["prompts.csv", "prompts.json", rows.name, "summary.json"]
    assert set(os.listdir(tmp_path)) == before
