"""The head's own topology: body above the neck, eyeballs, teeth and tongue, as linear functions of the base mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse

from open_head.assets import BaseMesh
from open_head.eyeball import eyeball, mirrored_eyeball
from open_head.surface import Polygons, catmull_clark, clip, combination, mirror_partner, triangulate

NECK_FRONT = (5.98, 0.85)
NECK_BACK = (6.50, -0.80)
"""(y, z) in decimetres of the cutting plane at the throat and at the nape."""
HELPERS = ("helper-upper-teeth", "helper-lower-teeth", "helper-tongue")
PARTS = ("body", "eye-left", "eye-right", "upper-teeth", "lower-teeth", "tongue")


@dataclass(frozen=True)
class HeadTopology:
    """Subdivided head.

    weights:   every vertex as a combination of base-mesh vertices. sparse [V, 19158]
    triangles: counter-clockwise from outside. [T, 3]
    part:      number into `PARTS` of every vertex. [V]
    eye_polar: angle from the optical axis of an eyeball vertex, radians; nan elsewhere. [V]
    texture_uv, texture_vertex: samples of the skin textures: place and the vertex that it colours. [S, 2], [S]
    mirror:    left-right partner of every vertex. [V]
    """

    weights: sparse.csr_matrix
    triangles: np.ndarray
    part: np.ndarray
    eye_polar: np.ndarray
    texture_uv: np.ndarray
    texture_vertex: np.ndarray
    mirror: np.ndarray

    def of(self, *parts: str) -> np.ndarray:
        """Mask of the vertices of some parts. [V]"""
        return np.isin(self.part, [PARTS.index(part) for part in parts])


def build_topology(mesh: BaseMesh, reference: np.ndarray) -> HeadTopology:
    """Cut, subdivide and join the parts. `reference` [19158, 3]: a symmetric neutral adult in decimetres."""
    slope = (NECK_BACK[0] - NECK_FRONT[0]) / (NECK_BACK[1] - NECK_FRONT[1])
    height = reference[:, 1] - NECK_FRONT[0] - slope * (reference[:, 2] - NECK_FRONT[1])
    height[np.abs(reference[:, 0]) > 1.5] = -1.0
    pieces: list[sparse.csr_matrix] = []
    polygons: Polygons = []
    parts: list[np.ndarray] = []
    polar: list[np.ndarray] = []
    uvs: list[np.ndarray] = []
    uv_vertices: list[np.ndarray] = []

    def add(weights: sparse.csr_matrix, faces: Polygons, part: str, angle: np.ndarray | None = None) -> None:
        first = sum(piece.shape[0] for piece in pieces)
        polygons.extend(tuple(first + corner for corner in face) for face in faces)
        parts.append(np.full(weights.shape[0], PARTS.index(part)))
        polar.append(np.full(weights.shape[0], np.nan) if angle is None else angle)
        pieces.append(weights)

    for group, part in zip(("body", *HELPERS), ("body", "upper-teeth", "lower-teeth", "tongue"), strict=True):
        chosen = mesh.groups == group
        quads, uv_quads = mesh.quads[chosen], mesh.uv[mesh.uv_quads[chosen]]
        level = height if group == "body" else np.ones(len(reference))
        clipped = clip([tuple(quad) for quad in quads.tolist()], level, snap=0.3)
        cut = combination(clipped.rows, len(reference))
        fine, subdivision = catmull_clark(clipped.polygons, cut.shape[0], smooth=not group.endswith("teeth"))
        first = sum(piece.shape[0] for piece in pieces)
        add(subdivision @ cut, fine, part)
        corner_uv = [
            np.array([(1 - share) * uv_quads[s, a] + share * uv_quads[s, b] for s, a, b, share in origin])
            for origin in clipped.corners
        ]
        places, owners = _texture_samples(fine, corner_uv)
        uvs.append(places)
        uv_vertices.append(owners + first)
    left = eyeball(reference[mesh.vertices_of("helper-l-eye")])
    for side, (places, faces, angle) in (("left", left), ("right", mirrored_eyeball(left))):
        add(_affine_weights(places, mesh.vertices_of(f"helper-{side[0]}-eye"), reference), faces, f"eye-{side}", angle)
    weights = sparse.vstack(pieces).tocsr()
    mirror = mirror_partner(weights @ reference, 1e-6)
    return HeadTopology(
        weights,
        triangulate(polygons),
        np.concatenate(parts),
        np.concatenate(polar),
        np.concatenate(uvs),
        np.concatenate(uv_vertices),
        mirror,
    )


def _affine_weights(points: np.ndarray, helper: np.ndarray, reference: np.ndarray) -> sparse.csr_matrix:
    """Combinations of helper vertices that move `points` [P, 3] with the helper's best-fitting affine motion."""
    source = np.column_stack([reference[helper], np.ones(len(helper))])
    shares = np.column_stack([points, np.ones(len(points))]) @ np.linalg.pinv(source)
    columns = np.tile(helper, len(points))
    rows = np.repeat(np.arange(len(points)), len(helper))
    return sparse.csr_matrix((shares.ravel(), (rows, columns)), shape=(len(points), len(reference)))


def _texture_samples(quads: Polygons, corner_uv: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Texture places of the subdivided vertices, one for each coarse polygon that a vertex touches."""
    places: list[np.ndarray] = []
    owners: list[int] = []
    fine = iter(quads)
    for uv in corner_uv:
        middle = uv.mean(0)
        for k in range(len(uv)):
            corner, edge, face, _ = next(fine)
            places += [uv[k], 0.5 * (uv[k] + uv[(k + 1) % len(uv)]), middle]
            owners += [corner, edge, face]
    return np.array(places), np.array(owners)
