"""What runs log, and a W&B workspace of it.

python -m scaledreamer.dashboard                                      the table of names, units and panels
python -m scaledreamer.dashboard --project scaledreamer               make the workspace; prints its address

The second needs a key of W&B's and a package: pip install 'scaledreamer[dashboard]'. By hand the same is made of the
table: in a new workspace, a section per heading and a line plot per panel, with ``trainer/global_step`` as its x axis
and, where a name has a word in capitals, the regular expression as its metrics.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from scaledreamer.cli import clear_errors
from scaledreamer.errors import UserError
from scaledreamer.training.logged import LOGGED, Logged

SECTIONS = {
    "Objects": ("Pictures", "Turntables", "Meshes"),
    "Training": ("Loss", "Opacity", "Guidance", "Timesteps", "Regularisers", "Weights", "Gradients", "Learning rates"),
    "Scores": ("Scores",),
    "Machine": ("Speed", "Memory"),
}
"""Panels in the order of the workspace."""

STEP = "trainer/global_step"


def panels(section: str) -> Iterator[tuple[str, list[Logged]]]:
    """(title, what is in it) of a section's panels."""
    for title in SECTIONS[section]:
        yield title, [family for family in LOGGED if family.panel == title]


def expression(families: Sequence[Logged]) -> str:
    """One regular expression of all names of some families."""
    return f"^({'|'.join(family.pattern.strip('^$') for family in families)})$"


def table() -> str:
    """Names, units and meanings by section and panel, in Markdown."""
    lines = []
    for section in SECTIONS:
        lines += [f"## {section}", ""]
        for title, families in panels(section):
            wild = "" if all(f.name == f.name.lower() for f in families) else f" `{expression(families)}`"
            lines += [f"**{title}**{wild}", "", "| name | unit | |", "|---|---|---|"]
            lines += [f"| `{f.name}` | {f.unit if f.kind == 'curve' else f.kind} | {f.meaning} |" for f in families]
            lines.append("")
    return "\n".join(lines)


def workspace(*, entity: str, project: str, name: str) -> Any:
    """The workspace, not saved.

    Raises:
        UserError: the package is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as reports  # pyright: ignore[reportMissingImports]
        import wandb_workspaces.workspaces as workspaces  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise UserError("the dashboard needs a package: pip install 'scaledreamer[dashboard]'.") from error

    def panel(title: str, families: Sequence[Logged]) -> Any:
        if families[0].kind != "curve":
            return reports.MediaBrowser(title=title, media_keys=[f.name for f in families])
        return reports.LinePlot(title=title, x=STEP, metric_regex=expression(families))

    sections = [
        workspaces.Section(name=section, panels=[panel(*one) for one in panels(section)], is_open=True)
        for section in SECTIONS
    ]
    return workspaces.Workspace(entity=entity, project=project, name=name, sections=sections)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, or make the workspace of a project."""
    parser = argparse.ArgumentParser(prog="python -m scaledreamer.dashboard", description=main.__doc__)
    parser.add_argument("--project", help="of W&B; without it the table is printed")
    parser.add_argument("--entity", help="of W&B; the account's own where it is not given")
    parser.add_argument("--name", default="scaledreamer", help="of the workspace")
    given = parser.parse_args(arguments)
    if given.project is None:
        print(table())
        return
    from scaledreamer.training.wandb_run import has_key, line_of

    if not has_key():
        raise UserError("W&B has no key here; run `wandb login`.")
    import wandb
    from wandb.errors import Error

    try:
        entity = given.entity or wandb.Api().default_entity
        if entity is None:
            raise UserError("the account has no entity of its own; name one with --entity.")
        print(workspace(entity=entity, project=given.project, name=given.name).save().url)
    except Error as error:
        raise UserError(f"W&B: {line_of(error)}; see `wandb login`.") from error


if __name__ == "__main__":
    with clear_errors():
        main()
