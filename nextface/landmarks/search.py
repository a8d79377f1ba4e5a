"""Faces at native resolution: windows from the padded whole frame down to tiles, then the mesh on an enlarged crop of each."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from nextface.landmarks.mediapipe_mesh import MeshBackend
from nextface.landmarks.points import Landmarks

WINDOW = 512
"""Windows are shrunk to this side before the detector, which itself works at less."""
SMALLEST_TILE = 448
TILE_OVERLAP = 0.25
MESH_WINDOW = 512
MESH_VIEWS = ((2.0, 0.0), (1.7, 12.0), (1.7, -12.0), (2.3, 0.0))
"""(side of the window in units of the face, turn from upright in degrees): the mesh is the mean over these views."""
TYPICAL_SCATTER = 0.02
"""Scatter between views, in units of the face, at which the confidence of a point is a half."""
FOREHEAD, CHIN = 10, 152
_GREY = 128


class Window(NamedTuple):
    """A square of the frame: centre and side in frame pixels, turned by `turn` degrees."""

    x: float
    y: float
    side: float
    turn: float


class MediapipeDetector:
    """MediaPipe's 478 points, the largest face first.

    Its own detector overlooks faces that are small in the frame: they are searched in ever smaller overlapping windows
    until some are found. Everything works in native pixels, so that the points are as sharp as the photo.
    """

    convention = "mediapipe"

    def __init__(self, backend: MeshBackend) -> None:
        self.backend = backend

    def faces(self, rgb: np.ndarray) -> list[Landmarks]:
        """All faces found in an sRGB image `[H, W, 3]` uint8; points in its pixels."""
        found: list[Landmarks] = []
        for windows in _levels(rgb.shape[1], rgb.shape[0], self.backend.smallest):
            hits = [hit for window in windows for hit in self._hits(rgb, window)]
            for hit in sorted(hits, key=lambda hit: -hit.side):
                if not any(_inside(hit, face) for face in found):
                    face = self._face(rgb, hit)
                    if face is not None and not any(
                        _same(face.points.numpy(), other.points.numpy()) for other in found
                    ):
                        found.append(face)
            if found:
                break
        return sorted(found, key=lambda face: -face.size)

    def _hits(self, rgb: np.ndarray, window: Window) -> list[Window]:
        """The detector's boxes, which cover brows to chin, as windows of the frame."""
        patch, matrix = _cut(rgb, window, min(WINDOW, max(192, math.ceil(window.side))))
        hits = []
        for box in self.backend.boxes(patch):
            x, y = _back((box[None, :2] + box[None, 2:]) / 2, matrix)[0]
            side = float((box[2:] - box[:2]).max()) * window.side / patch.shape[0]
            hits.append(Window(float(x), float(y), side, window.turn))
        return hits

    def _mesh(self, rgb: np.ndarray, window: Window) -> np.ndarray | None:
        patch, matrix = _cut(rgb, window, MESH_WINDOW)
        points = self.backend.mesh(patch)
        return None if points is None else _back(points, matrix)

    def _face(self, rgb: np.ndarray, hit: Window) -> Landmarks | None:
        """Mean and doubt of the mesh over several views of the upright face; None when they do not agree on one."""
        first = None
        for factor in (2.0, 1.5, 3.0):
            first = self._mesh(rgb, Window(hit.x, hit.y, hit.side * factor, hit.turn))
            if first is not None:
                break
        if first is None:
            return None
        first_turn = _turn(first)
        (x, y), size = (first.min(0) + first.max(0)) / 2, np.ptp(first, 0).max()
        views = []
        for factor, turn in MESH_VIEWS:
            points = self._mesh(rgb, Window(x, y, size * factor, first_turn + turn))
            if points is not None and _same(points, first):
                views.append(points)
        if len(views) < len(MESH_VIEWS) / 2:
            return None
        stack = np.stack(views)
        scatter = np.linalg.norm(stack - stack.mean(0), axis=-1).mean(0) / size
        confidence = 1.0 / (1.0 + (scatter / TYPICAL_SCATTER) ** 2)
        return Landmarks(
            convention=self.convention,
            index=torch.arange(stack.shape[1]),
            points=torch.from_numpy(stack.mean(0).astype(np.float32)),
            confidence=torch.from_numpy(confidence.astype(np.float32)),
        )


