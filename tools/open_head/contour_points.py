"""The 68 points of the 2D-type convention ("ibug68"), defined on the mesh from MediaPipe's published face contours.

Numbers, as in Sagonas et al., "300 Faces in-the-Wild" (2013): jaw 0-16 from the subject's right ear to the left, brows
17-26, nose bridge 27-30 downwards, nose base 31-35, eyes 36-47 clockwise in the picture from the corner at its left,
outer lips 48-59, inner lips 60-67, both clockwise from the corner at the picture's left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

JAW_CANDIDATES = 11
JAW_STEP = 6.0
"""Spacing of the sliding candidates along the surface, millimetres."""


@dataclass(frozen=True)
class Place:
    """A point of the surface: triangle number, barycentric coordinates [3]."""

    triangle: int
    barycentric: np.ndarray


def loops(connections: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Chains of a set of point pairs, each walked from one end (or anywhere on a closed loop)."""
    neighbours: dict[int, list[int]] = {}
    for a, b in sorted(connections):
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    chains: list[list[int]] = []
    left = dict(neighbours)
    while left:
        start = min(left, key=lambda point: (len(neighbours[point]), point))
        chain = [start]
        while True:
            left.pop(chain[-1], None)
            onward = [point for point in neighbours[chain[-1]] if point in left]
            if not onward:
                break
            chain.append(onward[0])
        chains.append(chain)
    return chains


def halves(loop: list[int], points: np.ndarray) -> tuple[list[int], list[int]]:
    """Upper and lower half of a closed contour, both from the subject's right corner to the left one, corners included."""
    right, left = (loop.index(f(loop, key=lambda number: points[number, 0])) for f in (min, max))
    turned = loop[right:] + loop[:right]
    far = (left - right) % len(loop)
    one, other = turned[: far + 1], [turned[0]] + turned[far:][::-1]
    other = [turned[0], *reversed(turned[far + 1 :]), turned[far]]
    upper_first = points[one, 1].mean() > points[other, 1].mean()
    return (one, other) if upper_first else (other, one)


def at_shares(chain: list[int], points: np.ndarray, shares: Iterable[float]) -> list[int]:
    """The chain's points nearest to shares of its arc length."""
    length = np.concatenate([[0.0], np.linalg.norm(np.diff(points[chain], axis=0), axis=1).cumsum()])
    return [chain[int(np.abs(length / length[-1] - share).argmin())] for share in shares]


class OuterSurface:
    """Ray queries against the mean head without mouth cavity and eyeballs."""

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray, outer: np.ndarray) -> None:
        self.numbers = np.flatnonzero(outer[triangles].all(1))
        self.corners = vertices[triangles[self.numbers]]

    def last_hit(self, origin: np.ndarray, direction: np.ndarray) -> tuple[Place, np.ndarray] | None:
        """The hit furthest along a ray (Moeller and Trumbore 1997)."""
        a, edge1, edge2 = (
            self.corners[:, 0],
            self.corners[:, 1] - self.corners[:, 0],
            self.corners[:, 2] - self.corners[:, 0],
        )
        p = np.cross(direction, edge2)
        determinant = (edge1 * p).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            t0 = origin - a
            u = (t0 * p).sum(1) / determinant
            q = np.cross(t0, edge1)
            v = (q @ direction) / determinant
            distance = (q * edge2).sum(1) / determinant
            hit = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (distance > 0) & (np.abs(determinant) > 1e-12)
        if not hit.any():
            return None
        k = int(np.flatnonzero(hit)[distance[hit].argmax()])
        place = Place(int(self.numbers[k]), np.array([1 - u[k] - v[k], u[k], v[k]]))
        return place, origin + distance[k] * direction


