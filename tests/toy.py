"""A tiny morphable head for quick tests: an ellipsoid with a nose, few bases, every field filled."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from nextface.morphable.mirror import mirror_index
from nextface.morphable.model import LandmarkEmbedding, MorphableModel
from nextface.morphable.unwrap import unwrap

COLUMNS = 24
ROWS = 25
HALF = (75.0, 112.0, 92.0)


@lru_cache(maxsize=1)
def toy_model() -> MorphableModel:
    """601 vertices, 1176 triangles; 5 shape, 3 expression and 3 albedo components; mirror-symmetric.

    The neck is open, the crown closed. Embedding "mediapipe": 52 fixed points on the front and 12 jaw points that
    slide (8 candidates each, from the subject's left to the right); its point numbers are scattered in 0..477.
    """
    mean, triangles, azimuth, height = _head()
    mirror = mirror_index(mean, triangles)
    uv, uv_triangles, uv_to_vertex = unwrap(mean, triangles, mirror)
    regions = _regions(mean, azimuth, height)
    diffuse = np.array([0.45, 0.28, 0.21]) * (1 + 0.05 * np.sin(mean[:, 1:2] / 15.0))
    diffuse = np.where(regions["lips"][:, None] > 0.5, [0.40, 0.15, 0.14], diffuse)
    diffuse = np.where(regions["eyes"][:, None] > 0.5, [0.60, 0.58, 0.55], diffuse)
    diffuse = np.where(regions["eyebrows"][:, None] > 0.5, [0.10, 0.07, 0.05], diffuse)
    cheeks = np.exp(-((np.abs(azimuth) - 0.8) ** 2) / 0.1 - (height + 0.2) ** 2 / 0.1)[:, None]
    diffuse_basis = np.stack(
        [-0.25 * diffuse, cheeks * [0.04, -0.01, -0.01], (mean[:, :1] / 75.0) * [0.01, 0.01, 0.01]]
    )
    specular = 0.7 + 0.2 * np.exp(-((mean[:, :1] / 20.0) ** 2))
    roughness = 0.45 - 0.1 * regions["lips"][:, None]
    return MorphableModel(
        name="toy head",
        licence="CC0-1.0",
        mean=_tensor(mean),
        shape_basis=_tensor(_shapes(mean, azimuth, height)),
        expression_basis=_tensor(_expressions(mean, azimuth, height)),
        expression_lower=torch.tensor([0.0, 0.0, -torch.inf]),
        expression_upper=torch.tensor([1.5, 1.5, torch.inf]),
        diffuse_mean=_tensor(diffuse),
        diffuse_basis=_tensor(diffuse_basis),
        specular_mean=_tensor(specular),
        specular_basis=_tensor(np.stack([0.05 * specular, 0.03 * cheeks, 0 * cheeks])),
        roughness_mean=_tensor(roughness),
        triangles=torch.from_numpy(triangles),
        uv=_tensor(uv),
        uv_triangles=torch.from_numpy(uv_triangles),
        uv_to_vertex=torch.from_numpy(uv_to_vertex),
        regions={name: _tensor(mask) for name, mask in regions.items()},
        mirror=torch.from_numpy(mirror),
        landmarks={"mediapipe": _embedding(mean, triangles, azimuth, height)},
    )


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _head() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices in mm, triangles, azimuth from the nose to the subject's left, height -1..1."""
    azimuth = np.arange(COLUMNS) * 2 * np.pi / COLUMNS
    azimuth = np.where(azimuth > np.pi + 1e-9, azimuth - 2 * np.pi, azimuth)
    latitude = np.linspace(-0.36, 0.48, ROWS) * np.pi
    azimuth, latitude = np.meshgrid(azimuth, latitude)
    azimuth, latitude = np.append(azimuth.ravel(), 0.0), np.append(latitude.ravel(), np.pi / 2)
    vertices = np.stack([np.cos(latitude) * np.sin(azimuth), np.sin(latitude), np.cos(latitude) * np.cos(azimuth)], 1)
    height = vertices[:, 1].copy()
    vertices = vertices * HALF
    vertices[:, 2] += 28.0 * np.exp(-(azimuth**2) / 0.03 - (height + 0.05) ** 2 / 0.02)
    vertices[:, 2] += 8.0 * np.exp(-(azimuth**2) / 0.2 - (height + 0.42) ** 2 / 0.01)
    vertices[np.abs(np.sin(azimuth)) < 1e-9, 0] = 0.0
    triangles = []
    for row in range(ROWS - 1):
        for column in range(COLUMNS):
            a, b = row * COLUMNS + column, row * COLUMNS + (column + 1) % COLUMNS
            c, d = b + COLUMNS, a + COLUMNS
            triangles += [[a, b, c], [a, c, d]] if column < COLUMNS // 2 else [[a, b, d], [b, c, d]]
    crown = ROWS * COLUMNS
    top = (ROWS - 1) * COLUMNS
    triangles += [[top + column, top + (column + 1) % COLUMNS, crown] for column in range(COLUMNS)]
    return vertices, np.array(triangles, dtype=np.int64), azimuth, height


def _regions(vertices: np.ndarray, azimuth: np.ndarray, height: np.ndarray) -> dict[str, np.ndarray]:
    def spot(x: float, y: float, width: float, tall: float) -> np.ndarray:
        off = ((np.abs(vertices[:, 0]) - x) / width) ** 2 + ((vertices[:, 1] - y) / tall) ** 2
        return ((off < 1) & (vertices[:, 2] > 0)).astype(float)

    regions = {
        "lips": spot(0.0, -48.0, 26.0, 9.0),
        "eyes": spot(31.0, 10.0, 16.0, 9.0),
        "eyebrows": spot(31.0, 28.0, 18.0, 8.0),
        "ears": ((np.abs(np.abs(azimuth) - np.pi / 2) < 0.2) & (np.abs(height) < 0.25)).astype(float),
        "mouth_interior": np.zeros(len(vertices)),
        "scalp": ((height > 0.72) | ((np.abs(azimuth) > 1.9) & (height > -0.2))).astype(float),
        "neck": (height < -0.85).astype(float),
    }
    regions["skin"] = 1.0 - np.clip(sum(mask for name, mask in regions.items() if name != "neck"), 0.0, 1.0)
    return regions


def _shapes(vertices: np.ndarray, azimuth: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Width, height, depth of the face, nose length, a crooked jaw. [5, V, 3] mm"""
    x, y, z = np.eye(3)
    nose = np.exp(-(azimuth**2) / 0.05 - (height + 0.1) ** 2 / 0.03)[:, None]
    jaw = np.clip(-height - 0.2, 0.0, 1.0)[:, None]
    front = np.clip(np.cos(azimuth), 0.0, 1.0)[:, None] * (1 - height[:, None] ** 2)
    return np.stack([vertices * x * 0.05, vertices * y * 0.04, front * z * 4.0, nose * z * 3.0, jaw * x * 2.0])


def _expressions(vertices: np.ndarray, azimuth: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Jaw open, smile, brows. [3, V, 3] mm"""
    x, y, z = np.eye(3)
    front = np.clip(np.cos(azimuth), 0.0, 1.0)[:, None]
    jaw = (1 / (1 + np.exp((height + 0.45) / 0.05)))[:, None] * front
    corner = (
        np.exp(-((np.abs(vertices[:, 0]) - 25.0) ** 2) / 200.0 - (vertices[:, 1] + 45.0) ** 2 / 200.0)[:, None] * front
    )
    brow = np.exp(-((vertices[:, 1] - 28.0) ** 2) / 120.0)[:, None] * front
    side = np.sign(vertices[:, :1])
    return np.stack([jaw * (-12.0 * y - 3.0 * z), corner * (5.0 * side * x + 6.0 * y), brow * 4.0 * y])


def _embedding(
    vertices: np.ndarray, triangles: np.ndarray, azimuth: np.ndarray, height: np.ndarray
) -> LandmarkEmbedding:
    centre_azimuth, centre_height = azimuth[triangles].mean(1), height[triangles].mean(1)
    spread = np.ptp(azimuth[triangles], axis=1)
    candidates = np.flatnonzero((spread < 1.0) & (np.abs(centre_azimuth) < 0.95) & (np.abs(centre_height + 0.1) < 0.55))
    fixed = candidates[np.linspace(0, len(candidates) - 1, 52).astype(int)]
    count = 8
    triangle = np.repeat(fixed[:, None], count, 1)
    barycentric = np.tile([[[0.5, 0.3, 0.2]]], (len(fixed), count, 1))
    sliding = []
    for level in (-0.2, -0.35, -0.5, -0.62, -0.74, -0.84):
        for side in (1.0, -1.0):
            angles = np.linspace(1.75, 0.55, count) if side > 0 else np.linspace(-0.55, -1.75, count)
            off = (centre_azimuth[None] - angles[:, None]) ** 2 + (centre_height - level)[None] ** 2
            sliding.append(np.where(spread < 1.0, off, np.inf).argmin(1))
    triangle = np.concatenate([triangle, np.stack(sliding)])
    barycentric = np.concatenate([barycentric, np.full((len(sliding), count, 3), 1 / 3)])
    distinct = np.concatenate([np.ones(len(fixed)), np.full(len(sliding), count)])
    return LandmarkEmbedding(
        index=torch.arange(len(triangle)) * 7 + 3,
        triangle=torch.from_numpy(triangle.astype(np.int64)),
        barycentric=_tensor(barycentric),
        count=torch.from_numpy(distinct.astype(np.int64)),
        weight=torch.cat([torch.ones(len(fixed)), torch.full((len(sliding),), 0.5)]),
    )