def _levels(width: int, height: int, smallest: float) -> list[list[Window]]:
    """Windows from coarse to fine, each level for the faces that are too small for the one before; at last the whole frame
    turned, for photos that lie on their side."""
    longest = float(max(width, height))
    whole = [Window(width / 2, height / 2, longest * factor, 0.0) for factor in (1.0, 1.5)]
    levels = [whole]
    tile = longest * max(0.5, 2 * smallest)
    while tile >= SMALLEST_TILE:
        levels.append([Window(x, y, tile, 0.0) for y in _centres(height, tile) for x in _centres(width, tile)])
        tile /= 2
    levels.append([Window(window.x, window.y, window.side, turn) for turn in (90.0, -90.0, 180.0) for window in whole])
    return levels


def _centres(length: int, tile: float) -> list[float]:
    """Evenly spaced tiles that cover a side, overlapping by at least `TILE_OVERLAP`."""
    if tile >= length:
        return [length / 2]
    count = math.ceil((length - tile) / (tile * (1 - TILE_OVERLAP))) + 1
    return [float(centre) for centre in np.linspace(tile / 2, length - tile / 2, count)]


def _turn(points: np.ndarray) -> float:
    """Degrees by which a window must be turned for this mesh to stand upright in it."""
    up = points[FOREHEAD] - points[CHIN]
    return math.degrees(math.atan2(-up[0], -up[1]))


def _cut(rgb: np.ndarray, window: Window, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A window as `[size, size, 3]`, grey outside the frame, and the affine map [2, 3] from frame to window pixels.

    Shrinking averages areas first, so that large photos do not alias.
    """
    import cv2

    centre, side = np.array([window.x, window.y]), window.side
    reach = side * (0.75 if window.turn else 0.5)
    left, right = max(0, math.floor(window.x - reach)), min(rgb.shape[1], math.ceil(window.x + reach))
    top, bottom = max(0, math.floor(window.y - reach)), min(rgb.shape[0], math.ceil(window.y + reach))
    if right - left < 2 or bottom - top < 2:
        left, top, right, bottom = 0, 0, 2, 2
    part = rgb[top:bottom, left:right]
    shrink = min(1.0, 1.5 * size / side)
    if shrink < 1.0:
        wanted = max(2, round(part.shape[1] * shrink)), max(2, round(part.shape[0] * shrink))
        part = cv2.resize(part, wanted, interpolation=cv2.INTER_AREA)
    ratio = np.array([part.shape[1] / (right - left), part.shape[0] / (bottom - top)])
    scale, angle = size / side, math.radians(window.turn)
    rotation = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = np.concatenate([rotation, (size / 2 - rotation @ centre)[:, None]], 1)
    # cv2 puts pixel centres at integers; `matrix` has them at .5
    from_part = rotation / ratio
    shift = matrix[:, 2] + rotation @ np.array([left, top]) + from_part @ np.array([0.5, 0.5]) - 0.5
    warp = np.concatenate([from_part, shift[:, None]], 1)
    patch = cv2.warpAffine(
        part, warp, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(_GREY,) * 3
    )
    return patch, matrix


def _back(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Window pixels to frame pixels. [N, 2]"""
    return (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T


def _inside(hit: Window, face: Landmarks) -> bool:
    """Whether the hit's centre lies within a face that is already found."""
    left, top, right, bottom = face.box
    return left < hit.x < right and top < hit.y < bottom


def _same(points: np.ndarray, other: np.ndarray) -> bool:
    """Whether two meshes are of one face: overlap of their boxes over their union above 0.4."""
    low, high = np.maximum(points.min(0), other.min(0)), np.minimum(points.max(0), other.max(0))
    overlap = np.maximum(high - low, 0.0).prod()
    union = np.ptp(points, 0).prod() + np.ptp(other, 0).prod() - overlap
    return bool(overlap > 0.4 * union)
