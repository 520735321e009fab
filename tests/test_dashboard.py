"""The table of what is logged, and the workspace that is made of it."""

import re

import pytest
import wandb

from scaledreamer.dashboard import SECTIONS, expression, main, panels, table, workspace
from scaledreamer.errors import UserError
from scaledreamer.training.logged import LOGGED, find


def test_every_family_has_its_place():
    placed = [family for section in SECTIONS for _, families in panels(section) for family in families]
    assert sorted(f.name for f in placed) == sorted(f.name for f in LOGGED if f.panel)
    assert all(families for section in SECTIONS for _, families in panels(section))
    assert [f.name for f in LOGGED if not f.panel] == ["epoch"]


def test_kinds_do_not_mix_in_a_panel():
    assert all(len({f.kind for f in families}) == 1 for section in SECTIONS for _, families in panels(section))


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("train/grad_norm", "train/grad_norm"),
        ("train/grad_norm/generator.synthesis", "train/grad_norm/GROUP"),
        ("weight/opaque", "weight/TERM"),
        ("toybox/unseen/iou", "toybox/SPLIT/MEASURE"),
        ("toybox/sheet", "toybox/sheet"),
        ("evaluate/prd/gap/similarity", "evaluate/PROTOCOL/SPLIT/MEASURE"),
    ],
)
def test_names_are_found(name, family):
    found = find(name)
    assert found is not None
    assert found.name == family


def test_unknown_names_are_not_found():
    assert find("train/losses") is None
    assert find("train/lr") is None
    assert find("xtrain/loss") is None


def test_expressions_match_whole_names():
    (gradients,) = [families for title, families in panels("Training") if title == "Gradients"]
    matches = re.compile(expression(gradients)).match
    assert matches("train/grad_norm")
    assert matches("train/grad_norm/background")
    assert not matches("train/grad_norm/a/b")
    assert not matches("train/grad")


def test_the_table_has_every_name_once(capsys):
    main([])
    printed = capsys.readouterr().out
    assert printed.strip() == table().strip()
    for family in LOGGED:
        assert printed.count(f"| `{family.name}` |") == (1 if family.panel else 0)


def test_a_workspace_needs_a_key(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match="W&B has no key here"):
        main(["--project", "x"])


def test_a_key_that_is_refused_is_one_line(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)

    def refused():
        raise wandb.errors.AuthenticationError("Failed to verify credentials.\nAt length.")

    monkeypatch.setattr(wandb, "Api", refused)
    with pytest.raises(UserError, match=r"^W&B: Failed to verify credentials\.; see `wandb login`\.$"):
        main(["--project", "x"])


def test_the_workspace_has_a_panel_for_each():
    pytest.importorskip("wandb_workspaces")
    made = workspace(entity="me", project="scaledreamer", name="runs")
    assert [section.name for section in made.sections] == list(SECTIONS)
    titles = [panel.title for section in made.sections for panel in section.panels]
    assert titles == [title for section in SECTIONS.values() for title in section]
    made._to_model()  # what is sent to W&B
