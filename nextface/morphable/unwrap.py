"""A UV unwrap for any head: symmetric about u = 0.5, one seam at the back, no overlaps, most of it for the face."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from nextface.errors import ModelError
from nextface.morphable.charts import (
    Disc,
    Floats,
    Ints,
    areas,
    as_disc,
    boundary_loops,
    components,
    cut,
    edges_of,
    flatten,
    outline,
    signed_areas,
    singular_values,
    unfold,
)
from nextface.morphable.exposure import exposure
from nextface.morphable.packing import Chart, arrange

_BACK_DENSITY = 0.25
_POCKET_DENSITY = 0.1
_HIDDEN_PIECE_DENSITY = 0.5


def unwrap(
    vertices: npt.ArrayLike, triangles: npt.ArrayLike, mirror: npt.ArrayLike, density: npt.ArrayLike | None = None
) -> tuple[NDArray[np.float32], Ints, Ints]:
    """Unwrap a head or a face.

    vertices:  model space (x to the subject's left, y up, z out of the face). [V, 3]
    triangles: counter-clockwise seen from outside; pieces not joined by triangles become charts of their own. [T, 3]
    mirror:    partner of every vertex. [V]
    density:   wished texels per length at every vertex, relative; by default 1 on the face and less away from it. [V]

    returns uv [U, 2] in 0..1, origin lower left, V up, u growing to the subject's left; uv_triangles [T, 3];
    uv_to_vertex [U]. The largest piece fills the map as a rounded square; it is opened by one seam up the back where
    it closes behind. Further pieces are discs in its corners: eyeballs in pairs, tongue and teeth as halves. uv(mirror(v)) = (1 - u, v) wherever `mirror` preserves the triangles;
    elsewhere it holds to the extent that they do.
    """
    return _unwrap(
        np.asarray(vertices, dtype=np.float64),
        np.asarray(triangles, dtype=np.int64),
        np.asarray(mirror, dtype=np.int64),
        None if density is None else np.asarray(density, dtype=np.float64),
    )


def _unwrap(
    vertices: Floats, triangles: Ints, mirror: Ints, density: Floats | None
) -> tuple[NDArray[np.float32], Ints, Ints]:
    label = components(triangles, len(vertices))
    piece = label[triangles[:, 0]]
    main = int(np.bincount(piece, weights=areas(vertices, triangles)).argmax())
    if density is None:
        density = face_density(vertices, triangles, label == main)
    uv_triangles, uv_to_vertex = cut(triangles, _seams(vertices, triangles, piece, mirror, label, main))
    partner = _mirror_of_cut(uv_triangles, uv_to_vertex, mirror)
    label = components(uv_triangles, len(uv_to_vertex))
    piece = label[uv_triangles[:, 0]]
    uv = np.full((len(uv_to_vertex), 2), np.nan)
    for place in arrange(_charts(vertices[uv_to_vertex], uv_triangles, density[uv_to_vertex], label, partner)):
        own = np.flatnonzero(piece == place.label)
        used = np.unique(uv_triangles[own])
        local = np.full(len(uv_to_vertex), -1)
        local[used] = np.arange(len(used))
        disc = as_disc(vertices[uv_to_vertex[used]], local[uv_triangles[own]], density[uv_to_vertex[used]])
        start = _bottom_of_loop(disc, local[partner[used]] if place.symmetric else None)
        rim = outline(disc, place.exponent, start)
        if place.mirrors is not None:
            theirs = np.append(uv[partner[used]], np.zeros((len(disc.vertices) - len(used), 2)), 0)[disc.loop]
            rim = (theirs * [-1.0, 1.0] + [1.0, 0.0] - place.centre) / place.half_size
        uv[used] = np.array(place.centre) + flatten(disc, rim)[: len(used)] * place.half_size
    return _symmetric(uv, uv_triangles, partner, piece).astype(np.float32), uv_triangles, uv_to_vertex


def _symmetric(uv: Floats, triangles: Ints, partner: Ints, piece: Ints) -> Floats:
    """The mean of the map and its mirror image; a chart of asymmetric triangles that would fold stays as it is."""
    mean = 0.5 * (uv + uv[partner] * [-1.0, 1.0] + [1.0, 0.0])
    mean = unfold(mean, triangles, partner)
    folded = np.unique(piece[signed_areas(mean, triangles) <= 0])
    keep = np.zeros(len(uv), dtype=bool)
    keep[triangles[np.isin(piece, folded)]] = True
    keep |= keep[partner]
    return np.where(keep[:, None], uv, mean)


def _bottom_of_loop(disc: Disc, partner: Ints | None) -> int:
    """Position in the boundary loop of its lower middle: on the midline where the chart is symmetric."""
    points = disc.vertices[disc.loop]
    middle = 0.5 * (points.min(0) + points.max(0))
    candidates = points[:, 1] <= middle[1]
    if partner is not None:
        on_midline = candidates & (partner[disc.loop] == disc.loop)
        candidates = on_midline if on_midline.any() else candidates
    return int(np.where(candidates, np.abs(points[:, 0] - middle[0]) + 0.1 * points[:, 1], np.inf).argmin())


def _charts(vertices: Floats, triangles: Ints, density: Floats, label: Ints, partner: Ints) -> list[Chart]:
    """What is to be packed: every cut piece with its mirror partner, the one that needs most texels first."""
    need = areas(vertices, triangles) * density[triangles].mean(1) ** 2
    sizes = np.bincount(label[triangles[:, 0]], weights=need, minlength=label.max() + 1)
    charts = []
    for number in np.unique(label[triangles[:, 0]]).tolist():
        members = np.flatnonzero(label == number)
        other = np.bincount(label[partner[members]]).argmax()
        charts.append(Chart(number, int(other), float(sizes[number]), float(vertices[members, 0].mean())))
    return sorted(charts, key=lambda chart: -chart.area)


def face_density(vertices: Floats, triangles: Ints, main: NDArray[np.bool_]) -> Floats:
    """1 on the open skin of the face, less towards the crown and the neck, least in hidden pockets. [V]

    Distances are measured from the nose tip (the foremost vertex of the largest piece) in units of the head's width.
    """
    head = vertices[main]
    nose = head[head[:, 2].argmax()]
    width = np.ptp(head[np.abs(head[:, 1] - nose[1]) < 0.6 * np.ptp(head[:, 0]), 0])
    distance = np.linalg.norm(vertices - nose, axis=1) / width
    away = _smooth_step((distance - 0.6) / 0.45)
    open_skin = _smooth_step((exposure(vertices, triangles) - 0.03) / 0.12)
    least = np.where(main, _POCKET_DENSITY, _HIDDEN_PIECE_DENSITY)
    return (1.0 - (1.0 - _BACK_DENSITY) * away) * (least + (1.0 - least) * open_skin)


def _smooth_step(value: Floats) -> Floats:
    value = np.clip(value, 0.0, 1.0)
    return value * value * (3 - 2 * value)


def _seams(vertices: Floats, triangles: Ints, piece: Ints, mirror: Ints, label: Ints, main: int) -> Ints:
    """Seams of all pieces, [S, 2]; of a left-right pair the right one's mirrors the left one's."""
    ends = np.unique(np.sort(edges_of(triangles), 1), axis=0)
    mirrored = np.sort(mirror[ends], 1)
    count = len(vertices)
    ends = ends[np.isin(mirrored[:, 0] * count + mirrored[:, 1], ends[:, 0] * count + ends[:, 1])]
    seams = [np.zeros((0, 2), dtype=np.int64)]
    for number in np.unique(piece).tolist():
        members = np.flatnonzero(label == number)
        paired = label[mirror[members[0]]] != number
        if paired and vertices[members, 0].mean() < 0:
            continue
        seam = _seam(vertices, triangles[piece == number], ends[label[ends[:, 0]] == number], mirror, number == main)
        seams += [seam, mirror[seam]] if paired else [seam]
    return np.concatenate(seams)


def _seam(vertices: Floats, triangles: Ints, ends: Ints, mirror: Ints, is_main: bool) -> Ints:
    """Edges along which a piece is cut open, [S, 2], taken from `ends`, the edges whose mirror images are edges too.

    A head: up the back, from the neck to the crown. An eyeball: round its back. A small piece on the midline (tongue,
    teeth): into halves. A patch that lies open: nowhere.
    """
    loops = boundary_loops(triangles)
    used = np.unique(triangles)
    own = vertices[used]
    on_midline = used[mirror[used] == used]
    symmetric = len(on_midline) > 0
    if symmetric:
        ends = ends[(mirror[ends] == ends).all(1)]
        if not is_main:
            return ends
    if loops and not (is_main and _closes_behind(vertices, triangles)):
        return np.zeros((0, 2), dtype=np.int64)
    centre = 0.5 * (own.min(0) + own.max(0))
    candidates = on_midline if symmetric else used
    direction = vertices[candidates] - centre
    if loops:
        top = candidates[direction[:, 1].argmax()]
        rim = np.intersect1d(loops[0], candidates)
        rim = rim if len(rim) else loops[0]
        bottom = rim[vertices[rim, 2].argmin()]
    else:
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        up, down = ((0.0, 1.0, 0.0), (0.0, -0.8, -0.6)) if is_main else ((0.0, 1.0, -0.2), (0.0, -1.0, -0.2))
        top, bottom = candidates[(direction @ up).argmax()], candidates[(direction @ down).argmax()]
    return _path(vertices, ends, int(bottom), int(top), centre, float(np.ptp(own[:, 2])))


def _path(vertices: Floats, ends: Ints, start: int, end: int, centre: Floats, depth: float) -> Ints:
    """Shortest chain of the edges `ends` that keeps behind `centre`. [S, 2]"""
    in_front = np.clip((vertices[ends].mean(1)[:, 2] - centre[2]) / depth, 0.0, 1.0)
    length = np.linalg.norm(vertices[ends[:, 0]] - vertices[ends[:, 1]], axis=1) * (1 + 100 * in_front)
    count = len(vertices)
    graph = coo_matrix((length, (ends[:, 0], ends[:, 1])), (count, count)).tocsr()
    distance, previous = dijkstra(graph, directed=False, indices=start, return_predecessors=True)
    if not np.isfinite(distance[end]):
        raise ModelError("the head mesh has no chain of edges up its back midline; its UV seam needs one")
    chain = [end]
    while chain[-1] != start:
        chain.append(int(previous[chain[-1]]))
    return np.stack([chain[:-1], chain[1:]], 1).astype(np.int64)


def _closes_behind(vertices: Floats, triangles: Ints) -> bool:
    """Whether more than a fiftieth of the area behind the ears faces backwards near the midline."""
    p, q, r = (vertices[triangles[:, k]] for k in range(3))
    normal = np.cross(q - p, r - p)
    area = np.linalg.norm(normal, axis=1)
    centre = (p + q + r) / 3
    low, high = vertices[triangles].min((0, 1)), vertices[triangles].max((0, 1))
    central = np.abs(centre[:, 0]) < 0.1 * (high[0] - low[0])
    rear = centre[:, 2] < 0.5 * (low[2] + high[2])
    backward = normal[:, 2] < -0.5 * area
    return bool(area[central & rear & backward].sum() > 0.02 * area[central].sum())


def _mirror_of_cut(uv_triangles: Ints, uv_to_vertex: Ints, mirror: Ints) -> Ints:
    """Partner of every cut vertex: of the copies of the mirrored vertex, the one with mirrored neighbours."""
    first = np.searchsorted(uv_to_vertex, np.arange(len(mirror)))
    copies = np.bincount(uv_to_vertex, minlength=len(mirror))
    partner = first[mirror[uv_to_vertex]]
    doubled = copies[uv_to_vertex] > 1
    ends = edges_of(uv_triangles)
    ends = np.concatenate([ends, ends[:, ::-1]])
    around: dict[int, set[int]] = {int(own): set() for own in np.flatnonzero(doubled)}
    for own, neighbour in ends[doubled[ends[:, 0]]].tolist():
        around[own].add(int(uv_to_vertex[neighbour]))
    for own, neighbours in around.items():
        mirrored = set(mirror[list(neighbours)].tolist())
        other = mirror[uv_to_vertex[own]]
        group = range(first[other], first[other] + copies[other])
        partner[own] = max(group, key=lambda candidate: len(mirrored & around.get(candidate, set())))
    return partner


def stretch_statistics(
    vertices: Floats, triangles: Ints, uv: Floats, uv_triangles: Ints, inside: NDArray[np.bool_]
) -> dict[str, float]:
    """How even the map is over the triangles `inside` ([T] bool): texel lengths relative to their mean, shear, share.

    anisotropy: mean of longest over shortest texel side; size_spread: standard deviation of log2 of the texel side;
    share: part of the unit square that they cover; flipped: triangles of the whole mesh with the wrong orientation.
    """
    largest, least, area = singular_values(
        vertices[_corners(triangles)], uv[_corners(uv_triangles)], _separate(triangles)
    )
    weight = areas(vertices, triangles)[inside]
    side = 0.5 * np.log2(np.maximum(largest * least, 1e-30))[inside]
    mean = np.average(side, weights=weight)
    return {
        "anisotropy": float(np.average((largest / np.maximum(least, 1e-12))[inside], weights=weight)),
        "size_spread": float(np.sqrt(np.average((side - mean) ** 2, weights=weight))),
        "share": float(area[inside].sum()),
        "flipped": float((area <= 0).sum()),
    }


def _corners(triangles: Ints) -> Ints:
    return triangles.reshape(-1)


def _separate(triangles: Ints) -> Ints:
    return np.arange(triangles.size).reshape(-1, 3)
