"""How much of a surface can be seen from outside: pockets (mouth, eye sockets, nostrils) against open skin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GRID = 96
_DIRECTIONS = 48
_BIAS = 2.0


def exposure(vertices: NDArray[np.float64], triangles: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the directions above each vertex, weighted by cosine, in which it sees the outside. `[V]`, 0..1.

    A depth map of 96² cells is splatted from sampled points along each of 48 directions (a Fibonacci sphere and its
    mirror image); a vertex counts as seen within two cells of the nearest depth, so hollows narrower than that
    count as open.
    """
    p, q, r = (vertices[triangles[:, k]] for k in range(3))
    face_normal = np.cross(q - p, r - p)
    normal = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normal, triangles[:, corner], face_normal)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    size = np.ptp(vertices, axis=0).max() * 1.75
    points = _samples(vertices[triangles], size / _GRID)
    centre = 0.5 * (vertices.min(0) + vertices.max(0))
    seen = np.zeros(len(vertices))
    possible = np.full(len(vertices), 1e-9)
    for direction in _fibonacci(_DIRECTIONS):
        across = np.cross(direction, [0.0, 1.0, 0.0])
        across /= np.linalg.norm(across)
        frame = np.stack([across, np.cross(across, direction), direction], 1)
        cells, depth = _project((points - centre) @ frame, size)
        nearest = np.full(_GRID * _GRID, -np.inf)
        np.maximum.at(nearest, cells, depth)
        cells, depth = _project((vertices - centre) @ frame, size)
        facing = np.maximum(normal @ direction, 0.0)
        possible += facing
        seen += facing * (depth >= nearest[cells] - _BIAS * size / _GRID)
    return seen / possible


def _samples(corners: NDArray[np.float64], spacing: float) -> NDArray[np.float64]:
    """Points on triangles `[T, 3, 3]`, in barycentric lattices no coarser than `spacing`. `[N, 3]`"""
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)
    steps = np.clip(np.ceil(longest / spacing), 1, _GRID).astype(np.int64)
    points = []
    for order in np.unique(steps):
        first, second = np.meshgrid(np.arange(order + 1), np.arange(order + 1))
        lattice = np.stack([first, second, order - first - second], -1).reshape(-1, 3)
        weights = lattice[lattice[:, 2] >= 0] / order
        points.append(np.einsum("sk,tkc->stc", weights, corners[steps == order]).reshape(-1, 3))
    return np.concatenate(points)


def _project(local: NDArray[np.float64], size: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    grid = np.clip(((local[:, :2] / size + 0.5) * _GRID).astype(np.int64), 0, _GRID - 1)
    return grid[:, 1] * _GRID + grid[:, 0], local[:, 2]


def _fibonacci(count: int) -> NDArray[np.float64]:
    """Half the directions of a Fibonacci sphere with the pole along z, and their mirror images in x. `[count, 3]`"""
    index = np.arange(count // 2) + 0.5
    z = 1 - 2 * index / (count // 2)
    turn = np.pi * (3 - np.sqrt(5)) * index
    radius = np.sqrt(1 - z * z)
    half = np.stack([radius * np.cos(turn), radius * np.sin(turn), z], 1)
    return np.concatenate([half, half * [-1, 1, 1]])
