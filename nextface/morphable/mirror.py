"""The left-right partner of every vertex of a mesh that is symmetric about the plane x = 0, exactly or nearly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

_EXACT = 1e-3
_SEEDS = 40


def mirror_index(vertices: NDArray[np.floating], triangles: NDArray[np.integer] | None = None) -> NDArray[np.int64]:
    """Partner of every vertex under (x, y, z) -> (-x, y, z).

    vertices: [V, 3], any unit; triangles: [T, 3], consistently oriented.
    returns:  [V]. An involution (`m[m] == arange`) whenever the mesh allows it.

    Positions alone decide where they mirror exactly. A scanned mean face does not: it is a millimetre or more off
    its own mirror image, which is its vertex spacing. There the triangles decide: one matching pair of edges is
    guessed from the positions, and the pairing is carried from triangle to triangle over the surface.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    flipped = vertices * [-1.0, 1.0, 1.0]
    distance, nearest = cKDTree(vertices).query(flipped)
    nearest = nearest.astype(np.int64)
    size = np.ptp(vertices, axis=0).max()
    if triangles is None or (_is_involution(nearest) and distance.max() <= _EXACT * size):
        return nearest
    return _by_topology(vertices, np.asarray(triangles, dtype=np.int64), nearest)


def _is_involution(partner: NDArray[np.int64]) -> bool:
    return bool((partner[partner] == np.arange(len(partner))).all())


def _by_topology(
    vertices: NDArray[np.float64], triangles: NDArray[np.int64], nearest: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Carry the pairing over the triangles, component by component; positions decide where that fails."""
    count = len(vertices)
    ends = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])), (count, count))
    _, component = connected_components(graph, directed=False)
    opposite = {}
    neighbours: dict[int, list[int]] = {}
    for a, b, c in triangles.tolist():
        for start, end, tip in ((a, b, c), (b, c, a), (c, a, b)):
            opposite[start, end] = tip
            neighbours.setdefault(start, []).extend((end, tip))
    flipped = vertices * [-1.0, 1.0, 1.0]
    partner = nearest.copy()
    for label in range(component.max() + 1):
        members = np.flatnonzero(component == label)
        carried = _best_walk(
            members, triangles[component[triangles[:, 0]] == label], vertices, flipped, nearest, opposite, neighbours
        )
        if carried is not None:
            sources, targets = carried
            partner[sources] = targets
            partner[targets] = sources
    return partner


def _best_walk(
    members: NDArray[np.int64],
    triangles: NDArray[np.int64],
    vertices: NDArray[np.float64],
    flipped: NDArray[np.float64],
    nearest: NDArray[np.int64],
    opposite: dict[tuple[int, int], int],
    neighbours: dict[int, list[int]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Try seed edges until a walk pairs all `members`; None where no seed does."""
    if not len(triangles):
        return None
    spread = np.linspace(0, len(triangles) - 1, _SEEDS).astype(np.int64)
    for a, b, _ in triangles[spread].tolist():
        tails = [int(nearest[a]), *neighbours.get(int(nearest[a]), [])]
        pairs = [(tail, head) for tail in tails for head in neighbours.get(tail, [])]
        if not pairs:
            continue
        ends = np.array(pairs)
        error = np.linalg.norm(vertices[ends] - flipped[[a, b]], axis=-1).sum(-1)
        for best in np.argsort(error, kind="stable")[:4]:
            carried = _walk((a, b), pairs[best], opposite)
            if carried is not None and len(carried[0]) == len(members) == len(np.unique(carried[1])):
                return carried
    return None


def _walk(
    edge: tuple[int, int], partner_edge: tuple[int, int], opposite: dict[tuple[int, int], int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Breadth-first pairing from a -> a', b -> b'. None at the first contradiction.

    The triangle left of (a, b) mirrors to the one left of (b', a').
    """
    pairing = {edge[0]: partner_edge[0], edge[1]: partner_edge[1]}
    front = [edge, edge[::-1]]
    seen = set()
    while front:
        following = []
        for a, b in front:
            if (a, b) in seen:
                continue
            seen.add((a, b))
            c = opposite.get((a, b))
            mirrored = opposite.get((pairing[b], pairing[a]))
            if (c is None) != (mirrored is None):
                return None
            if c is None or mirrored is None:
                continue
            if pairing.setdefault(c, mirrored) != mirrored:
                return None
            following += [(c, b), (a, c)]
        front = following
    sources = np.array(list(pairing), dtype=np.int64)
    return sources, np.array(list(pairing.values()), dtype=np.int64)
