"""The one question a rasterizer answers: which triangle is visible at each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nextface.rendering.camera import Camera


@dataclass(frozen=True)
class VisiblePixels:
    """The covered pixels of B images, packed in (image, row, column) order.

    image, row, column, triangle: [P] int64
    neighbours: packed index of the pixel to the left, right, above and below, -1 where that is background. [P, 4] int64
    """

    image: Tensor
    row: Tensor
    column: Tensor
    triangle: Tensor
    neighbours: Tensor
    batch: int
    height: int
    width: int

    @classmethod
    def of(cls, visible: Tensor) -> VisiblePixels:
        """Pack visible triangle indices, -1 for background, `[B, H, W]`, on their device; the host waits for their count."""
        batch, height, width = visible.shape
        flat = visible.flatten()
        place = torch.nonzero(flat >= 0)[:, 0]
        image, within = place // (height * width), place % (height * width)
        row, column = within // width, within % width
        # Numbers of the packed pixels in images with a margin of background.
        wide = width + 2
        inside = (image * (height + 2) + row + 1) * wide + column + 1
        numbers = torch.full((batch * (height + 2) * wide,), -1, device=visible.device)
        numbers[inside] = torch.arange(len(place), device=visible.device)
        neighbours = torch.stack([numbers[inside + step] for step in (-1, 1, -wide, wide)], 1)
        return cls(image, row, column, flat[place].long(), neighbours, batch, height, width)

    def __len__(self) -> int:
        return self.image.shape[0]

    def unpack(self, values: Tensor, background: float = 0.0) -> Tensor:
        """Scatter packed values `[P, C]` into images `[B, H, W, C]`."""
        images = values.new_full((self.batch, self.height, self.width, values.shape[1]), background)
        images[self.image, self.row, self.column] = values
        return images

    def pack(self, images: Tensor) -> Tensor:
        """Gather the covered pixels of `[B, H, W, ...]` as `[P, ...]`."""
        return images[self.image, self.row, self.column]


class Rasterizer(Protocol):
    """Back ends: `CpuRasterizer` (numba z-buffer) and `NvdiffrastRasterizer` (CUDA); `rasterizer_for` picks one."""

    def visible_triangles(self, vertices_camera: Tensor, triangles: Tensor, camera: Camera) -> VisiblePixels:
        """Nearest triangle at every pixel centre.

        vertices_camera: camera space, mm. [B, V, 3]; triangles: [T, 3] int64; both faces of a triangle cover.
        Triangles with a vertex nearer than 1 mm to the camera plane are dropped; nothing is visible outside `camera.frame`.
        No gradients flow.
        """
        ...
