"""Detected landmarks of one face."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

POINT_COUNTS = {"mediapipe": (478, 468), "fan": (68,), "ibug68": (68,)}
"""Points per convention. In "ibug68" the jaw points lie on the visible silhouette; "fan" has the same 68 points as projected
3D points; "mediapipe" numbers the face mesh, with (478) or without (468) irises."""

JAW = range(17)
"""Contour points of the 68-point conventions."""

_TOP_AND_CHIN = {"mediapipe": (10, 152), "fan": (27, 8), "ibug68": (27, 8)}


@dataclass(frozen=True)
class Landmarks:
    """Points of one face in pixels, pixel centres at .5, x right, y down.

    index:      the detector's own point numbers. [N] int64
    points:     [N, 2]
    confidence: 1 for a typical point, less for one that the detector is unsure of. [N]
    """

    convention: str
    index: Tensor
    points: Tensor
    confidence: Tensor

    def moved(self, points: Tensor) -> Landmarks:
        """The same landmarks at other places."""
        return replace(self, points=points)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """left, top, right, bottom"""
        low, high = self.points.amin(0).tolist(), self.points.amax(0).tolist()
        return low[0], low[1], high[0], high[1]

    @property
    def size(self) -> float:
        """Longer side of the box."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)

    def upward(self) -> Tensor:
        """Unit vector in the image from the chin to the forehead; (0, -1) when those points are missing. [2]"""
        top, chin = (self.points[self.index == number] for number in _TOP_AND_CHIN[self.convention])
        up = self.points.new_tensor([0.0, -1.0])
        if len(top) and len(chin) and torch.linalg.norm(top[0] - chin[0]) > 1e-3:
            up = torch.nn.functional.normalize(top[0] - chin[0], dim=0)
        return up
