"""The 68 points of the 2D-type convention ("ibug68"), defined on the mesh from MediaPipe's published face contours.

A photo's file of 68 points fits any head that MediaPipe's points lie on. Numbers, as in Sagonas et al., "300 Faces in-the-Wild" (2013): jaw 0-16 from the subject's right ear to the left, brows
17-26, nose bridge 27-30 downwards, nose base 31-35, eyes 36-47 clockwise in the picture from the corner at its left,
outer lips 48-59, inner lips 60-67, both clockwise from the corner at the picture's left.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from nextface.errors import MissingPackageError, ModelError
from nextface.landmarks.points import POINT_COUNTS
from nextface.landmarks.quiet import quiet_stderr
from nextface.morphable.model import LandmarkEmbedding, MorphableModel

JAW_CANDIDATES = 11
JAW_STEP = 6.0
"""Spacing of the sliding candidates along the surface, millimetres."""
SECTION_WEIGHT = 0.5
"""Weight of the jaw and nose points, which come from sections of the head and not from points that were found."""
_UPPER_INNER_LIP = 13
"""MediaPipe's number of the middle of the upper lip's inner edge: closed lips do not tell which edge is which."""
_WINGS = [129, 358]
"""MediaPipe's numbers of the outsides of the nose's wings."""
_CENTRE_DEPTH = 100.0
"""How far the middle of the head lies behind the tip of the nose, mm."""
_CAMERA_DEPTH = 900.0
"""z of the camera that sees the jaw's frontal outline, mm."""


Contours = dict[str, frozenset[tuple[int, int]]]


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
    """Ray queries against triangles, which may leave holes and end at borders. numbers: [T], corners: [T, 3, 3]"""

    def __init__(self, numbers: np.ndarray, corners: np.ndarray) -> None:
        self.numbers = numbers
        self.corners = corners

    def section(self, origin: np.ndarray, normal: np.ndarray) -> OuterSurface:
        """The triangles that a plane meets: all that rays within it can hit, which makes many of them quick."""
        side = (self.corners - origin) @ normal
        met = (side.min(1) <= 1e-9) & (side.max(1) >= -1e-9)
        return OuterSurface(self.numbers[met], self.corners[met])

    def nearest(self, point: np.ndarray, axes: slice = slice(None)) -> tuple[Place, np.ndarray]:
        """The vertex nearest to a point, distances being measured along `axes` alone."""
        distance = np.linalg.norm((self.corners - point)[..., axes], axis=-1)
        row, corner = np.unravel_index(int(distance.argmin()), distance.shape)
        return Place(int(self.numbers[row]), np.eye(3)[corner]), self.corners[row, corner]

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
    outline of a frontal view. Where the mesh ends, so do the candidates; a section without any surface has the vertex
    nearest to the place instead. top: height at which the jaw line ends beside the eyes.
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
        origin = np.array([0.0, centre[1], np.nanmax(points[:, 2]) - _CENTRE_DEPTH])
        section = surface.section(origin, np.cross(radial, [0.0, 0.0, 1.0]))
        hits = []
        for angle in np.radians(np.arange(-50.0, 75.0, 0.5)):
            hit = section.last_hit(origin, np.cos(angle) * radial + np.sin(angle) * np.array([0.0, 0.0, 1.0]))
            if hit is not None:
                hits.append(hit)
        hits = hits or [surface.nearest(place)]
        curve = np.array([point for _, point in hits])
        walked = np.concatenate([[0.0], np.linalg.norm(np.diff(curve, axis=0), axis=1).cumsum()])
        reach = (curve - centre) @ radial / (_CAMERA_DEPTH - curve[:, 2])
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


