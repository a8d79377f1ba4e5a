"""Measuring heads drawn from a finished model file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.sparse.csgraph import connected_components

from nextface.morphable.model import MorphableModel
from open_head.checks import intersecting
from open_head.contact import heights

MIRRORED = np.array([-1.0, 1.0, 1.0])
LIMIT = 2.5
"""Coefficients of random heads are cut off here, standard deviations."""
EYE_REACH = 6.0
"""Thickness of the shell around an eyeball that counts as lid, millimetres."""
LIP_CONTACT = 0.6
"""Vertical distance below which the lips of the mean head are in contact, millimetres."""
LIP_COLUMN = 1.5
"""Width of the columns in which the opening between the lips is measured, millimetres."""
LIP_DEPTH = 25.0
"""How far behind the lips' front the mouth's lining counts as lip, millimetres."""


def random_coefficients(count: int, components: int, generator: torch.Generator) -> torch.Tensor:
    """Normal, cut off at `LIMIT`. [count, components]"""
    return torch.randn(count, components, generator=generator).clamp(-LIMIT, LIMIT)


@dataclass(frozen=True)
class Soundness:
    """What is wrong with one head.

    lid_cuts, lip_cuts: triangles of the lids that cut an eyeball, of the upper lip that cut the lower
    worn:               triangles of the mouth's inside that cut the outer skin
    lip_gap:            widest vertical opening between the lips at rest, millimetres
    lip_overlap:        deepest vertical overlap of the lips, millimetres
    stretch:            edge lengths relative to the mean head's, on skin: smallest, largest, 0.1 and 99.9 percentile
    flipped:            triangles of the skin that face away from the mean normal of their corners
    """

    lid_cuts: int
    lip_cuts: int
    worn: int
    lip_gap: float
    lip_overlap: float
    stretch: tuple[float, float, float, float]
    flipped: int


class HeadProbe:
    """The parts of a model that the checks look at, found once."""

    def __init__(self, model: MorphableModel) -> None:
        self.mean = model.mean.numpy().astype(np.float64)
        self.triangles = model.triangles.numpy()
        regions = {name: mask.numpy() for name, mask in model.regions.items()}
        pairs = self.triangles[:, [0, 1, 2]].ravel(), self.triangles[:, [1, 2, 0]].ravel()
        graph = sparse.coo_matrix((np.ones(len(pairs[0])), pairs), shape=(len(self.mean),) * 2)
        _, label = connected_components(graph, directed=False)
        body = label == np.bincount(label).argmax()
        eyes = regions["eyes"] > 0.5
        self.eyeballs = self._within(eyes)
        around = np.zeros(len(body), bool)
        for side in (1.0, -1.0):
            eye = self.mean[eyes & (side * self.mean[:, 0] > 0)]
            centre, radius = 0.5 * (eye.min(0) + eye.max(0)), 0.5 * np.ptp(eye, axis=0)
            around |= np.linalg.norm((self.mean - centre) / (radius + EYE_REACH), axis=1) < 1.0
        self.lids = self._within(around & body)
        lips = regions["lips"] > 0.05
        x, _, z = self.mean.T
        lining = (regions["mouth_interior"] > 0.5) & (z > z[lips].max() - LIP_DEPTH) & (np.abs(x) < 40)
        mouth = (lips | lining) & body
        drop = model.expression_basis[:, mouth, 1].numpy().min(1)
        opening = model.expression_basis[int(drop.argmin()), :, 1].numpy()
        lower = opening < 0.5 * drop.min()
        self.upper_lip, self.lower_lip = self._within(mouth & ~lower), self._within(mouth & lower)
        front = z > z[lips].max() - 12.0
        self.lip_line = np.flatnonzero(mouth & ~lower & front & (np.abs(x) < 0.7 * np.abs(x[lips]).max()))
        inside = regions["mouth_interior"] > 0.5
        self.inside = self._within(inside)
        self.face = self._within(body & ~inside & (regions["skin"] > 0.9) & (z > 0.5 * z.max()))
        self.lip_floor = self.lower_lip[front[self.lower_lip].all(1)]
        gap = self.mean[self.lip_line, 1] - heights(self.mean, self.lip_floor, self.mean[self.lip_line], 1.0)
        self.lip_line = self.lip_line[gap < LIP_CONTACT]
        self.lip_column = np.unique(np.round(self.mean[self.lip_line, 0] / LIP_COLUMN), return_inverse=True)[1]
        skin = (regions["skin"] + regions["lips"] + regions["eyebrows"]) > 0.9
        self.skin = self._within(skin & body)
        self.edges = np.unique(np.sort(self.skin[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1), axis=0)

    def _within(self, chosen: np.ndarray) -> np.ndarray:
        return self.triangles[chosen[self.triangles].all(1)]

    def examine(self, vertices: np.ndarray) -> Soundness:
        """vertices: of a head at rest, [V, 3] mm"""
        vertices = np.ascontiguousarray(vertices, dtype=np.float64)
        gap, overlap = self.lip_distance(vertices)
        stretch = self._lengths(vertices) / self._lengths(self.mean)
        normals = self._normals(vertices)
        corners = np.zeros_like(vertices)
        for k in range(3):
            for axis in range(3):
                corners[:, axis] += np.bincount(self.skin[:, k], normals[:, axis], len(corners))
        turned = (normals * corners[self.skin].sum(1)).sum(1)
        return Soundness(
            self.lid_cuts(vertices),
            self.lip_cuts(vertices),
            int(intersecting(vertices, self.inside, self.face).sum()),
            gap,
            overlap,
            _extremes(stretch),
            int((turned < 0).sum()),
        )

    def lid_cuts(self, vertices: np.ndarray) -> int:
        return int(intersecting(np.ascontiguousarray(vertices, dtype=np.float64), self.lids, self.eyeballs).sum())

    def lip_cuts(self, vertices: np.ndarray) -> int:
        return int(intersecting(np.ascontiguousarray(vertices, dtype=np.float64), self.upper_lip, self.lower_lip).sum())

    def lip_distance(self, vertices: np.ndarray) -> tuple[float, float]:
        """The widest opening over columns along the lips, each at its narrowest place, and the deepest overlap. mm

        Infinite where the lips are so far apart that none lies above the other.
        """
        own = vertices[self.lip_line]
        gap = own[:, 1] - heights(vertices, self.lip_floor, own, 1.0)
        narrowest = np.full(self.lip_column.max() + 1, np.inf)
        np.minimum.at(narrowest, self.lip_column, np.where(np.isfinite(gap), gap, np.inf))
        met = narrowest[np.isfinite(narrowest)]
        return (float(met.max()), float(-met.min())) if len(met) else (np.inf, -np.inf)

    def _lengths(self, vertices: np.ndarray) -> np.ndarray:
        return np.linalg.norm(vertices[self.edges[:, 0]] - vertices[self.edges[:, 1]], axis=1)

    def _normals(self, vertices: np.ndarray) -> np.ndarray:
        a, b, c = (vertices[self.skin[:, k]] for k in range(3))
        return np.cross(b - a, c - a)


def _extremes(values: np.ndarray) -> tuple[float, float, float, float]:
    low, high = np.percentile(values, [0.1, 99.9])
    return float(values.min()), float(values.max()), float(low), float(high)


def mirror_errors(model: MorphableModel) -> dict[str, float]:
    """How far mean, topology and bases are from mirror symmetry.

    mean: millimetres; triangles: share without a mirrored partner; components: largest relative distance of a shape
    component from being symmetric or antisymmetric
    """
    mean, partner = model.mean.numpy(), model.mirror.numpy()
    triangles = model.triangles.numpy()
    own = {tuple(sorted(triangle)) for triangle in triangles.tolist()}
    mirrored = {tuple(sorted(triangle)) for triangle in partner[triangles].tolist()}
    basis = model.shape_basis.numpy()
    flipped = basis[:, partner] * MIRRORED.astype(np.float32)
    size = np.linalg.norm(basis, axis=(1, 2))
    even = np.linalg.norm(basis - flipped, axis=(1, 2)) / size
    odd = np.linalg.norm(basis + flipped, axis=(1, 2)) / size
    return {
        "mean": float(np.abs(mean - mean[partner] * MIRRORED).max()),
        "triangles": len(own - mirrored) / len(own),
        "components": float(np.minimum(even, odd).max()),
    }
