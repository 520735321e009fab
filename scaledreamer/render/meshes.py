"""Meshes of prompts."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from scaledreamer.fields.base import Field
from scaledreamer.mesh.extract import MeshExtractor
from scaledreamer.mesh.mesh import Mesh
from scaledreamer.mesh.write import write
from scaledreamer.render.index import Index
from scaledreamer.render.items import Item
from scaledreamer.render.outputs import Job, Output
from scaledreamer.system import TextTo3D
from scaledreamer.text.embedding import TextEmbedding

log = logging.getLogger(__name__)


class Meshes(Output):
    """``meshes/NAME.glb`` and the like.

    Args:
        extractor: of meshes from fields.
        suffix: of the files: glb, obj or ply.
        index, recipe: see :class:`Output`.
    """

    kind = "mesh"

    def __init__(self, *, extractor: MeshExtractor, suffix: str, index: Index, recipe: dict[str, Any]) -> None:
        super().__init__(index=index, recipe={"format": suffix, **recipe})
        self.extractor, self.suffix = extractor, suffix

    def jobs(
        self, system: TextTo3D, field: Field, text: TextEmbedding, items: Sequence[Item], tick: Callable[[int], None]
    ) -> Iterator[Job]:
        """See :meth:`Output.jobs`."""
        meshes = self.extractor(field, device=system.device)
        tick(len(items))
        for item, mesh in zip(items, meshes, strict=True):
            yield partial(self._write, item, mesh)

    def _write(self, item: Item, mesh: Mesh | None) -> None:
        if mesh is None:
            log.warning("'%s' is empty: there is no surface to make a mesh of", item.prompt)
            self.record(item, [])
            return
        path = self.index.folder / "meshes" / f"{item.name}.{self.suffix}"
        write(mesh, path)
        beside = [path.with_suffix(".mtl"), path.with_name(f"{path.stem}_texture.png")]
        self.record(item, [path, *beside] if self.suffix == "obj" and mesh.texture is not None else [path])
