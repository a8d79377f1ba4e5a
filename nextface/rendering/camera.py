"""Pinhole camera in OpenCV axes: x right, y down, z forward; pixel centres at .5."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nextface.scene import Scene


@dataclass(frozen=True)
class Camera:
    """focal: [B] pixels; principal: (x, y) [B, 2] pixels; height, width: of the image in pixels."""

    focal: Tensor
    principal: Tensor
    height: int
    width: int

    @classmethod
    def of(cls, scene: Scene) -> Camera:
        return cls(scene.focal, scene.principal, scene.height, scene.width)

    def project(self, points: Tensor) -> Tensor:
        """Camera space to pixels. `[B, N, 3] -> [B, N, 2]`."""
        return self.focal[:, None, None] * points[..., :2] / points[..., 2:] + self.principal[:, None, :]

    def resized(self, height: int, width: int) -> Camera:
        """The same view on a grid of another size (the aspect is kept by the caller)."""
        scale = height / self.height
        return Camera(self.focal * scale, self.principal * scale, height, width)

    def rays(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Directions through pixel centres with z = 1, camera axes. `[P] each -> [P, 3]`."""
        focal, principal = self.focal[image], self.principal[image]
        x = (column + 0.5 - principal[:, 0]) / focal
        y = (row + 0.5 - principal[:, 1]) / focal
        return torch.stack([x, y, torch.ones_like(x)], -1)
