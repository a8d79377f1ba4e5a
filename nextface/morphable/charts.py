"""Flattening one piece of surface: cut it open, give it one boundary, map it to a disc without folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, identity
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from nextface.errors import ModelError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def edges_of(triangles: Ints) -> Ints:
    """Directed edges, three per triangle: corner 0 to 1 of all, then 1 to 2, then 2 to 0. `[T, 3] -> [3T, 2]`."""
    return np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])


def components(triangles: Ints, count: int) -> Ints:
    """Label of the connected piece of every vertex, unused vertices each their own. `[V]`"""
    ends = edges_of(triangles)
    graph = coo_matrix((np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])), (count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def cut(triangles: Ints, seam: Ints) -> tuple[Ints, Ints]:
    """Open a surface along edges.

    triangles: [T, 3]; seam: undirected edges, [S, 2].
    returns:   cut triangles [T, 3] into the cut vertices, and the original vertex of each cut vertex [U]. Corners stay
        together where a chain of uncut edges joins their triangles, so pinched vertices come apart as well.
    """
    count = int(triangles.max()) + 1
    keys = _edge_keys(edges_of(triangles), count)
    barred = np.unique(_edge_keys(seam, count)) if len(seam) else np.zeros(0, dtype=np.int64)
    total = len(triangles)
    corner = np.arange(3 * total).reshape(3, total).T
    starts = np.concatenate([corner[:, 0], corner[:, 1], corner[:, 2]])
    ends = np.concatenate([corner[:, 1], corner[:, 2], corner[:, 0]])
    order = np.argsort(keys, kind="stable")
    twins = np.flatnonzero((keys[order][1:] == keys[order][:-1]) & ~np.isin(keys[order][1:], barred))
    first, second = order[twins], order[twins + 1]
    rows = np.concatenate([starts[first], ends[first]])
    columns = np.concatenate([ends[second], starts[second]])
    graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), (3 * total, 3 * total))
    _, label = connected_components(graph, directed=False)
    original = np.concatenate([triangles[:, 0], triangles[:, 1], triangles[:, 2]])
    _, first_corner = np.unique(label, return_index=True)
    rank = np.lexsort((first_corner, original[first_corner]))
    place = np.empty_like(rank)
    place[rank] = np.arange(len(rank))
    return place[label][corner].astype(np.int64), original[first_corner][rank]


def boundary_loops(triangles: Ints) -> list[Ints]:
    """Closed loops of boundary edges, each running with the surface on its left; longest (by count) first."""
    ends = edges_of(triangles)
    count = int(triangles.max()) + 1
    forward = ends[:, 0] * count + ends[:, 1]
    alone = ends[~np.isin(ends[:, 1] * count + ends[:, 0], forward)]
    following = dict(zip(alone[:, 0].tolist(), alone[:, 1].tolist(), strict=True))
    loops = []
    while following:
        start = min(following)
        loop = [start]
        vertex = following.pop(start)
        while vertex != start:
            loop.append(vertex)
            vertex = following.pop(vertex)
        loops.append(np.array(loop))
    return sorted(loops, key=len, reverse=True)


@dataclass(frozen=True)
class Disc:
    """A piece of surface with one outer boundary, ready to be flattened.

    vertices:  [U, 3]; triangles: [T, 3], inner holes filled
    solid:     number of triangles that are not fillings of holes; these come first
    loop:      outer boundary, surface on its left. [N]
    density:   how much finer than the rest the map shall be at each triangle. [T]
    """

    vertices: Floats
    triangles: Ints
    solid: int
    loop: Ints
    density: Floats


def as_disc(vertices: Floats, triangles: Ints, density: Floats) -> Disc:
    """A cut piece as a disc: the longest boundary stays, the others are filled. `density` per vertex, [U]."""
    loops = boundary_loops(triangles)
    solid = len(triangles)
    if not loops:
        raise ModelError("a piece of the head mesh is closed and could not be cut open for its UV chart")
    length = [np.linalg.norm(vertices[loop] - vertices[np.roll(loop, 1)], axis=1).sum() for loop in loops]
    outer = int(np.argmax(length))
    holes = [loop for number, loop in enumerate(loops) if number != outer]
    vertices, triangles = fill_holes(vertices, triangles, holes)
    characteristic = len(vertices) - len(np.unique(np.sort(edges_of(triangles), 1), axis=0)) + len(triangles)
    if characteristic != 1:
        raise ModelError(
            f"a piece of the head mesh has handles or badly joined triangles (Euler number {characteristic}, not 1)"
        )
    per_vertex = np.concatenate([density, [density[loop].mean() for loop in holes]])
    return Disc(vertices, triangles, solid, loops[outer], per_vertex[triangles].mean(1))


def outline(disc: Disc, exponent: float, start: int) -> Floats:
    """Places of the boundary loop on a rounded square |x|^p + |y|^p = 1, spaced as on the surface. [N, 2]

    start: position in the loop of the vertex that comes to the bottom.
    """
    loop = np.roll(disc.loop, -start)
    density = np.zeros(len(disc.vertices))
    np.maximum.at(density, disc.triangles.ravel(), np.repeat(disc.density, 3))
    points, weight = disc.vertices[loop], density[loop]
    step = np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1) * (weight + np.roll(weight, -1))
    travelled = np.concatenate([[0.0], np.cumsum(step)[:-1]]) / step.sum()
    return np.roll(_rounded_square(travelled, exponent), start, axis=0)


def _rounded_square(travelled: Floats, exponent: float) -> Floats:
    """Points on |x|^p + |y|^p = 1 at fractions 0..1 of its length, from (0, -1) counter-clockwise. [N, 2]"""
    angle = np.linspace(-np.pi / 2, 1.5 * np.pi, 16385)
    cosine, sine = np.cos(angle), np.sin(angle)
    radius = (np.abs(cosine) ** exponent + np.abs(sine) ** exponent) ** (-1 / exponent)
    curve = np.stack([radius * cosine, radius * sine], 1)
    length = np.concatenate([[0.0], np.linalg.norm(np.diff(curve, axis=0), axis=1).cumsum()])
    length /= length[-1]
    return np.stack([np.interp(travelled, length, curve[:, 0]), np.interp(travelled, length, curve[:, 1])], 1)


def fill_holes(vertices: Floats, triangles: Ints, loops: list[Ints]) -> tuple[Floats, Ints]:
    """Close each loop with a fan around its centroid; the new vertices and triangles come last."""
    for loop in loops:
        centre = len(vertices)
        vertices = np.concatenate([vertices, vertices[loop].mean(0, keepdims=True)])
        fan = np.stack([np.roll(loop, -1), loop, np.full_like(loop, centre)], 1)
        triangles = np.concatenate([triangles, fan])
    return vertices, triangles


def flatten(disc: Disc, boundary: Floats, rounds: int = 12) -> Floats:
    """Map a disc into the convex polygon `boundary` ([N, 2], counter-clockwise, one point per vertex of the loop).

    Floater's mean value coordinates (2003) start; each round divides the pull of a vertex by the stretch around it
    (Yoshizawa, Belyaev, Seidel 2004), measured against `density`. Positive weights and a convex boundary make every
    round free of folds by Tutte's theorem. The rounds end when the stretch no longer falls. -> [U, 2]
    """
    weights = _mean_value_weights(disc)
    best, best_stretch = None, np.inf
    for _ in range(rounds):
        uv = _solve(weights, disc.loop, boundary)
        at_vertex, total = _stretch(disc, uv)
        if total >= best_stretch:
            break
        best, best_stretch = uv, total
        pull = 1.0 / np.sqrt(at_vertex)
        weights = weights.multiply(pull[None, :]).tocsr()
    assert best is not None
    return best


def unfold(uv: Floats, triangles: Ints, partner: Ints, rounds: int = 20) -> Floats:
    """Mend the few folds left where a mesh and its mirror image are cut into triangles differently.

    The inner vertices of folded triangles, and their partners, move to the mean of their neighbours (own and
    mirrored) until none is folded. `[U, 2] -> [U, 2]`
    """
    ends = edges_of(triangles)
    ends = np.concatenate([ends, partner[ends]])
    count = len(uv)
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (count, count)).tocsr()
    graph = graph + graph.T
    rim = np.concatenate(boundary_loops(triangles))
    inner = np.ones(count, dtype=bool)
    inner[rim] = inner[partner[rim]] = False
    for _ in range(rounds):
        folded = signed_areas(uv, triangles) <= 0
        if not folded.any():
            break
        moving = np.unique(triangles[folded])
        moving = np.union1d(moving, partner[moving])
        moving = moving[inner[moving]]
        rows = graph[moving]
        uv = uv.copy()
        uv[moving] = (rows @ uv) / np.asarray(rows.sum(1))
    return uv


def singular_values(vertices: Floats, uv: Floats, triangles: Ints) -> tuple[Floats, Floats, Floats]:
    """Largest and least length on the surface per length in the map, and the map's signed area. `[T]` each."""
    origin, right, left = (uv[triangles[:, k]] for k in range(3))
    p, q, r = (vertices[triangles[:, k]] for k in range(3))
    first, second = right - origin, left - origin
    double_area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    safe = np.where(np.abs(double_area) < 1e-30, 1e-30, double_area)[:, None]
    along_u = ((q - p) * second[:, 1:] - (r - p) * first[:, 1:]) / safe
    along_v = ((r - p) * first[:, :1] - (q - p) * second[:, :1]) / safe
    a = (along_u * along_u).sum(1)
    b = (along_u * along_v).sum(1)
    c = (along_v * along_v).sum(1)
    root = np.sqrt((a - c) ** 2 + 4 * b * b)
    return np.sqrt(0.5 * (a + c + root)), np.sqrt(np.maximum(0.5 * (a + c - root), 0.0)), 0.5 * double_area


