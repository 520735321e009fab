"""Fewer triangles for a surface.

Axes: V vertices, F faces.
"""

import numpy as np

from scaledreamer.mesh.surface import Surface, components

_EAGERNESS = (3, 7, 12)  # the less, the better the triangles; with little, a small number may not be reached
_ROUNDS = 4  # in which touching sheets are taken apart


def decimated(surface: Surface, *, faces: int) -> Surface:
    """At most this many faces, by quadric error metrics (Garland and Heckbert 1997); colours do not count in it.

    A closed surface stays closed. More faces are left where fewer would tear it, as may happen below some hundred.
    """
    if len(surface.faces) <= faces:
        return surface
    import fast_simplification

    for eagerness in _EAGERNESS:
        if len(surface.faces) > faces:
            found = fast_simplification.simplify(surface.vertices, surface.faces, target_count=faces, agg=eagerness)
            surface = Surface(found[0].astype(np.float64), found[1].astype(np.int32))
    return unpinched(surface)


def unpinched(surface: Surface) -> Surface:
    """The same triangles, with a vertex of its own for each sheet where several sheets touch.

    Decimation may let parts of a closed surface touch in a vertex or along an edge. Every side of a face is paired with
    one that runs the other way, and corners that meet across such pairs share a vertex; then two faces meet along each
    edge. Touching sheets can be paired in two ways, of which one may join them: edges where it did get the other, a few
    times. A surface that is not closed stays as it is.
    """
    surface = _without_opposites(surface)
    start, end = surface.faces.ravel().astype(np.int64), np.roll(surface.faces, -1, axis=1).ravel().astype(np.int64)
    sides = np.arange(len(start))
    following = sides.reshape(-1, 3)[:, [1, 2, 0]].ravel()  # the corner at the end of each side
    edge = np.minimum(start, end) * len(surface.vertices) + np.maximum(start, end)
    forth, back = np.flatnonzero(start < end), np.flatnonzero(start > end)
    forth = forth[np.argsort(edge[forth], kind="stable")]
    turned, best, least = np.ones(len(sides), int), surface, len(sides)
    for _ in range(_ROUNDS):
        ordered = back[np.lexsort((turned[back] * back, edge[back]))]
        if not np.array_equal(edge[forth], edge[ordered]):
            return surface
        number, label = components(np.r_[forth, following[forth]], np.r_[following[ordered], ordered], count=len(sides))
        ends = np.sort(np.stack([label, label[following]], axis=-1), axis=-1)
        _, same, count = np.unique(ends, axis=0, return_inverse=True, return_counts=True)
        joined = count[same.ravel()] > 2
        if joined.sum() < least:
            place = np.zeros(number, np.int64)
            place[label] = start
            best, least = Surface(surface.vertices[place], label.reshape(-1, 3).astype(np.int32)), int(joined.sum())
        turned[np.isin(edge, edge[joined])] *= -1
        if not least:
            break
    return best


def _without_opposites(surface: Surface) -> Surface:
    """Without faces that others with the same corners cancel, since they look in the opposite direction."""
    a, b, c = surface.faces.astype(np.int64).T
    turn = np.sign((a - b) * (b - c) * (c - a)).astype(int)  # which of the two directions, for corners in any order
    _, same = np.unique(np.sort(surface.faces, axis=1), axis=0, return_inverse=True)
    kept = np.bincount(same.ravel(), turn) != 0
    return surface if kept.all() else surface.part(kept[same.ravel()])
