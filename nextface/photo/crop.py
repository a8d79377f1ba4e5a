"""From the full frame to the crop that is fitted, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from nextface.config import STOCK_FOCAL, OptimConfig
from nextface.errors import InputError
from nextface.landmarks.points import Landmarks
from nextface.photo.source import SourcePhoto

Points = TypeVar("Points", Tensor, np.ndarray)

MARGINS = {"mediapipe": (0.50, 0.30, 0.32), "fan": (0.80, 0.30, 0.32), "ibug68": (0.80, 0.30, 0.32)}
"""Room above, below and beside the landmarks' box, in units of its longer side: hair, some neck, ears."""


@dataclass(frozen=True)
class Crop:
    """A window of the full frame and its scale: crop = (full - (left, top)) · scale, pixel centres at .5.

    left, top:               corner of the window, pixels of the full frame
    scale:                   crop pixels per full-frame pixel, at most 1
    width, height:           of the crop, crop pixels
    full_width, full_height: of the frame
    """

    left: float
    top: float
    scale: float
    width: int
    height: int
    full_width: int
    full_height: int

    def to_crop(self, points: Points) -> Points:
        """Full-frame pixels to crop pixels. [..., 2]"""
        return (points - self._corner(points)) * self.scale

    def to_full(self, points: Points) -> Points:
        """Crop pixels to full-frame pixels. [..., 2]"""
        return points / self.scale + self._corner(points)

    def _corner(self, points: Points) -> Points:
        if isinstance(points, Tensor):
            return points.new_tensor([self.left, self.top])
        return np.array([self.left, self.top], points.dtype)


@dataclass(frozen=True)
class Photo:
    """One face, ready to be fitted.

    name:      file name of the photo
    image:     the crop, linear Rec.709. [H, W, 3] float32
    valid:     True where the crop shows the photo (inside the frame, opaque). [H, W] bool
    focal:     from EXIF, pixels of the crop; None when unknown
    principal: the full frame's centre (x, y) in pixels of the crop, often outside it
    landmarks: pixels of the crop
    faces:     found in the frame; the largest is this one
    """

    name: str
    image: Tensor
    valid: Tensor
    focal: float | None
    principal: tuple[float, float]
    crop: Crop
    landmarks: Landmarks
    source: SourcePhoto
    faces: int = 1

    @property
    def height(self) -> int:
        return self.image.shape[0]

    @property
    def width(self) -> int:
        return self.image.shape[1]

    def known_focal(self, config: OptimConfig) -> float | None:
        """Focal length in pixels of the crop from the first source that knows it: the command line, EXIF, an ini value other
        than the stock one; None when none does. camFocalLength counts pixels of the frame scaled to maxResolution."""
        longest = max(self.crop.full_width, self.crop.full_height)
        given = config.cam_focal_length * max(1.0, longest / config.max_resolution) * self.crop.scale
        if "cam_focal_length" in config.from_command_line:
            return given
        if self.focal is not None:
            return self.focal
        return given if config.cam_focal_length != STOCK_FOCAL else None


def crop_to_face(source: SourcePhoto, landmarks: Landmarks, max_resolution: int, faces: int = 1) -> Photo:
    """Cut out the whole head and scale it so that its longer side has `max_resolution` pixels.

    landmarks: full-frame pixels. The head is an ellipse around them, upright with the face, with `MARGINS` of room; the crop
    is its bounding box within the frame. Small faces are not enlarged: above the native scale there is nothing to see.
    """
    left, top, right, bottom = _head_box(landmarks)
    left, top = max(0, math.floor(left)), max(0, math.floor(top))
    right, bottom = min(source.width, math.ceil(right)), min(source.height, math.ceil(bottom))
    if right - left < 8 or bottom - top < 8:
        raise InputError(
            f"{source.path}: the landmarks lie outside the {source.width} x {source.height} frame or are too close together; "
            "give them in pixels of the full frame"
        )
    scale = min(1.0, max_resolution / max(right - left, bottom - top))
    crop = Crop(
        left=float(left),
        top=float(top),
        scale=scale,
        width=max(1, round((right - left) * scale)),
        height=max(1, round((bottom - top) * scale)),
        full_width=source.width,
        full_height=source.height,
    )
    return cut(source, crop, landmarks.moved(crop.to_crop(landmarks.points)), faces)


