"""nvdiffrast's CUDA rasterizer: the visible triangle at every pixel centre.

Only visibility is asked of it (`RasterizeCudaContext`, `rasterize`, version 0.4); gradients are ours. nvdiffrast is an optional
package with a non-commercial licence and is imported when a rasterizer is made, never before.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nextface.errors import MissingPackageError
from nextface.gpu import nvdiffrast_problem
from nextface.rendering.camera import Camera
from nextface.rendering.cpu import NEAR
from nextface.rendering.raster import VisiblePixels

_FARTHEST = 2.0**21
"""Pixels from the origin beyond which a projected vertex is unusable, as in `CpuRasterizer`."""
_DEPTHS = 0.9
"""Depths fill -0.9 … 0.9 of the clip volume's -1 … 1: nothing is clipped in front or behind."""
_EXACT = 2**24
"""Triangle numbers come back as float32."""


class NvdiffrastRasterizer:
    """Z-buffer on a CUDA device.

    Corners snap to 1/16 pixel (1/256 in `CpuRasterizer`), so pixel centres closer than that to an edge may go to the
    neighbouring triangle. Depth is linear in 1/z and spread over the 32 bits of the buffer per image. The host waits twice
    per call: inside nvdiffrast, and for the count of covered pixels.
    """

    def __init__(self, device: torch.device) -> None:
        problem = nvdiffrast_problem()
        if problem:
            raise MissingPackageError(f"the CUDA rasterizer cannot be used: {problem}")
        import nvdiffrast.torch

        self._rasterize = nvdiffrast.torch.rasterize
        self._context = nvdiffrast.torch.RasterizeCudaContext(device)

    def visible_triangles(self, vertices_camera: Tensor, triangles: Tensor, camera: Camera) -> VisiblePixels:
        """Nearest triangle at every pixel centre.

        vertices_camera: camera space, mm. [B, V, 3]; triangles: [T, 3] int64; both faces of a triangle cover.
        Triangles with a vertex nearer than 1 mm to the camera plane are dropped. No gradients flow.
        """
        together = max(1, _EXACT // len(triangles))
        with torch.no_grad():
            positions, usable = clip_positions(vertices_camera.detach().float(), camera)
            parts = zip(positions.split(together), usable.split(together), strict=True)
            visible = torch.cat([self._draw(*part, triangles, camera) for part in parts])
            if camera.frame is not None:
                visible = torch.where(camera.frame, visible, -1)
            return VisiblePixels.of(visible)

    def _draw(self, positions: Tensor, usable: Tensor, triangles: Tensor, camera: Camera) -> Tensor:
        """Visible triangle per pixel, -1 for none. positions: [B, V, 4]; usable: [B, V] -> [B, H, W] int32."""
        batch, count = usable.shape
        # Every image has its own list, in which a triangle with an unusable corner shrinks to a point.
        whole = usable[:, triangles].all(-1, keepdim=True)
        first_vertex = torch.arange(batch, device=triangles.device)[:, None, None] * count
        corners = (torch.where(whole, triangles, triangles[:, :1]) + first_vertex).flatten(0, 1).int()
        starts = torch.arange(batch, dtype=torch.int32) * len(triangles)
        ranges = torch.stack([starts, torch.full_like(starts, len(triangles))], 1)
        drawn, _ = self._rasterize(
            self._context,
            positions.flatten(0, 1),
            corners,
            (camera.height, camera.width),
            ranges=ranges,
            grad_db=False,
        )
        number = drawn[..., 3].int()
        first_number = (
            torch.arange(batch, device=triangles.device, dtype=torch.int32)[:, None, None] * len(triangles) + 1
        )
        return torch.where(number > 0, number - first_number, -1)


def clip_positions(vertices_camera: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Clip coordinates that put our pixel centres on nvdiffrast's, and which vertices may be drawn.

    The projection is ours, so w = 1: clip x and y are pixels scaled to -1 … 1, and the depth is linear in 1/z. nvdiffrast's
    row 0 lies at y = -1, the top of our images.

    vertices_camera: mm, [B, V, 3] -> [B, V, 4] and [B, V] bool; unusable vertices lie at the origin.
    """
    z = vertices_camera[..., 2:]
    in_front = z >= NEAR
    inverse = 1.0 / torch.where(in_front, z, 1.0)
    pixel = camera.focal[:, None, None] * vertices_camera[..., :2] * inverse + camera.principal[:, None, :]
    usable = in_front & (pixel.abs() < _FARTHEST).all(-1, keepdim=True)
    nearest = torch.where(usable, inverse, 0.0).amax(1, keepdim=True)
    farthest = torch.where(usable, inverse, torch.inf).amin(1, keepdim=True)
    span = (nearest - farthest).clamp_min(torch.finfo(z.dtype).tiny)
    depth = _DEPTHS * (nearest + farthest - 2.0 * inverse) / span
    half_size = torch.stack([torch.full_like(camera.focal, 0.5 * side) for side in (camera.width, camera.height)], -1)
    flat = torch.cat([pixel / half_size[:, None] - 1.0, depth, torch.ones_like(depth)], -1)
    return torch.where(usable, flat, 0.0), usable[..., 0]