def nose(surface: OuterSurface, eye_height: float, half_width: float) -> list[Place]:
    """Bridge 27-30 (nasion to tip, equal steps) and base 31-35 (wing, nostril, septum, nostril, wing).

    half_width: from the middle to the outside of a wing, mm; the wing's crease is the steepest place thereabouts.
    Seen through a hole, a point is the vertex beside it. Raises ValueError where the profile has no nose.
    """
    behind = float(surface.corners[..., 2].min()) - 1.0
    front = np.array([0.0, 0.0, 1.0])

    def seen(x: float, y: float, part: OuterSurface = surface) -> tuple[Place, np.ndarray]:
        start = np.array([x, y, behind])
        return part.last_hit(start, front) or surface.nearest(start, slice(0, 2))

    heights = np.arange(eye_height + 4, eye_height - 75, -0.5)
    middle = surface.section(np.zeros(3), np.array([1.0, 0.0, 0.0]))
    profile = np.array([seen(0.0, y, middle)[1] for y in heights])
    tip = int(profile[:90, 2].argmax())
    if tip == 0:
        raise ValueError("the profile does not rise to a nose below the eyes")
    base = tip + int(profile[tip : tip + 40, 2].argmin())
    nasion = int(profile[:tip, 2].argmin())
    bridge = [seen(0.0, y)[0] for y in np.linspace(heights[nasion], heights[tip], 4)]
    low = 0.65 * heights[base] + 0.35 * heights[tip]
    height = 0.5 * (heights[base] + heights[tip])
    across = surface.section(np.array([0.0, height, 0.0]), np.array([0.0, 1.0, 0.0]))
    columns = np.arange(5.0, 40.0, 0.5)
    columns = columns[(columns > 0.75 * half_width) & (columns < 1.05 * half_width)]
    if len(columns) < 2:
        raise ValueError("the wings of its nose have no place")
    row = np.array([seen(x, height, across)[1] for x in columns])
    wing = float(columns[np.abs(np.diff(row[:, 2])).argmax()]) - 1.0
    return bridge + [
        seen(x, low if abs(x) < 0.9 * wing else low + 2.0)[0] for x in (-wing, -0.5 * wing, 0.0, 0.5 * wing, wing)
    ]


def ibug68(model: MorphableModel, embedding: LandmarkEmbedding) -> LandmarkEmbedding:
    """All 68 points on a head, in order.

    embedding: MediaPipe's on that head, one candidate each; some points may be missing. Points of eyes, brows and lips
    keep the weights of the points that they are taken from. Raises ModelError when the head's surface or its points do not
    suffice.
    """
    vertices, triangles = model.mean.cpu().numpy().astype(float), model.triangles.cpu().numpy()
    outer = np.flatnonzero(facing_skin(model)[triangles].all(1))
    surface = OuterSurface(outer, vertices[triangles[outer]])
    contours = connections()
    columns = (embedding.index, embedding.triangle[:, 0], embedding.barycentric[:, 0].double(), embedding.weight)
    rows = list(zip(*(column.cpu().numpy() for column in columns), strict=True))
    places = {int(number): Place(int(triangle), barycentric) for number, triangle, barycentric, _ in rows}
    weights = {int(number): float(weight) for number, _, _, weight in rows}
    points = np.full((POINT_COUNTS["mediapipe"][0], 3), np.nan)
    for number, place in places.items():
        points[number] = place.barycentric @ vertices[triangles[place.triangle]]
    try:
        chosen = _all_points(points, contours, surface)
    except ValueError as error:
        raise ModelError(
            f"{model.name}: the 68 points cannot be placed on it ({error}); give 478 mediapipe points, or use the open head"
        ) from error
    candidates = [[places[part]] if isinstance(part, int) else part for part in chosen]
    width = max(len(row) for row in candidates)
    padded = [row + row[-1:] * (width - len(row)) for row in candidates]
    return LandmarkEmbedding(
        index=torch.arange(len(chosen)),
        triangle=torch.tensor([[place.triangle for place in row] for row in padded]),
        barycentric=torch.from_numpy(np.array([[place.barycentric for place in row] for row in padded])).float(),
        count=torch.tensor([len(row) for row in candidates]),
        weight=torch.tensor([weights[part] if isinstance(part, int) else SECTION_WEIGHT for part in chosen]),
    )