def cut(source: SourcePhoto, crop: Crop, landmarks: Landmarks, faces: int = 1) -> Photo:
    """The photo that a known crop gives. landmarks: pixels of the crop."""
    image, valid = _resample(source, crop)
    return Photo(
        name=source.path.name,
        image=torch.from_numpy(image),
        valid=torch.from_numpy(valid),
        focal=None if source.focal is None else source.focal * crop.scale,
        principal=(
            (source.width / 2 - crop.left) * crop.scale,
            (source.height / 2 - crop.top) * crop.scale,
        ),
        crop=crop,
        landmarks=landmarks,
        source=source,
        faces=faces,
    )


def _head_box(landmarks: Landmarks) -> tuple[float, float, float, float]:
    """Bounding box of the ellipse that holds the head: left, top, right, bottom."""
    up = landmarks.upward()
    side = torch.stack([-up[1], up[0]])
    along, across = landmarks.points @ up, landmarks.points @ side
    size = float(max(along.max() - along.min(), across.max() - across.min()))
    above, below, beside = (margin * size for margin in MARGINS[landmarks.convention])
    high, low = float(along.max()) + above, float(along.min()) - below
    middle = float(across.max() + across.min()) / 2
    centre = up * (high + low) / 2 + side * middle
    half_up, half_side = (high - low) / 2, float(across.max() - across.min()) / 2 + beside
    reach = torch.sqrt((half_up * up) ** 2 + (half_side * side) ** 2)
    (left, top), (right, bottom) = (centre - reach).tolist(), (centre + reach).tolist()
    return left, top, right, bottom


def _resample(source: SourcePhoto, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
    """The crop by exact area averages in linear light, transparent pixels left out: [H, W, 3] float32 and valid [H, W] bool.

    Works row by row, so that memory stays that of the crop however large the photo is.
    """
    row_weights = _overlaps(crop.top, crop.scale, crop.height, source.height)
    columns = _overlaps(crop.left, crop.scale, crop.width, source.width)
    first, last = columns[0][0], columns[-1][0] + len(columns[-1][1])
    horizontal = np.zeros((crop.width, last - first), np.float32)
    for number, (begin, weights) in enumerate(columns):
        horizontal[number, begin - first : begin - first + len(weights)] = weights
    image = np.empty((crop.height, crop.width, 3), np.float32)
    valid = np.ones((crop.height, crop.width), bool)
    for number, (begin, weights) in enumerate(row_weights):
        end = begin + len(weights)
        pixels = source.linear(begin, end, first, last)
        if source.alpha is None:
            image[number] = horizontal @ np.tensordot(weights, pixels, 1)
            continue
        opaque = (source.alpha[begin:end, first:last, None] >= 128).astype(np.float32)
        seen = horizontal @ np.tensordot(weights, opaque, 1)
        image[number] = horizontal @ np.tensordot(weights, pixels * opaque, 1) / np.maximum(seen, 1e-6)
        valid[number] = seen[:, 0] > 0.5
    return image, valid


def _overlaps(start: float, scale: float, count: int, size: int) -> list[tuple[int, np.ndarray]]:
    """Per crop pixel along one axis: the first full-frame pixel that it covers and the share of each (they sum to 1)."""
    spans = []
    for number in range(count):
        low = min(start + number / scale, size - 1.0)
        high = max(min(start + (number + 1) / scale, float(size)), low + 1e-6)
        begin, end = math.floor(low + 1e-9), math.ceil(high - 1e-9)
        edges = np.clip(np.arange(begin, end + 1), low, high)
        shares = np.diff(edges)
        spans.append((begin, (shares / shares.sum()).astype(np.float32)))
    return spans
