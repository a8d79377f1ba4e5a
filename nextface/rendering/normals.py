"""Smooth vertex normals."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from nextface.rendering.jit import array, compiled, kernel, spread

_SMALLEST = 1e-12


def vertex_normals(vertices: Tensor, triangles: Tensor) -> Tensor:
    """Area-weighted unit normals, pointing to the side from which triangles appear counter-clockwise (y up).

    vertices: [B, V, 3]; triangles: [T, 3] int64 -> [B, V, 3]. A vertex of no or of degenerate triangles gets zero.
    """
    if not compiled(vertices):
        return vertex_normals_torch(vertices, triangles)
    return _VertexNormals.apply(vertices, triangles)


def vertex_normals_torch(vertices: Tensor, triangles: Tensor) -> Tensor:
    """The same in plain torch, on any device."""
    flat = triangles.flatten()
    a, b, c = vertices.index_select(1, flat).unflatten(1, triangles.shape).unbind(2)
    faces = torch.linalg.cross(b - a, c - a)
    sums = torch.zeros_like(vertices).index_add(1, flat, faces[:, :, None].expand(-1, -1, 3, -1).flatten(1, 2))
    return sums / sums.norm(dim=-1, keepdim=True).clamp_min(_SMALLEST)


class _VertexNormals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, vertices: Tensor, triangles: Tensor) -> Tensor:  # type: ignore[override]
        normals = torch.zeros_like(vertices, memory_format=torch.contiguous_format)
        lengths = vertices.new_empty(vertices.shape[:2])
        outputs = (normals.numpy(), lengths.numpy())
        spread(_normals_forward, len(vertices), array(vertices), array(triangles), *outputs, grain=1)
        ctx.save_for_backward(vertices, triangles, normals, lengths)  # type: ignore[attr-defined]
        return normals

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, cotangent: Tensor):  # type: ignore[override, no-untyped-def]
        vertices, triangles, normals, lengths = ctx.saved_tensors  # type: ignore[attr-defined]
        to_sums = torch.empty_like(normals)
        to_vertices = torch.zeros_like(vertices, memory_format=torch.contiguous_format)
        inputs = (vertices, triangles, normals, lengths, cotangent)
        outputs = (to_sums.numpy(), to_vertices.numpy())
        spread(_normals_backward, len(vertices), *(array(part) for part in inputs), *outputs, grain=1)
        return to_vertices, None


@kernel
def _normals_forward(start, stop, vertices, triangles, normals, lengths):  # type: ignore[no-untyped-def]
    smallest = vertices.dtype.type(_SMALLEST)
    for b in range(start, stop):
        for t in range(triangles.shape[0]):
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            ax, ay, az = vertices[b, i, 0], vertices[b, i, 1], vertices[b, i, 2]
            ux, uy, uz = vertices[b, j, 0] - ax, vertices[b, j, 1] - ay, vertices[b, j, 2] - az
            vx, vy, vz = vertices[b, k, 0] - ax, vertices[b, k, 1] - ay, vertices[b, k, 2] - az
            nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
            for vertex in (i, j, k):
                normals[b, vertex, 0] += nx
                normals[b, vertex, 1] += ny
                normals[b, vertex, 2] += nz
        for v in range(vertices.shape[1]):
            x, y, z = normals[b, v, 0], normals[b, v, 1], normals[b, v, 2]
            length = max(np.sqrt(x * x + y * y + z * z), smallest)
            lengths[b, v] = length
            normals[b, v, 0], normals[b, v, 1], normals[b, v, 2] = x / length, y / length, z / length


@kernel
def _normals_backward(start, stop, vertices, triangles, normals, lengths, cotangent, to_sums, to_vertices):  # type: ignore[no-untyped-def]
    for b in range(start, stop):
        for v in range(vertices.shape[1]):
            x, y, z = normals[b, v, 0], normals[b, v, 1], normals[b, v, 2]
            gx, gy, gz = cotangent[b, v, 0], cotangent[b, v, 1], cotangent[b, v, 2]
            along, length = gx * x + gy * y + gz * z, lengths[b, v]
            to_sums[b, v, 0] = (gx - along * x) / length
            to_sums[b, v, 1] = (gy - along * y) / length
            to_sums[b, v, 2] = (gz - along * z) / length
        for t in range(triangles.shape[0]):
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            gx = to_sums[b, i, 0] + to_sums[b, j, 0] + to_sums[b, k, 0]
            gy = to_sums[b, i, 1] + to_sums[b, j, 1] + to_sums[b, k, 1]
            gz = to_sums[b, i, 2] + to_sums[b, j, 2] + to_sums[b, k, 2]
            ax, ay, az = vertices[b, i, 0], vertices[b, i, 1], vertices[b, i, 2]
            ux, uy, uz = vertices[b, j, 0] - ax, vertices[b, j, 1] - ay, vertices[b, j, 2] - az
            vx, vy, vz = vertices[b, k, 0] - ax, vertices[b, k, 1] - ay, vertices[b, k, 2] - az
            # n = u × v, so g·dn = du·(v × g) + dv·(g × u).
            jx, jy, jz = vy * gz - vz * gy, vz * gx - vx * gz, vx * gy - vy * gx
            kx, ky, kz = gy * uz - gz * uy, gz * ux - gx * uz, gx * uy - gy * ux
            to_vertices[b, j, 0] += jx
            to_vertices[b, j, 1] += jy
            to_vertices[b, j, 2] += jz
            to_vertices[b, k, 0] += kx
            to_vertices[b, k, 1] += ky
            to_vertices[b, k, 2] += kz
            to_vertices[b, i, 0] -= jx + kx
            to_vertices[b, i, 1] -= jy + ky
            to_vertices[b, i, 2] -= jz + kz
