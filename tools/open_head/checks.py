"""Numbers that say whether a head is sound: intersections, gaps, stretch, normals, symmetry."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def _segment_hits_triangle(p: np.ndarray, q: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> bool:
    """Moeller and Trumbore (1997); touching ends do not count."""
    d = q - p
    e1, e2 = b - a, c - a
    h = np.cross(d, e2)
    det = (e1 * h).sum()
    if abs(det) < 1e-12:
        return False
    s = p - a
    u = (s * h).sum() / det
    if u <= 0.0 or u >= 1.0:
        return False
    g = np.cross(s, e1)
    v = (d * g).sum() / det
    if v <= 0.0 or u + v >= 1.0:
        return False
    t = (e2 * g).sum() / det
    return 1e-6 < t < 1.0 - 1e-6


@numba.njit(cache=True)
def intersecting(vertices: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Which triangles of `one` [M, 3] cross a triangle of `other` [N, 3] with which they share no vertex. [M] bool"""
    low = np.empty((len(other), 3))
    high = np.empty((len(other), 3))
    for j in range(len(other)):
        for axis in range(3):
            x, y, z = vertices[other[j, 0], axis], vertices[other[j, 1], axis], vertices[other[j, 2], axis]
            low[j, axis], high[j, axis] = min(x, y, z), max(x, y, z)
    order = np.argsort(low[:, 0])
    widest = (high[:, 0] - low[:, 0]).max()
    sorted_low = low[order, 0]
    found = np.zeros(len(one), dtype=np.bool_)
    for i in range(len(one)):
        corner = one[i]
        a, b, c = vertices[corner[0]], vertices[corner[1]], vertices[corner[2]]
        left, right = min(a[0], b[0], c[0]), max(a[0], b[0], c[0])
        bottom, top = min(a[1], b[1], c[1]), max(a[1], b[1], c[1])
        back, front = min(a[2], b[2], c[2]), max(a[2], b[2], c[2])
        k = np.searchsorted(sorted_low, left - widest)
        while k < len(other) and sorted_low[k] <= right and not found[i]:
            j = order[k]
            k += 1
            if high[j, 0] < left or high[j, 1] < bottom or low[j, 1] > top or high[j, 2] < back or low[j, 2] > front:
                continue
            far = other[j]
            shared = False
            for m in range(3):
                for n in range(3):
                    shared = shared or corner[m] == far[n]
            if shared:
                continue
            for m in range(3):
                p, q = vertices[corner[m]], vertices[corner[(m + 1) % 3]]
                r, s = vertices[far[m]], vertices[far[(m + 1) % 3]]
                if _segment_hits_triangle(
                    p, q, vertices[far[0]], vertices[far[1]], vertices[far[2]]
                ) or _segment_hits_triangle(r, s, a, b, c):
                    found[i] = True
                    break
    return found
