"""Contact sheets of prompts: pages that are written when the last prompt of each has been rendered.

Axes: V views, H W pixels, C channels.
"""

import threading
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from scaledreamer.pictures import sheets
from scaledreamer.pictures.png import save_png
from scaledreamer.render.index import Index
from scaledreamer.render.items import Item, Selection
from scaledreamer.render.maps import Span
from scaledreamer.render.options import Map
from scaledreamer.render.outputs import Pictured
from scaledreamer.render.shots import Shot


class Sheets(Pictured):
    """``sheets/SELECTION-01.png``: prompts with captions, the maps one below the other.

    Args:
        selection: all prompts of the call, in order.
        page: columns and rows of prompts.
        shot, index, recipe: see :class:`Pictured`.
    """

    kind = "sheet"

    def __init__(
        self, *, selection: Selection, page: tuple[int, int], shot: Shot, index: Index, recipe: dict[str, Any]
    ) -> None:
        super().__init__(shot=shot, index=index, recipe={"page": list(page), **recipe})
        self.columns, most, items = page[0], page[0] * page[1], selection.items
        pages = [items[i : i + most] for i in range(0, len(items), most)]
        self._pages = {f"sheets/{selection.name}-{n:02d}.png": page for n, page in enumerate(pages, start=1)}
        self._page_of = {item.name: path for path, page in self._pages.items() for item in page}
        self._taken: dict[str, dict[str, list[Tensor]]] = {path: {} for path in self._pages}
        self._lock = threading.Lock()

    def missing(self, items: Sequence[Item]) -> set[str]:
        """All prompts of a page that is not there, or is of other prompts."""
        return {
            item.name
            for path, page in self._pages.items()
            if not self.index.has("sheets", path, self.kind, self._recipe_of(page))
            for item in page
        }

    def _recipe_of(self, page: Sequence[Item]) -> dict[str, Any]:
        return {**self.recipe, "captions": [item.caption for item in page]}

    def write(self, item: Item, maps: dict[Map, Tensor], span: Span) -> None:
        """Keep the pictures, and write the page when they are the last of it."""
        path = self._page_of[item.name]
        page, taken = self._pages[path], self._taken[path]
        with self._lock:
            taken[item.name] = [images.float() / 255 for images in maps.values()]
            if len(taken) < len(page):
                return
        picture = sheets.sheet([(i.caption, taken[i.name]) for i in page], columns=self.columns)
        taken.clear()
        file = self.index.folder / path
        save_png(picture, file)
        names = [i.name for i in page]
        self.index.add("sheets", path, self.kind, self._recipe_of(page), [file], prompts=names)
