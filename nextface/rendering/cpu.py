"""Z-buffer on the CPU: the visible triangle at every pixel centre."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from nextface.rendering.camera import Camera
from nextface.rendering.jit import Call, array, together
from nextface.rendering.raster import VisiblePixels

NEAR = 1.0
_SUBPIXEL_BITS = 8
_SUBPIXEL = 1 << _SUBPIXEL_BITS
_ROWS = 64
"""Fewest rows that are worth another thread, which has to look at every triangle again."""
_LIMIT = float(2**29)  # sub-pixel units; keeps edge functions within 64 bits


class CpuRasterizer:
    """Compiled z-buffer with exact coverage: corners snap to 1/256 pixel and edges are decided in integers.

    A pixel is covered when its centre lies inside a triangle, top and left edges included: neighbouring triangles leave no
    crack and share no pixel. Depth is 1/z, linear on the screen; of equal depths the lower triangle index wins.
    """

    def visible_triangles(self, vertices_camera: Tensor, triangles: Tensor, camera: Camera) -> VisiblePixels:
        """Nearest triangle at every pixel centre.

        vertices_camera: camera space, mm. [B, V, 3]; triangles: [T, 3] int64; both faces of a triangle cover.
        Triangles with a vertex nearer than 1 mm to the camera plane are dropped; nothing is visible outside `camera.frame`.
        No gradients flow.
        """
        device = vertices_camera.device
        vertices = vertices_camera.detach().float().cpu()
        focal, principal = camera.focal.detach().float().cpu(), camera.principal.detach().float().cpu()
        corners = array(triangles.cpu())
        batch, height, width = vertices.shape[0], camera.height, camera.width
        visible = np.full((batch, height, width), -1, np.int32)
        screen = np.empty((batch, vertices.shape[1], 2), np.int64)
        inverse = np.zeros(screen.shape[:2], np.float32)
        depth = np.zeros(visible.shape, np.float32)
        shares = max(1, min(-(-torch.get_num_threads() // batch), height // _ROWS))
        edges = [height * share // shares for share in range(shares + 1)]
        project: list[Call] = []
        draw: list[Call] = []
        for b in range(batch):
            project.append(
                (_project, (array(vertices[b]), float(focal[b]), array(principal[b]), screen[b], inverse[b]))
            )
            canvas = (screen[b], corners, inverse[b], depth[b], visible[b])
            draw += [(_draw, (*rows, *canvas)) for rows in zip(edges[:-1], edges[1:], strict=True)]
        together(project)
        together(draw)
        if camera.frame is not None:
            visible[~array(camera.frame.cpu())] = -1
        parts = np.empty((4, np.count_nonzero(visible >= 0)), np.int64)
        links = np.full((parts.shape[1], 4), -1, np.int64)
        _pack(visible, np.empty(width, np.int64), parts, links)
        image, row, column, triangle = torch.from_numpy(parts).to(device)
        neighbours = torch.from_numpy(links).to(device)
        return VisiblePixels(image, row, column, triangle, neighbours, batch, height, width)


@numba.njit(cache=True, nogil=True)
def _project(vertices, focal, principal, screen, inverse):  # type: ignore[no-untyped-def]
    """Sub-pixel coordinates of the vertices, [V, 2], and 1/z of the usable ones, [V], zero before."""
    for v in range(vertices.shape[0]):
        z = vertices[v, 2]
        if z >= NEAR:
            x = (focal * vertices[v, 0] / z + principal[0]) * _SUBPIXEL
            y = (focal * vertices[v, 1] / z + principal[1]) * _SUBPIXEL
            if abs(x) < _LIMIT and abs(y) < _LIMIT:
                screen[v, 0] = int(np.floor(x + 0.5))
                screen[v, 1] = int(np.floor(y + 0.5))
                inverse[v] = 1.0 / z


@numba.njit(cache=True, nogil=True)
def _draw(start, stop, screen, triangles, inverse, depth, visible):  # type: ignore[no-untyped-def]
    """Fill the rows start…stop of `visible` [H, W] with triangle indices. Edge functions are integers: exact and antisymmetric
    on shared edges. screen, inverse: of `_project`; depth: 1/z, zero before. [H, W]
    """
    width = visible.shape[1]
    x, y = screen[:, 0], screen[:, 1]
    half = _SUBPIXEL // 2
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        if inverse[a] == 0.0 or inverse[b] == 0.0 or inverse[c] == 0.0:
            continue
        # First and last pixel centre (at 128 mod 256) inside the bounding box.
        top = max((min(y[a], y[b], y[c]) + half - 1) >> _SUBPIXEL_BITS, start)
        bottom = min((max(y[a], y[b], y[c]) - half) >> _SUBPIXEL_BITS, stop - 1)
        if top > bottom:
            continue
        left = max((min(x[a], x[b], x[c]) + half - 1) >> _SUBPIXEL_BITS, 0)
        right = min((max(x[a], x[b], x[c]) - half) >> _SUBPIXEL_BITS, width - 1)
        if left > right:
            continue
        area = (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])
        if area == 0:
            continue
        if area < 0:
            b, c = c, b
            area = -area
        ax, ay, bx, by, cx, cy = x[a], y[a], x[b], y[b], x[c], y[c]
        px, py = left * _SUBPIXEL + half, top * _SUBPIXEL + half
        # A centre on an edge belongs to the triangle whose top or left edge it is; -1 turns ">= 0" into "> 0" elsewhere.
        row_a = (cx - bx) * (py - by) - (cy - by) * (px - bx) - (0 if _top_left(cx - bx, cy - by) else 1)
        row_b = (ax - cx) * (py - cy) - (ay - cy) * (px - cx) - (0 if _top_left(ax - cx, ay - cy) else 1)
        row_c = (bx - ax) * (py - ay) - (by - ay) * (px - ax) - (0 if _top_left(bx - ax, by - ay) else 1)
        step_ax, step_ay = -(cy - by) * _SUBPIXEL, (cx - bx) * _SUBPIXEL
        step_bx, step_by = -(ay - cy) * _SUBPIXEL, (ax - cx) * _SUBPIXEL
        step_cx, step_cy = -(by - ay) * _SUBPIXEL, (bx - ax) * _SUBPIXEL
        scale = 1.0 / area
        for row in range(top, bottom + 1):
            wa, wb, wc = row_a, row_b, row_c
            for column in range(left, right + 1):
                if wa >= 0 and wb >= 0 and wc >= 0:
                    near = np.float32((wa * inverse[a] + wb * inverse[b] + wc * inverse[c]) * scale)
                    if near > depth[row, column]:
                        depth[row, column] = near
                        visible[row, column] = t
                wa += step_ax
                wb += step_bx
                wc += step_cx
            row_a += step_ay
            row_b += step_by
            row_c += step_cy


@numba.njit(cache=True, nogil=True)
def _top_left(dx, dy):  # type: ignore[no-untyped-def]
    """Whether an edge of a positively oriented triangle (y down, so clockwise on screen) is a top or a left edge."""
    return dy < 0 or (dy == 0 and dx > 0)


@numba.njit(cache=True, nogil=True)
def _pack(visible, above, parts, neighbours):  # type: ignore[no-untyped-def]
    """Covered pixels in (image, row, column) order.

    above: work space [W]; parts: image, row, column and triangle [4, P]; neighbours: left, right, above, below, all -1. [P, 4]
    """
    batch, height, width = visible.shape
    p = 0
    for b in range(batch):
        for c in range(width):
            above[c] = -1
        for r in range(height):
            for c in range(width):
                if visible[b, r, c] < 0:
                    above[c] = -1
                    continue
                parts[0, p], parts[1, p], parts[2, p], parts[3, p] = b, r, c, visible[b, r, c]
                if c > 0 and visible[b, r, c - 1] >= 0:
                    neighbours[p, 0] = p - 1
                    neighbours[p - 1, 1] = p
                if above[c] >= 0:
                    neighbours[p, 2] = above[c]
                    neighbours[above[c], 3] = p
                above[c] = p
                p += 1
