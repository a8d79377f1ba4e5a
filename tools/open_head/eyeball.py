"""An eyeball of rings around the optical axis, so that pupil and iris have round, sharp borders."""

from __future__ import annotations

import numpy as np

from open_head.surface import Polygons

IRIS = 0.375
PUPIL = 0.128
"""Polar angles of the borders, radians: an iris of 11.8 mm and a pupil of 4 mm on the mean head's eyeball (radius 16 mm)."""
BORDER = 0.006
RINGS = (
    0.05, PUPIL - BORDER, PUPIL + BORDER, 0.18, 0.24, 0.30, 0.345, IRIS - BORDER, IRIS + BORDER, 0.43, 0.5, 0.6, 0.72, 0.86, 1.02,
    1.2, 1.45, 1.75, 2.1, 2.6,
)  # fmt: skip
SEGMENTS = 32


def eyeball(helper: np.ndarray) -> tuple[np.ndarray, Polygons, np.ndarray]:
    """An ellipsoid with the extent of the helper.

    helper: vertices of MakeHuman's eye helper, decimetres. [72, 3]
    returns: vertices [E, 3], polygons, angle from the optical axis (+z) [E].
    """
    low, high = helper.min(0), helper.max(0)
    centre, radius = 0.5 * (low + high), 0.5 * (high - low)
    around = (np.arange(SEGMENTS) + 0.5) * 2 * np.pi / SEGMENTS
    directions = [np.array([[0.0, 0.0, 1.0]])]
    for polar in RINGS:
        circle = [np.cos(around) * np.sin(polar), np.sin(around) * np.sin(polar), np.full(SEGMENTS, np.cos(polar))]
        directions.append(np.stack(circle, 1))
    directions.append(np.array([[0.0, 0.0, -1.0]]))
    angle = np.concatenate([[0.0], np.repeat(RINGS, SEGMENTS), [np.pi]])
    polygons: Polygons = []
    last = 1 + SEGMENTS * len(RINGS)
    for k in range(SEGMENTS):
        after = (k + 1) % SEGMENTS
        polygons.append((0, 1 + k, 1 + after))
        for ring in range(len(RINGS) - 1):
            inner, outer = 1 + ring * SEGMENTS, 1 + (ring + 1) * SEGMENTS
            polygons.append((inner + k, outer + k, outer + after, inner + after))
        outer = 1 + (len(RINGS) - 1) * SEGMENTS
        polygons.append((last, outer + after, outer + k))
    return centre + np.concatenate(directions) * radius, polygons, angle


def mirrored_eyeball(eyeball: tuple[np.ndarray, Polygons, np.ndarray]) -> tuple[np.ndarray, Polygons, np.ndarray]:
    """The eyeball of the other side: same numbering, mirrored places, corners turned so that the same diagonals are cut."""
    vertices, polygons, angle = eyeball
    return vertices * [-1.0, 1.0, 1.0], [(face[0], *reversed(face[1:])) for face in polygons], angle
