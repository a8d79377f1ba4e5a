"""Covered pixels with the place they see on their triangle, and attributes interpolated there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from nextface.rendering.camera import Camera
from nextface.rendering.jit import array, compiled, image_starts, kernel, spread, together
from nextface.rendering.raster import VisiblePixels


@dataclass(frozen=True)
class Fragments:
    """What each covered pixel sees.

    pixels:      the covered pixels
    corners:     vertex indices of the visible triangle. [P, 3] int64
    barycentric: perspective-correct weights of the corners, summing to 1, differentiable in vertices and camera. [P, 3]
    """

    pixels: VisiblePixels
    corners: Tensor
    barycentric: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def interpolate(self, attributes: Tensor, corners: Tensor | None = None) -> Tensor:
        """Per-vertex attributes at every covered pixel; differentiable in attributes and geometry.

        attributes: [B|1, V, C]; corners: other vertex indices for the same triangle corners (uv vertices, say), [P, 3].
        returns: [P, C]
        """
        corners = self.corners if corners is None else corners
        return interpolate(attributes, self.pixels.image, corners, self.barycentric)


def fragments(vertices_camera: Tensor, triangles: Tensor, pixels: VisiblePixels, camera: Camera) -> Fragments:
    """Barycentrics of the visible triangles. vertices_camera: [B, V, 3] mm; triangles: [T, 3] int64."""
    corners = triangles[pixels.triangle]
    weights = barycentrics(vertices_camera, corners, pixels, camera)
    return Fragments(pixels, corners, weights)


def barycentrics(vertices_camera: Tensor, corners: Tensor, pixels: VisiblePixels, camera: Camera) -> Tensor:
    """Perspective-correct barycentric coordinates of pixel centres, `[P, 3]`.

    With the ray (dx, dy, 1) through a pixel, u_i = (x_i − dx z_i, y_i − dy z_i) maps the ray to the origin, so the weights
    with Σ b_i u_i = 0 are b_i ∝ u_j × u_k. Nothing is divided by z and millimetres are subtracted before they are multiplied,
    which keeps single precision.
    """
    if not compiled(vertices_camera):
        return barycentrics_torch(vertices_camera, corners, pixels, camera)
    return _Barycentrics.apply(
        vertices_camera, camera.focal, camera.principal, corners, pixels.image, pixels.row, pixels.column
    )


def barycentrics_torch(vertices_camera: Tensor, corners: Tensor, pixels: VisiblePixels, camera: Camera) -> Tensor:
    """The same in plain torch, on any device."""
    rays = camera.rays(pixels.image, pixels.row, pixels.column)
    points = at_corners(vertices_camera, pixels.image, corners)
    u = points[..., :2] - rays[:, None, :2] * points[..., 2:]
    following, last = u.roll(-1, 1), u.roll(-2, 1)
    cross = following[..., 0] * last[..., 1] - following[..., 1] * last[..., 0]
    return cross / cross.sum(-1, keepdim=True)


def interpolate(attributes: Tensor, image: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    """Σ_k weights[:, k] · attributes[image, corners[:, k]], `[P, C]`. attributes: [B|1, V, C]."""
    if not compiled(attributes):
        return interpolate_torch(attributes, image, corners, weights)
    return _Interpolate.apply(attributes, weights, image, corners)


def interpolate_torch(attributes: Tensor, image: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    """The same in plain torch, on any device."""
    return (at_corners(attributes, image, corners) * weights[..., None]).sum(1)


def at_corners(attributes: Tensor, image: Tensor, corners: Tensor) -> Tensor:
    """Attributes [B|1, V, C] of vertices [P, K] of each pixel's image, `[P, K, C]`, in plain torch.

    `index_select`: the gradient of general indexing sorts its indices on CUDA.
    """
    batch, vertices, _ = attributes.shape
    rows = corners + image[:, None] * vertices if batch > 1 else corners
    return attributes.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, corners.shape)


class _Barycentrics(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: FunctionCtx,
        vertices: Tensor,
        focal: Tensor,
        principal: Tensor,
        corners: Tensor,
        image: Tensor,
        row: Tensor,
        column: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(vertices, focal, principal, corners, image, row, column)  # type: ignore[attr-defined]
        weights = torch.empty_like(corners, dtype=vertices.dtype)
        inputs = (array(part) for part in (vertices, focal, principal, corners, image, row, column))
        spread(_barycentrics_forward, len(corners), *inputs, weights.numpy())
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, cotangent: Tensor):  # type: ignore[override, no-untyped-def]
        saved = ctx.saved_tensors  # type: ignore[attr-defined]
        gradients = [torch.zeros_like(part, memory_format=torch.contiguous_format) for part in saved[:3]]
        inputs = (*(array(part) for part in saved), array(cotangent), *(part.numpy() for part in gradients))
        starts = image_starts(saved[4], len(saved[0]))
        together([(_barycentrics_backward, (*ends, *inputs)) for ends in zip(starts[:-1], starts[1:], strict=True)])
        return *gradients, None, None, None, None


@kernel
def _barycentrics_forward(start, stop, vertices, focal, principal, corners, image, row, column, weights):  # type: ignore[no-untyped-def]
    half = vertices.dtype.type(0.5)
    for p in range(start, stop):
        b = image[p]
        dx = (column[p] + half - principal[b, 0]) / focal[b]
        dy = (row[p] + half - principal[b, 1]) / focal[b]
        i, j, k = corners[p, 0], corners[p, 1], corners[p, 2]
        x0, y0 = vertices[b, i, 0] - dx * vertices[b, i, 2], vertices[b, i, 1] - dy * vertices[b, i, 2]
        x1, y1 = vertices[b, j, 0] - dx * vertices[b, j, 2], vertices[b, j, 1] - dy * vertices[b, j, 2]
        x2, y2 = vertices[b, k, 0] - dx * vertices[b, k, 2], vertices[b, k, 1] - dy * vertices[b, k, 2]
        w0, w1, w2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
        scale = 1 / (w0 + w1 + w2)
        weights[p, 0], weights[p, 1], weights[p, 2] = w0 * scale, w1 * scale, w2 * scale


@kernel
def _barycentrics_backward(  # type: ignore[no-untyped-def]
    start, stop, vertices, focal, principal, corners, image, row, column, cotangent, to_vertices, to_focal, to_principal
):
    half = vertices.dtype.type(0.5)
    for p in range(start, stop):
        b = image[p]
        f = focal[b]
        dx = (column[p] + half - principal[b, 0]) / f
        dy = (row[p] + half - principal[b, 1]) / f
        i, j, k = corners[p, 0], corners[p, 1], corners[p, 2]
        z0, z1, z2 = vertices[b, i, 2], vertices[b, j, 2], vertices[b, k, 2]
        x0, y0 = vertices[b, i, 0] - dx * z0, vertices[b, i, 1] - dy * z0
        x1, y1 = vertices[b, j, 0] - dx * z1, vertices[b, j, 1] - dy * z1
        x2, y2 = vertices[b, k, 0] - dx * z2, vertices[b, k, 1] - dy * z2
        w0, w1, w2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
        scale = 1 / (w0 + w1 + w2)
        g0, g1, g2 = cotangent[p, 0], cotangent[p, 1], cotangent[p, 2]
        mean = (g0 * w0 + g1 * w1 + g2 * w2) * scale
        g0, g1, g2 = (g0 - mean) * scale, (g1 - mean) * scale, (g2 - mean) * scale
        gx0, gy0 = g2 * y1 - g1 * y2, g1 * x2 - g2 * x1
        gx1, gy1 = g0 * y2 - g2 * y0, g2 * x0 - g0 * x2
        gx2, gy2 = g1 * y0 - g0 * y1, g0 * x1 - g1 * x0
        to_vertices[b, i, 0] += gx0
        to_vertices[b, i, 1] += gy0
        to_vertices[b, i, 2] -= dx * gx0 + dy * gy0
        to_vertices[b, j, 0] += gx1
        to_vertices[b, j, 1] += gy1
        to_vertices[b, j, 2] -= dx * gx1 + dy * gy1
        to_vertices[b, k, 0] += gx2
        to_vertices[b, k, 1] += gy2
        to_vertices[b, k, 2] -= dx * gx2 + dy * gy2
        to_dx = -(z0 * gx0 + z1 * gx1 + z2 * gx2) / f
        to_dy = -(z0 * gy0 + z1 * gy1 + z2 * gy2) / f
        to_principal[b, 0] -= to_dx
        to_principal[b, 1] -= to_dy
        to_focal[b] -= to_dx * dx + to_dy * dy


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, attributes: Tensor, weights: Tensor, image: Tensor, corners: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(attributes, weights, image, corners)  # type: ignore[attr-defined]
        values = attributes.new_empty(corners.shape[0], attributes.shape[2])
        inputs = (array(part) for part in (attributes, weights, image, corners))
        spread(_interpolate_forward, len(corners), *inputs, values.numpy())
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, cotangent: Tensor):  # type: ignore[override, no-untyped-def]
        attributes, weights, image, corners = ctx.saved_tensors  # type: ignore[attr-defined]
        wants_attributes, wants_weights = ctx.needs_input_grad[:2]  # type: ignore[attr-defined]
        to_attributes = to_weights = None
        parts = [array(part) for part in (attributes, weights, image, corners, cotangent)]
        calls = []
        if wants_weights:
            to_weights = torch.empty_like(weights, memory_format=torch.contiguous_format)
            middle, end = len(corners) // 2, len(corners)
            inputs = (parts[0], *parts[2:], to_weights.numpy())
            calls = [(_interpolate_to_weights, (*ends, *inputs)) for ends in ((0, middle), (middle, end))]
        if wants_attributes:
            to_attributes = torch.zeros_like(attributes, memory_format=torch.contiguous_format)
            inputs = (*parts[1:], to_attributes.numpy())
            starts = image_starts(image, len(attributes))
            calls += [
                (_interpolate_to_attributes, (*ends, *inputs)) for ends in zip(starts[:-1], starts[1:], strict=True)
            ]
        together(calls[::-1])
        return to_attributes, to_weights, None, None


@kernel
def _interpolate_forward(start, stop, attributes, weights, image, corners, values):  # type: ignore[no-untyped-def]
    shared = attributes.shape[0] == 1
    for p in range(start, stop):
        b = 0 if shared else image[p]
        i, j, k = corners[p, 0], corners[p, 1], corners[p, 2]
        wi, wj, wk = weights[p, 0], weights[p, 1], weights[p, 2]
        for c in range(attributes.shape[2]):
            values[p, c] = wi * attributes[b, i, c] + wj * attributes[b, j, c] + wk * attributes[b, k, c]


@kernel
def _interpolate_to_attributes(start, stop, weights, image, corners, cotangent, to_attributes):  # type: ignore[no-untyped-def]
    shared = to_attributes.shape[0] == 1
    for p in range(start, stop):
        b = 0 if shared else image[p]
        i, j, k = corners[p, 0], corners[p, 1], corners[p, 2]
        wi, wj, wk = weights[p, 0], weights[p, 1], weights[p, 2]
        for c in range(cotangent.shape[1]):
            g = cotangent[p, c]
            to_attributes[b, i, c] += wi * g
            to_attributes[b, j, c] += wj * g
            to_attributes[b, k, c] += wk * g


@kernel
def _interpolate_to_weights(start, stop, attributes, image, corners, cotangent, to_weights):  # type: ignore[no-untyped-def]
    shared = attributes.shape[0] == 1
    zero = attributes.dtype.type(0)
    for p in range(start, stop):
        b = 0 if shared else image[p]
        i, j, k = corners[p, 0], corners[p, 1], corners[p, 2]
        gi, gj, gk = zero, zero, zero
        for c in range(cotangent.shape[1]):
            g = cotangent[p, c]
            gi += g * attributes[b, i, c]
            gj += g * attributes[b, j, c]
            gk += g * attributes[b, k, c]
        to_weights[p, 0], to_weights[p, 1], to_weights[p, 2] = gi, gj, gk