def _all_points(points: np.ndarray, contours: Contours, surface: OuterSurface) -> list[int | list[Place]]:
    """The 68 points in order: a number of MediaPipe's, or candidates on the surface.

    points: MediaPipe's on the mean head, NaN where missing. [478, 3]
    """
    if not len(surface.numbers):
        raise ValueError("no skin faces forward")
    found = np.isfinite(points[:, 0])

    def chains(name: str) -> list[list[int]]:
        kept = [[number for number in chain if found[number]] for chain in loops(contours[name])]
        if min(len(chain) for chain in kept) < 3:
            raise ValueError(f"too few mediapipe points of the {name.replace('_', ' ')} lie on it")
        return kept

    lips = sorted(chains("lips"), key=lambda loop: _UPPER_INNER_LIP in loop)
    upper_lip, lower_lip = halves(lips[0], points)
    upper_inner, lower_inner = halves(lips[1], points)
    if _UPPER_INNER_LIP in lower_inner:
        upper_inner, lower_inner = lower_inner, upper_inner
    eyes = {side: halves(chains(f"{side}_eye")[0], points) for side in ("right", "left")}
    eye_height = float(np.mean([points[upper, 1].mean() for upper, _ in eyes.values()]))
    mouth = points[lips[0]].mean(0) * [0.0, 1.0, 1.0]
    half_width = 0.5 * float(np.ptp(points[_WINGS, 0]))
    chosen: list[int | list[Place]] = [*jaw(points, chains("face_oval")[0], surface, mouth, eye_height)]
    for side in ("right", "left"):
        brow = max(chains(f"{side}_eyebrow"), key=lambda chain: points[chain, 1].mean())
        brow.sort(key=lambda number: points[number, 0])
        chosen += at_shares(brow, points, np.linspace(0, 1, 5))
    chosen += [[place] for place in nose(surface, eye_height, half_width)]
    for side in ("right", "left"):
        upper, lower = eyes[side]
        chosen += at_shares(upper, points, (0, 1 / 3, 2 / 3, 1)) + at_shares(lower, points, (2 / 3, 1 / 3))
    for upper, lower, count in ((upper_lip, lower_lip, 7), (upper_inner, lower_inner, 5)):
        chosen += at_shares(upper, points, np.linspace(0, 1, count))
        chosen += at_shares(lower, points, np.linspace(1, 0, count)[1:-1])
    return chosen


def connections() -> Contours:
    """MediaPipe's published contours, by the names "lips", "left_eye", "right_eye", "left_eyebrow", "right_eyebrow",
    "face_oval": pairs of point numbers."""
    try:
        with quiet_stderr():
            from mediapipe.python.solutions import face_mesh_connections as contours
    except ImportError as error:
        raise MissingPackageError(
            f"placing 68 points needs MediaPipe's contours ({error}): pip install mediapipe==0.10.21"
        ) from error
    return {
        "lips": contours.FACEMESH_LIPS,
        "left_eye": contours.FACEMESH_LEFT_EYE,
        "right_eye": contours.FACEMESH_RIGHT_EYE,
        "left_eyebrow": contours.FACEMESH_LEFT_EYEBROW,
        "right_eyebrow": contours.FACEMESH_RIGHT_EYEBROW,
        "face_oval": contours.FACEMESH_FACE_OVAL,
    }


def facing_skin(model: MorphableModel) -> np.ndarray:
    """Vertices on which contour points may lie: skin in front of the ears, without neck, mouth and eyes. [V] bool"""
    hidden = torch.stack([model.regions[name] for name in ("ears", "neck", "mouth_interior", "eyes", "scalp")]).sum(0)
    depth = model.mean[:, 2]
    ears = depth[model.regions["ears"] > 0.5]
    behind = ears.max() if len(ears) else depth.min() - 1.0
    return ((hidden < 0.6) & (depth > behind)).cpu().numpy()