def areas(vertices: Floats, triangles: Ints) -> Floats:
    """Area of every triangle. `[T]`"""
    p, q, r = (vertices[triangles[:, k]] for k in range(3))
    return 0.5 * np.linalg.norm(np.cross(q - p, r - p), axis=1)


def signed_areas(uv: Floats, triangles: Ints) -> Floats:
    """Area of every triangle in the map, negative where it is folded over. `[T]`"""
    first, second = uv[triangles[:, 1]] - uv[triangles[:, 0]], uv[triangles[:, 2]] - uv[triangles[:, 0]]
    return 0.5 * (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])


def _edge_keys(ends: Ints, count: int) -> Ints:
    return np.minimum(ends[:, 0], ends[:, 1]) * count + np.maximum(ends[:, 0], ends[:, 1])


def _mean_value_weights(disc: Disc) -> csr_matrix:
    """w_ij = (tan(a/2) + tan(b/2)) / |ij| for the two angles beside edge ij at i. [U, U]"""
    count = len(disc.vertices)
    rows, columns, values = [], [], []
    for corner in range(3):
        i, j, k = (disc.triangles[:, (corner + turn) % 3] for turn in range(3))
        to_j, to_k = disc.vertices[j] - disc.vertices[i], disc.vertices[k] - disc.vertices[i]
        length_j, length_k = (np.maximum(np.linalg.norm(side, axis=1), 1e-12) for side in (to_j, to_k))
        cosine = np.clip((to_j * to_k).sum(1) / (length_j * length_k), -0.999, 0.999)
        half_tangent = np.sqrt((1 - cosine) / (1 + cosine))
        rows += [i, i]
        columns += [j, k]
        values += [half_tangent / length_j, half_tangent / length_k]
    entries = np.concatenate(values)
    return coo_matrix((entries, (np.concatenate(rows), np.concatenate(columns))), (count, count)).tocsr()


