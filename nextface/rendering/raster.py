"""The one question a rasterizer answers: which triangle is visible at each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

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
    """Back ends: `CpuRasterizer` (numba z-buffer); later nvdiffrast on CUDA."""

    def visible_triangles(self, vertices_camera: Tensor, triangles: Tensor, camera: Camera) -> VisiblePixels:
        """Nearest triangle at every pixel centre.

        vertices_camera: camera space, mm. [B, V, 3]; triangles: [T, 3] int64; both faces of a triangle cover.
        Triangles with a vertex nearer than 1 mm to the camera plane are dropped. No gradients flow.
        """
        ...
