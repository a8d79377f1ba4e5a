"""Per-vertex attributes drawn into the unwrap."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from nextface.morphable.model import MorphableModel
from nextface.rendering.backend import rasterizer_for
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import Fragments, fragments, interpolate
from nextface.textures import row_strips, upsample


def uv_fragments(model: MorphableModel, resolution: int, rows: slice | None = None) -> Fragments:
    """The texels whose centres the unwrap covers; `corners` are uv vertices. One image, the given rows of `resolution`²."""
    rows = rows or slice(0, resolution)
    u, v = model.uv.unbind(-1)
    flat = torch.stack([u * resolution, (1.0 - v) * resolution, torch.ones_like(u)], -1)
    vertices = 2.0 * flat[None]  # anywhere beyond the near plane; with focal length 1 the projection is the identity
    corner = vertices.new_tensor([[0.0, -rows.start]])
    camera = Camera(vertices.new_ones(1), corner, rows.stop - rows.start, resolution)
    texels = rasterizer_for(vertices.device).visible_triangles(vertices, model.uv_triangles, camera)
    return fragments(vertices, model.uv_triangles, texels, camera)


def bake(attributes: Tensor, model: MorphableModel, resolution: int) -> Tensor:
    """A UV image of a per-vertex attribute, row 0 at v = 1, empty texels filled smoothly from covered ones.

    attributes: [B, V, C] -> [B, T, T, C]. The unwrap is drawn in strips: fragments take some 150 bytes a texel.
    """
    batch, _, channels = attributes.shape
    stacked = attributes.permute(1, 0, 2).flatten(1)[None]
    images = attributes.new_zeros(batch, resolution, resolution, channels)
    mask = attributes.new_zeros(1, resolution, resolution, 1)
    for rows in row_strips(resolution, resolution):
        texels = uv_fragments(model, resolution, rows)
        pixels = texels.pixels
        values = interpolate(stacked, pixels.image, model.triangles[pixels.triangle], texels.barycentric)
        drawn = values.unflatten(-1, (batch, channels)).transpose(0, 1)
        images[:, pixels.row + rows.start, pixels.column] = drawn
        mask[:, pixels.row + rows.start, pixels.column] = 1.0
    return fill(images, mask)


def fill(images: Tensor, mask: Tensor) -> Tensor:
    """Fill texels of zero mask by pull-push (Gortler et al. 1996): averages of covered texels at ever coarser sizes.

    images: [B, T, T, C], T a power of two; mask: coverage in 0..1, [1|B, T, T, 1]. Covered texels keep their values.
    """
    size = images.shape[1]
    if size == 1:
        return images
    weighted = _halve(images * mask)
    share = _halve(mask)
    coarse = fill(weighted / share.clamp_min(1e-6), (share > 0).to(share.dtype))
    return upsample(coarse, size).lerp_(images, mask)


def _halve(images: Tensor) -> Tensor:
    return avg_pool2d(images.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
