"""Tangent frames of the unwrapped mesh and the normals that a tangent-space map bends."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nextface.morphable.model import MorphableModel
from nextface.rendering.fragments import Fragments


@dataclass(frozen=True)
class PixelFrames:
    """Tangent (towards +u), bitangent (towards +v) and unit normal at every covered pixel. `[P, 3]` each.

    As in MikkTSpace, tangent and normal are interpolated without renormalising and the bitangent is sign · n × t.
    """

    tangent: Tensor
    bitangent: Tensor
    normal: Tensor

    def bend(self, slopes: Tensor) -> Tensor:
        """Unit normals of tangent-space slopes (sx, sy), green up: normalise(sx t + sy b + n). `[P, 2] -> [P, 3]`."""
        return normalize(slopes[:, :1] * self.tangent + slopes[:, 1:] * self.bitangent + self.normal, dim=-1)


def pixel_frames(covered: Fragments, vertices: Tensor, normals: Tensor, model: MorphableModel) -> PixelFrames:
    """Frames at covered pixels. vertices: [B, V, 3] and unit vertex normals [B, V, 3] in the frame wanted (the view's)."""
    tangents = vertex_tangents(vertices, normals, model)
    at_pixels = covered.interpolate(tangents, model.uv_triangles[covered.pixels.triangle])
    normal = covered.interpolate(normals)
    tangent, sign = at_pixels[:, :3], at_pixels[:, 3:].sign()
    return PixelFrames(tangent, sign * torch.linalg.cross(normal, tangent), normalize(normal, dim=-1))


def vertex_tangents(vertices: Tensor, normals: Tensor, model: MorphableModel) -> Tensor:
    """Unit tangents towards +u per uv vertex, with the handedness of the unwrap as fourth component. `[B, U, 4]`.

    Follows MikkTSpace (Mikkelsen 2008): a triangle's tangent is projected to the plane of each corner's normal, normalised
    and weighted by the corner's angle. bitangent = handedness · normal × tangent. vertices, normals: [B, V, 3].
    """
    corners = vertices[:, model.triangles]
    uv = model.uv[model.uv_triangles]
    first, second = corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0]
    (du1, dv1), (du2, dv2) = (uv[:, 1] - uv[:, 0]).unbind(-1), (uv[:, 2] - uv[:, 0]).unbind(-1)
    area = du1 * dv2 - du2 * dv1
    handedness = 1.0 - 2.0 * (area < 0).to(area.dtype)
    towards_u = (first * dv2[:, None] - second * dv1[:, None]) * handedness[:, None]
    total = vertices.new_zeros(vertices.shape[0], len(model.uv), 3)
    signs = vertices.new_zeros(len(model.uv))
    for corner in range(3):
        normal = normals[:, model.triangles[:, corner]]
        flat = normalize(towards_u - (towards_u * normal).sum(-1, keepdim=True) * normal, dim=-1)
        ahead = normalize(corners[:, :, (corner + 1) % 3] - corners[:, :, corner], dim=-1)
        behind = normalize(corners[:, :, (corner + 2) % 3] - corners[:, :, corner], dim=-1)
        angle = torch.acos((ahead * behind).sum(-1, keepdim=True).clamp(-0.999999, 0.999999))
        total = total.index_add(1, model.uv_triangles[:, corner], angle * flat)
        signs = signs.index_add(0, model.uv_triangles[:, corner], handedness)
    sign = (1.0 - 2.0 * (signs < 0).to(signs.dtype))[None, :, None].expand(len(total), -1, 1)
    return torch.cat([normalize(total, dim=-1), sign], -1)
