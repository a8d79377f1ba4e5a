"""Linear operations on polygon meshes: cutting, Catmull-Clark subdivision, mirror partner.

Every vertex of a derived mesh is a fixed linear combination of the vertices of the mesh before it, so means and bases
pass through the same sparse matrix.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from scipy.spatial import cKDTree

Polygons = list[tuple[int, ...]]


@dataclass(frozen=True)
class Clipped:
    """What is left of a mesh on one side of a level.

    polygons: over the new vertex numbering
    rows:     combination of old vertices that makes each new vertex
    corners:  per polygon and corner: (source polygon, source corner, its next corner, share of the way to it)
    """

    polygons: Polygons
    rows: list[dict[int, float]]
    corners: list[list[tuple[int, int, int, float]]]


def combination(rows: list[dict[int, float]], columns: int) -> sparse.csr_matrix:
    """A sparse matrix from one {column: weight} per row."""
    counts = np.array([len(row) for row in rows])
    return sparse.csr_matrix(
        (
            np.fromiter((weight for row in rows for weight in row.values()), float, counts.sum()),
            np.fromiter((column for row in rows for column in row), int, counts.sum()),
            np.concatenate([[0], counts.cumsum()]),
        ),
        shape=(len(rows), columns),
    )


def clip(polygons: Polygons, height: np.ndarray, snap: float) -> Clipped:
    """Keep the part of a mesh where `height` [V] >= 0, with new vertices where edges cross 0.

    A kept vertex whose edge crosses nearer than `snap` of the edge's length is moved to the crossing instead, so that no
    sliver is left.
    """
    moved: dict[int, dict[int, float]] = {}
    lowered = height.copy()
    for a, b in sorted({edge for polygon in polygons for edge in directed_edges(polygon)}):
        if height[a] > 0 > height[b]:
            share = float(height[a] / (height[a] - height[b]))
            if share < snap and (a not in moved or moved[a][a] < 1 - share):
                moved[a] = {a: 1 - share, b: share}
                lowered[a] = 0.0
    rows: list[dict[int, float]] = []
    number: dict[tuple[int, int], int] = {}

    def vertex(a: int, b: int) -> int:
        key = (min(a, b), max(a, b))
        if key not in number:
            number[key] = len(rows)
            if a == b:
                rows.append(moved.get(a, {a: 1.0}))
            else:
                share = float(lowered[key[0]] / (lowered[key[0]] - lowered[key[1]]))
                rows.append({key[0]: 1 - share, key[1]: share})
        return number[key]

    kept: Polygons = []
    sources: list[list[tuple[int, int, int, float]]] = []
    for source, polygon in enumerate(polygons):
        if not any(lowered[corner] > 0 for corner in polygon):
            continue
        corners: list[int] = []
        origin: list[tuple[int, int, int, float]] = []
        for k, (a, b) in enumerate(directed_edges(polygon)):
            after = (k + 1) % len(polygon)
            if lowered[a] >= 0:
                corners.append(vertex(a, a))
                origin.append((source, k, after, 0.0))
            if lowered[a] * lowered[b] < 0:
                corners.append(vertex(a, b))
                origin.append((source, k, after, float(lowered[a] / (lowered[a] - lowered[b]))))
        if len(corners) >= 3:
            kept.append(tuple(corners))
            sources.append(origin)
    return Clipped(kept, rows, sources)


def directed_edges(polygon: tuple[int, ...]) -> Iterable[tuple[int, int]]:
    return zip(polygon, polygon[1:] + polygon[:1], strict=True)


def catmull_clark(polygons: Polygons, vertices: int, smooth: bool = True) -> tuple[Polygons, sparse.csr_matrix]:
    """One step of Catmull-Clark subdivision (Catmull and Clark 1978) with B-spline boundary curves; not `smooth`: the same
    quads on the flat polygons.

    Numbering of the result: old vertices, then edge points, then face points. Every new quad begins at its old vertex
    and has the face point opposite, so cutting it along corners 0-2 is mirror symmetric.
    returns: quads, sparse [V + E + F, V]
    """
    edge_faces: dict[tuple[int, int], list[int]] = {}
    vertex_faces: list[list[int]] = [[] for _ in range(vertices)]
    for face, polygon in enumerate(polygons):
        for a, b in directed_edges(polygon):
            edge_faces.setdefault((min(a, b), max(a, b)), []).append(face)
            vertex_faces[a].append(face)
    edge_number = {edge: vertices + k for k, edge in enumerate(edge_faces)}
    vertex_edges: list[list[tuple[int, int]]] = [[] for _ in range(vertices)]
    for edge in edge_faces:
        vertex_edges[edge[0]].append(edge)
        vertex_edges[edge[1]].append(edge)
    rows: list[dict[int, float]] = [{} for _ in range(vertices + len(edge_faces) + len(polygons))]

    def add(row: int, column: int, weight: float) -> None:
        rows[row][column] = rows[row].get(column, 0.0) + weight

    def add_face(row: int, face: int, weight: float) -> None:
        for corner in polygons[face]:
            add(row, corner, weight / len(polygons[face]))

    for face in range(len(polygons)):
        add_face(vertices + len(edge_faces) + face, face, 1.0)
    for edge, faces in edge_faces.items():
        interior = smooth and len(faces) == 2
        for end in edge:
            add(edge_number[edge], end, 0.25 if interior else 0.5)
        if interior:
            for face in faces:
                add_face(edge_number[edge], face, 0.25)
    for vertex in range(vertices):
        if not vertex_faces[vertex]:
            raise ValueError(f"vertex {vertex} belongs to no polygon")
        if not smooth:
            add(vertex, vertex, 1.0)
            continue
        border = [edge for edge in vertex_edges[vertex] if len(edge_faces[edge]) == 1]
        if border:
            add(vertex, vertex, 0.75)
            for edge in border:
                add(vertex, edge[0] + edge[1] - vertex, 0.25 / len(border))
            continue
        n = len(vertex_faces[vertex])
        add(vertex, vertex, (n - 3) / n + 1 / n)
        for edge in vertex_edges[vertex]:
            add(vertex, edge[0] + edge[1] - vertex, 1 / n**2)
        for face in vertex_faces[vertex]:
            add_face(vertex, face, 1 / n**2)
    quads: Polygons = []
    for face, polygon in enumerate(polygons):
        for k, corner in enumerate(polygon):
            after, before = polygon[(k + 1) % len(polygon)], polygon[k - 1]
            quads.append(
                (
                    corner,
                    edge_number[(min(corner, after), max(corner, after))],
                    vertices + len(edge_faces) + face,
                    edge_number[(min(corner, before), max(corner, before))],
                )
            )
    return quads, combination(rows, vertices)


def triangulate(polygons: Polygons) -> np.ndarray:
    """Fans from each polygon's first corner. [T, 3]"""
    return np.array(
        [(p[0], p[k], p[k + 1]) for p in polygons for k in range(1, len(p) - 1)],
        dtype=np.int64,
    )


def mirror_partner(vertices: np.ndarray, tolerance: float) -> np.ndarray:
    """The left-right partner of every vertex of a mesh that is symmetric about x = 0 to `tolerance`. [V]"""
    distance, partner = cKDTree(vertices).query(vertices * [-1.0, 1.0, 1.0])
    if distance.max() > tolerance or (partner[partner] != np.arange(len(vertices))).any():
        raise ValueError(f"the mesh is not symmetric: worst distance {distance.max():.3g}")
    return partner


def symmetrised(vertices: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """The symmetric part of points or displacements. [..., V, 3]"""
    return 0.5 * (vertices + vertices[..., mirror, :] * np.array([-1.0, 1.0, 1.0]))
