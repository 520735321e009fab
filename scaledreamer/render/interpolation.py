"""From one prompt to another: the generator is asked for what lies between their text embeddings.

Axes: T frames, H W pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.pictures import sheets
from scaledreamer.pictures.png import save_png
from scaledreamer.pictures.video import save_video
from scaledreamer.render.index import Index
from scaledreamer.render.items import require_known
from scaledreamer.render.maps import Span, shown
from scaledreamer.render.names import name_of
from scaledreamer.render.options import RenderOptions
from scaledreamer.render.shots import Images, joined
from scaledreamer.render.source import identity
from scaledreamer.text.embedding import TextEmbedding
from scaledreamer.training.progress import Bar
from scaledreamer.training.trained import Trained


def interpolate(trained: Trained, options: RenderOptions, index: Index) -> dict[str, tuple[int, int]]:
    """``interpolations/FROM--TO.mp4`` and a row of its frames as ``.png``, by kind: (made now, there already).

    The first frame is the first prompt's, the last one the other's; the camera goes round as in a prompt's own video.
    """
    assert options.ends is not None
    require_known(trained, options.ends)
    name = name_of(*options.ends)
    recipe = {
        **identity(trained),
        "maps": list(options.chosen_maps),
        "size": options.image_size or trained.system.cameras.test_image_size,
        "frames": options.frames,
        "turn": options.turn,
    }
    recipes = {
        "video": {"kind": "video", "fps": options.fps, **recipe},
        "sheet": {"kind": "sheet", "views": options.views, "tile": options.tile, **recipe},
    }
    kinds = [kind for kind in recipes if kind in options.chosen_outputs]
    new = [kind for kind in kinds if not index.has("interpolations", name, kind, recipes[kind])]
    if new:
        frames = take(trained, options)
        path = index.folder / "interpolations" / f"{name}.mp4"
        about = dict(zip(("from", "to"), options.ends, strict=True))
        if "video" in new:
            save_video(frames, path, fps=options.fps)
            index.add("interpolations", name, "video", recipes["video"], [path], **about)
        if "sheet" in new:
            save_png(strip(frames, options), path.with_suffix(".png"))
            index.add("interpolations", name, "sheet", recipes["sheet"], [path.with_suffix(".png")], **about)
    return {kind: (int(kind in new), int(kind not in new)) for kind in kinds}


def strip(frames: Tensor, options: RenderOptions) -> Tensor:
    """Some of the frames in a row, evenly from the first to the last, below a caption: [H, W, 3] in [0, 1]."""
    assert options.ends is not None
    places = torch.linspace(0, len(frames) - 1, options.views).round().int()
    chosen = frames[places].permute(0, 3, 1, 2).float() / 255
    side = (options.tile, options.tile * len(options.chosen_maps))
    tiles = F.interpolate(chosen, side, mode="bilinear", antialias=True).permute(0, 2, 3, 1)
    return sheets.sheet([(" → ".join(options.ends), [tiles])], columns=1)


def take(trained: Trained, options: RenderOptions) -> Tensor:
    """All frames, [T, H, W * maps, 3] uint8."""
    assert options.ends is not None
    system, ends = trained.system, trained.embed(options.ends)
    size = options.image_size or system.cameras.test_image_size
    cameras = system.cameras.orbit(options.frames, turn=options.turn, device=system.device)
    shares = torch.linspace(0, 1, options.frames, device=system.device)
    parts, bar = [], Bar("picture", options.frames)
    try:
        for first in range(0, options.frames, options.batch):
            part = slice(first, first + options.batch)
            text = between(ends, shares[part])
            field = system.field(text)
            rendering = system.look(field, text, cameras.select(part), size)
            span = Span.around(system.cameras.test_distance, field.radius)
            parts.append(Images.of({name: shown(name, rendering, span) for name in options.chosen_maps}, prompts=1))
            bar.advance(len(text.pooled))
    finally:
        bar.stop()
    return torch.cat(list(joined(parts, 0).values()), dim=2)


def between(ends: TextEmbedding, shares: Tensor) -> TextEmbedding:
    """Embeddings [T] on the line from the first to the second of two: the first at a share of 0, the second at 1."""
    pooled = torch.lerp(ends.pooled[0], ends.pooled[1], shares[:, None])
    tokens = torch.lerp(ends.tokens[0], ends.tokens[1], shares[:, None, None, None])
    return TextEmbedding(pooled=pooled, tokens=tokens)