def _solve(weights: csr_matrix, loop: Ints, boundary: Floats) -> Floats:
    """Every inner vertex at the weighted mean of its neighbours, the loop at `boundary`."""
    count = weights.shape[0]
    inner = np.setdiff1d(np.arange(count), loop)
    rows = weights[inner]
    rows = rows.multiply(1.0 / np.asarray(rows.sum(1))).tocsr()
    system = identity(len(inner), format="csr") - rows[:, inner]
    uv = np.empty((count, 2))
    uv[loop] = boundary
    factors = splu(system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    uv[inner] = factors.solve(rows[:, loop] @ boundary)
    return uv


def _stretch(disc: Disc, uv: Floats) -> tuple[Floats, float]:
    """Root-mean-square stretch around each vertex (Sander et al. 2001) over its mean, and of the whole map."""
    largest, least, area = singular_values(disc.vertices, uv, disc.triangles)
    surface = areas(disc.vertices, disc.triangles) * disc.density**2
    stretch = 0.5 * (largest**2 + least**2) * disc.density**2
    stretch = np.where(area > 0, stretch, stretch.max(initial=0.0))
    total = np.zeros(len(disc.vertices))
    share = np.full(len(disc.vertices), 1e-12)
    for corner in range(3):
        np.add.at(total, disc.triangles[:, corner], surface * stretch)
        np.add.at(share, disc.triangles[:, corner], surface)
    at_vertex = np.sqrt(np.maximum(total / share, 1e-12))
    solid = slice(0, disc.solid)
    whole = float(np.sqrt((surface[solid] * stretch[solid]).sum() / surface[solid].sum()))
    return np.clip(at_vertex / whole, 1e-3, 1e3), whole
