"""Folders of runs as ``render.py`` and ``evaluate.py`` leave them, without a second of training, for galleries."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from scaledreamer.config import check, compose, plain
from scaledreamer.gallery.options import GalleryOptions
from scaledreamer.mesh.mesh import Mesh, vertex_normals
from scaledreamer.mesh.write import write
from scaledreamer.pictures.video import save_video
from scaledreamer.render.index import Index
from scaledreamer.render.names import name_of

PROMPTS = {"a red duck": ("train", "val"), "a blue robot": ("train",), "a tree": ("test",), "a boat": None}
MADE_BY = {"step": 40, "weights": "00c0ffee", "config": "0123456789ab"}
CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4],
     [1, 5, 7], [1, 7, 3]]
)  # fmt: skip


def cube(color: Sequence[float]) -> Mesh:
    """Of one colour, sRGB in [0, 1]."""
    colors = np.tile(np.asarray(color, dtype=np.float64), (8, 1))
    return Mesh(vertices=CORNERS, faces=FACES, normals=vertex_normals(CORNERS, FACES), colors=colors)


def turning(color: Sequence[float], *, size: int = 32, frames: int = 4) -> torch.Tensor:
    """A grey video with a bar of a colour that walks through it: [T, H, W, 3] in [0, 1]."""
    video = torch.full((frames, size, size, 3), 0.5)
    for i, frame in enumerate(video):
        frame[:, i * size // frames : (i + 1) * size // frames] = torch.tensor(color)
    return video


def write_rendered_run(
    run: Path,
    prompts: dict[str, Sequence[str] | None],
    *,
    color: Sequence[float] = (0.9, 0.1, 0.1),
    scores: dict[str, float] | None = None,
    made_by: dict[str, Any] | None = None,
    maps: Sequence[str] = ("rgb",),
    size: int = 32,
    config: dict[str, Any] | None = None,
) -> Path:
    """A run with a video and a cube of each prompt.

    Args:
        run: folder.
        prompts: and the splits that have them.
        color: of cubes and videos.
        scores: similarity of prompts.
        made_by: the generator; :data:`MADE_BY` where it is None.
        maps: side by side in videos; all but rgb are blue.
        size: of videos, pixels.
        config: of the run.
    """
    made_by = made_by or MADE_BY
    render = run / "render"
    video, mesh = render / "videos" / "one.mp4", render / "meshes" / "one.glb"
    parts = [turning(color if name == "rgb" else (0.0, 0.0, 1.0), size=size) for name in maps]
    save_video(torch.cat(parts, dim=2), video, fps=8)
    write(cube(color), mesh)
    index = Index(render)
    recipe = {**made_by, "maps": list(maps), "size": size}
    for prompt, splits in prompts.items():
        name, about = name_of(prompt), {"prompt": prompt, "splits": splits}
        files = {kind: one.with_name(f"{name}{one.suffix}") for kind, one in (("video", video), ("mesh", mesh))}
        for kind, one in (("video", video), ("mesh", mesh)):
            files[kind].hardlink_to(one)
        index.add("prompts", name, "video", {"kind": "video", **recipe}, [files["video"]], **about)
        index.add("prompts", name, "mesh", {"kind": "mesh", "format": "glb", **made_by}, [files["mesh"]], **about)
    index.save()
    plainly = {"name": run.name, "seed": 0, "generator": {"_target_": "x.Y", "widths": [16, 8]}, **(config or {})}
    (run / "config.yaml").write_text(yaml.safe_dump(plainly, sort_keys=False))
    launch = {"command": "python train.py", "time": "2030-01-02T03:04:05+00:00", "git": {"commit": "abc"}}
    (run / "launches.jsonl").write_text(json.dumps(launch) + "\n")
    if scores is not None:
        write_scores(run, prompts, scores, made_by)
    return run


def write_scores(
    run: Path, prompts: dict[str, Sequence[str] | None], scores: dict[str, float], made_by: dict[str, Any]
) -> None:
    """``evaluate/toybox`` with a similarity of some prompts, and a rank that pages do not show."""
    folder = run / "evaluate" / "toybox"
    folder.mkdir(parents=True)
    mean = sum(scores.values()) / len(scores)
    group = {"prompts": len(scores), "measures": {"similarity": [mean, mean - 0.1, mean + 0.1], "rank": [1, 1, 1]}}
    rows = [{"prompt": p, "split": "seen", "in_gallery": True, "similarity": s, "rank": 1} for p, s in scores.items()]
    summary = {"run": str(run), **made_by, "protocol": {"name": "toybox"}, "groups": {"all": group}}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "prompts.json").write_text(json.dumps({"prompts": rows}))


def options(run: Path | Sequence[Path], *overrides: str, **given: Any) -> GalleryOptions:
    """Checked options of a command line; nothing is rendered unless it is said."""
    folders = [str(run)] if isinstance(run, Path) else [str(one) for one in run]
    cfg = compose(["missing=skip", "device=cpu", *overrides, f"run={json.dumps(folders)}"], config_name="gallery")
    check(cfg, GalleryOptions)
    return GalleryOptions(**{**plain(cfg), **given})


def data_of(page: Path) -> dict[str, Any]:
    """What the page shows."""
    text = page.with_name("data.js").read_text("ascii")
    return json.loads(text.removeprefix("gallery.show(").removesuffix(");\n"))
