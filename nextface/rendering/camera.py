"""Pinhole camera in OpenCV axes: x right, y down, z forward; pixel centres at .5."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from nextface.scene import Scene

CAMERA_TO_VIEW = (1.0, -1.0, -1.0)
"""Camera axes (x right, y down, z forward) to view axes (x right, y up, z to the viewer), or back."""


@dataclass(frozen=True)
class Camera:
    """focal: [B] pixels; principal: (x, y) [B, 2] pixels; height, width: of the image in pixels.

    frame: pixels that belong to each image, where images of several sizes share one grid; nothing is drawn in the others.
        [B, H, W] bool, None where all belong.
    """

    focal: Tensor
    principal: Tensor
    height: int
    width: int
    frame: Tensor | None = None

    @classmethod
    def of(cls, scene: Scene) -> Camera:
        frame = frames(scene.sizes, scene.height, scene.width, scene.device)
        return cls(scene.focal, scene.principal, scene.height, scene.width, frame)

    def project(self, points: Tensor) -> Tensor:
        """Camera space to pixels. `[B, N, 3] -> [B, N, 2]`."""
        return self.focal[:, None, None] * points[..., :2] / points[..., 2:] + self.principal[:, None, :]

    def scaled(self, scale: Tensor, height: int, width: int, frame: Tensor | None = None) -> Camera:
        """The same views with pixels 1/scale as wide. scale: [B]; height, width: of the new grid; frame: of the new grid"""
        focal, principal = self.focal * scale, self.principal * scale[:, None]
        return replace(self, focal=focal, principal=principal, height=height, width=width, frame=frame)

    def rays(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Directions through pixel centres with z = 1, camera axes. `[P] each -> [P, 3]`."""
        focal, principal = self.focal[image], self.principal[image]
        x = (column + 0.5 - principal[:, 0]) / focal
        y = (row + 0.5 - principal[:, 1]) / focal
        return torch.stack([x, y, torch.ones_like(x)], -1)


@lru_cache(maxsize=8)
def frames(sizes: tuple[tuple[int, int], ...], height: int, width: int, device: torch.device) -> Tensor | None:
    """`Camera.frame` of images of `sizes` (height, width), each in the upper left corner of the grid; () where all fill it."""
    if set(sizes) <= {(height, width)}:
        return None
    extent = torch.tensor(sizes, device=device)
    row, column = torch.arange(height, device=device), torch.arange(width, device=device)
    return (row < extent[:, :1])[:, :, None] & (column < extent[:, 1:])[:, None, :]