def jaw(
    points: np.ndarray, oval: list[int], surface: OuterSurface, centre: np.ndarray, top: float
) -> list[list[Place]]:
    """Candidates of the 17 jaw points. centre: middle of the mouth; points: MediaPipe's 478 on the mean head [478, 3].

    Each point slides on the section of the head with the half-plane through the mouth's centre, the z axis and the
    point's place on a frontal face: forward towards the cheek and back under the jaw. The middle candidate is the
    outline of a frontal view. top: height at which the jaw line ends beside the eyes.
    """
    ring = sorted(oval, key=lambda number: np.arctan2(points[number, 0], centre[1] + 40 - points[number, 1]))
    outline = points[ring]
    outline = 0.5 * (outline + _counterparts(outline))
    outline = outline[outline[:, 1] < top]
    length = np.concatenate([[0.0], np.linalg.norm(np.diff(outline[:, :2], axis=0), axis=1).cumsum()])
    result: list[list[Place]] = []
    for share in np.linspace(0.0, 1.0, 17):
        place = np.array([np.interp(share * length[-1], length, outline[:, axis]) for axis in range(3)])
        radial = (place - centre) if abs(share - 0.5) > 1e-6 else np.array([0.0, -1.0, 0.0])
        radial[2] = 0.0
        radial /= np.linalg.norm(radial)
        origin = np.array([0.0, centre[1], 25.0])
        hits = []
        for angle in np.radians(np.arange(-50.0, 75.0, 0.5)):
            hit = surface.last_hit(origin, np.cos(angle) * radial + np.sin(angle) * np.array([0.0, 0.0, 1.0]))
            if hit is not None:
                hits.append(hit)
        curve = np.array([point for _, point in hits])
        walked = np.concatenate([[0.0], np.linalg.norm(np.diff(curve, axis=0), axis=1).cumsum()])
        reach = (curve - centre) @ radial / (900.0 - curve[:, 2])
        middle = walked[reach.argmax()]
        wanted = middle + JAW_STEP * (np.arange(JAW_CANDIDATES) - JAW_CANDIDATES // 2)
        chosen = [hits[int(np.abs(walked - distance).argmin())][0] for distance in wanted]
        result.append(chosen if radial[0] <= 0 else chosen[::-1])
    return result


def _counterparts(outline: np.ndarray) -> np.ndarray:
    """The mirror image of a contour, resampled at the contour's own points by nearest neighbour. [N, 3]"""
    flipped = outline * [-1.0, 1.0, 1.0]
    nearest = np.linalg.norm(outline[:, None] - flipped[None], axis=-1).argmin(1)
    return flipped[nearest]


def nose(vertices: np.ndarray, surface: OuterSurface, eye_height: float) -> list[Place]:
    """Bridge 27-30 (nasion to tip, equal steps) and base 31-35 (wing, nostril, septum, nostril, wing)."""
    front = np.array([0.0, 0.0, 1.0])

    def seen(x: float, y: float) -> tuple[Place, np.ndarray]:
        hit = surface.last_hit(np.array([x, y, 0.0]), front)
        if hit is None:
            raise ValueError("the nose has a hole")
        return hit

    heights = np.arange(eye_height + 4, eye_height - 75, -0.5)
    profile = np.array([seen(0.0, y)[1] for y in heights])
    tip = int(profile[:90, 2].argmax())
    base = tip + int(profile[tip : tip + 40, 2].argmin())
    nasion = int(profile[:tip, 2].argmin())
    bridge = [seen(0.0, y)[0] for y in np.linspace(heights[nasion], heights[tip], 4)]
    low = 0.65 * heights[base] + 0.35 * heights[tip]
    row = np.array([seen(x, 0.5 * (heights[base] + heights[tip]))[1] for x in np.arange(9.0, 30.0, 0.5)])
    wing = 8.0 + 0.5 * float(np.abs(np.diff(row[:, 2])).argmax())
    return bridge + [
        seen(x, low if abs(x) < 0.9 * wing else low + 2.0)[0] for x in (-wing, -0.5 * wing, 0.0, 0.5 * wing, wing)
    ]


def ibug68(
    embedding: Mapping[str, np.ndarray],
    connections: Mapping[str, Iterable[tuple[int, int]]],
    vertices: np.ndarray,
    triangles: np.ndarray,
    outer: np.ndarray,
) -> dict[str, np.ndarray]:
    """All 68 points as an embedding (index, triangle, barycentric, count, weight).

    embedding: MediaPipe's, one candidate each; connections: its contours by the names "lips", "left_eye", "right_eye",
    "left_eyebrow", "right_eyebrow", "face_oval"; outer: vertices of the outer skin [V] bool
    """
    places = {
        int(number): Place(int(triangle[0]), barycentric[0])
        for number, triangle, barycentric in zip(
            embedding["index"], embedding["triangle"], embedding["barycentric"], strict=True
        )
    }
    points = np.full((478, 3), np.nan)
    for number, place in places.items():
        points[number] = place.barycentric @ vertices[triangles[place.triangle]]
    surface = OuterSurface(vertices, triangles, outer)
    chosen: list[list[Place]] = []

    def add(numbers: Iterable[int]) -> None:
        chosen.extend([places[number]] for number in numbers)

    lips = sorted(loops(connections["lips"]), key=lambda loop: -np.ptp(points[loop, 1]))
    outer_lips, inner_lips = (halves(loop, points) for loop in lips)
    eyes = {side: halves(loops(connections[f"{side}_eye"])[0], points) for side in ("right", "left")}
    eye_height = float(np.mean([points[upper, 1].mean() for upper, _ in eyes.values()]))
    mouth = points[lips[0]].mean(0) * [0.0, 1.0, 1.0]
    chosen.extend(jaw(points, loops(connections["face_oval"])[0], surface, mouth, eye_height))
    for side in ("right", "left"):
        upper = max(loops(connections[f"{side}_eyebrow"]), key=lambda chain: points[chain, 1].mean())
        upper.sort(key=lambda number: points[number, 0])
        add(at_shares(upper, points, np.linspace(0, 1, 5)))
    chosen.extend([place] for place in nose(vertices, surface, eye_height))
    for side in ("right", "left"):
        upper, lower = eyes[side]
        add(at_shares(upper, points, (0, 1 / 3, 2 / 3, 1)) + at_shares(lower, points, (2 / 3, 1 / 3)))
    upper, lower = outer_lips
    add(at_shares(upper, points, np.linspace(0, 1, 7)) + at_shares(lower, points, np.linspace(1, 0, 7)[1:-1]))
    upper, lower = inner_lips
    add(at_shares(upper, points, np.linspace(0, 1, 5)) + at_shares(lower, points, np.linspace(1, 0, 5)[1:-1]))
    return _packed(chosen)


def _packed(chosen: list[list[Place]]) -> dict[str, np.ndarray]:
    width = max(len(candidates) for candidates in chosen)
    padded = [candidates + candidates[-1:] * (width - len(candidates)) for candidates in chosen]
    return {
        "index": np.arange(len(chosen)),
        "triangle": np.array([[place.triangle for place in row] for row in padded]),
        "barycentric": np.array([[place.barycentric for place in row] for row in padded]),
        "count": np.array([len(candidates) for candidates in chosen]),
        "weight": np.ones(len(chosen)),
    }
