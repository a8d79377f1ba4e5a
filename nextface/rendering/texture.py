"""Looking up skin maps at covered pixels, and what each texel was seen by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from nextface.morphable.model import MorphableModel
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import Fragments, interpolate
from nextface.rendering.jit import array, kernel
from nextface.textures import COARSEST, LaplacianTexture, upsample


@dataclass(frozen=True)
class TextureLookup:
    """Where and how finely each covered pixel sees the skin maps. The geometry is fixed: no gradient reaches it.

    A pixel looks up every level bilinearly and sums them down to its own level: level l counts with weight
    clamp(own − l + 1, 0, 1), so that a pixel moves smoothly from one level to the next (trilinear mip-mapping).

    uv:         lower-left origin. [P, 2]
    own:        the level whose texels are as large as the pixel, 0 for 16² maps, 1 for 32², …; fractional. [P]
    image:      ascending. [P] int64
    resolution: of the finest level
    batch:      images
    """

    uv: Tensor
    own: Tensor
    image: Tensor
    resolution: int
    batch: int

    @classmethod
    def build(
        cls, covered: Fragments, model: MorphableModel, resolution: int, camera: Camera, vertices_camera: Tensor
    ) -> TextureLookup:
        """Fix the lookup for the geometry of `covered`. vertices_camera: [B, V, 3] mm."""
        with torch.no_grad():
            pixels = covered.pixels
            corners = model.uv_triangles[pixels.triangle]
            uv = interpolate(model.uv[None], pixels.image, corners, covered.barycentric.detach())
            footprint = _footprint(covered, model.uv[corners], camera, vertices_camera)
            finest = (resolution // COARSEST).bit_length() - 1
            own = -torch.log2(footprint * COARSEST)
            return cls(uv, own.clamp(0.0, float(finest)), pixels.image, resolution, pixels.batch)

    def lookup(self, texture: LaplacianTexture) -> Tensor:
        """Map values at every covered pixel. Texture of B images or 1 shared; differentiable in its levels. -> [P, C]"""
        if self.uv.device.type != "cpu":
            return self.lookup_torch(texture)
        return _Lookup.apply(self.uv, self.own, self.image, *texture.levels)

    def lookup_torch(self, texture: LaplacianTexture) -> Tensor:
        """The same in plain torch, on any device."""
        total = self.uv.new_zeros(len(self.uv), texture.channels)
        for number, level in enumerate(texture.levels):
            share = (self.own - number + 1.0).clamp(0.0, 1.0)
            image = self.image if level.shape[0] > 1 else torch.zeros_like(self.image)
            for row, column, weight in _taps(self.uv, level.shape[1]):
                total = total + (share * weight)[:, None] * level[image, row, column]
        return total

    def seen(self, weights: Tensor) -> Tensor:
        """How much each texel was seen: the pixels' weights (say max(n·v, 0) of accepted pixels), spread bilinearly.

        A pixel marks the level of its own size, so that texels finer than pixels get no gaps. weights: [P] ->
        [B, T, T, 1]; 1 is about one pixel per own-level texel.
        """
        levels = (self.resolution // COARSEST).bit_length()
        seen = self.uv.new_zeros(self.batch, COARSEST, COARSEST, 1)
        for number in range(levels):
            size = COARSEST << number
            share = (1.0 - (self.own - number).abs()).clamp_min(0.0) * weights
            marks = self.uv.new_zeros(self.batch * size * size)
            for row, column, weight in _taps(self.uv, size):
                marks = marks.index_add(0, (self.image * size + row) * size + column, share * weight)
            seen = upsample(seen, size) + marks.reshape(self.batch, size, size, 1)
        return seen


def _footprint(covered: Fragments, uv: Tensor, camera: Camera, vertices_camera: Tensor) -> Tensor:
    """Root mean square length of ∂uv/∂x and ∂uv/∂y per pixel, from the triangle's own derivatives. `[P]`. uv: [P, 3, 2]."""
    pixels = covered.pixels
    points = vertices_camera.detach()[pixels.image[:, None], covered.corners]
    rays = camera.rays(pixels.image, pixels.row, pixels.column).detach()
    offset = points[..., :2] - rays[:, None, :2] * points[..., 2:]
    (x1, y1), (x2, y2) = (offset.roll(-shift, 1).unbind(-1) for shift in (1, 2))
    z1, z2 = points[..., 2].roll(-1, 1), points[..., 2].roll(-2, 1)
    area = (x1 * y2 - y1 * x2).sum(1)
    squares = torch.zeros_like(area)
    for slope in (y1 * z2 - z1 * y2, z1 * x2 - x1 * z2):  # ∂(u_j × u_k) by the ray's x and y
        change = (slope - covered.barycentric.detach() * slope.sum(1, keepdim=True)) / area[:, None]
        squares = squares + ((change[..., None] * uv).sum(1) ** 2).sum(1)
    footprint = (0.5 * squares).sqrt() / camera.focal.detach()[pixels.image]
    return torch.nan_to_num(footprint, nan=1.0, posinf=1.0).clamp(1e-6, 1.0)


def _taps(uv: Tensor, size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Row, column and weight of the four texels around each uv in a map of size², edges repeated."""
    x, y = uv[:, 0] * size - 0.5, (1.0 - uv[:, 1]) * size - 0.5
    left, top = x.floor(), y.floor()
    right_share, lower_share = x - left, y - top
    taps = []
    for down, row_weight in ((0, 1.0 - lower_share), (1, lower_share)):
        for across, column_weight in ((0, 1.0 - right_share), (1, right_share)):
            row = (top.long() + down).clamp(0, size - 1)
            column = (left.long() + across).clamp(0, size - 1)
            taps.append((row, column, row_weight * column_weight))
    return taps


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, uv: Tensor, own: Tensor, image: Tensor, *levels: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(uv, own, image)  # type: ignore[attr-defined]
        ctx.shapes = [level.shape for level in levels]  # type: ignore[attr-defined]
        values = levels[0].new_zeros(uv.shape[0], levels[0].shape[3])
        for number, level in enumerate(levels):
            _gather(array(level), number, array(uv), array(own), array(image), values.numpy())
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, cotangent: Tensor):  # type: ignore[override, no-untyped-def]
        uv, own, image = ctx.saved_tensors  # type: ignore[attr-defined]
        to_levels: list[Tensor | None] = []
        for number, shape in enumerate(ctx.shapes):  # type: ignore[attr-defined]
            to_level = None
            if ctx.needs_input_grad[3 + number]:  # type: ignore[attr-defined]
                to_level = cotangent.new_zeros(shape)
                _scatter(to_level.numpy(), number, array(uv), array(own), array(image), array(cotangent))
            to_levels.append(to_level)
        return None, None, None, *to_levels


@kernel
def _gather(level, number, uv, own, image, values):  # type: ignore[no-untyped-def]
    size = level.shape[1]
    one, half = uv.dtype.type(1), uv.dtype.type(0.5)
    shared = level.shape[0] == 1
    for p in range(uv.shape[0]):
        share = min(own[p] - number + one, one)
        if share <= 0:
            continue
        b = 0 if shared else image[p]
        x, y = uv[p, 0] * size - half, (one - uv[p, 1]) * size - half
        left, top = np.floor(x), np.floor(y)
        across, down = x - left, y - top
        x0, y0 = int(left), int(top)
        x1, y1 = min(max(x0 + 1, 0), size - 1), min(max(y0 + 1, 0), size - 1)
        x0, y0 = min(max(x0, 0), size - 1), min(max(y0, 0), size - 1)
        w00, w01 = share * (one - down) * (one - across), share * (one - down) * across
        w10, w11 = share * down * (one - across), share * down * across
        for c in range(level.shape[3]):
            values[p, c] += (
                w00 * level[b, y0, x0, c]
                + w01 * level[b, y0, x1, c]
                + w10 * level[b, y1, x0, c]
                + w11 * level[b, y1, x1, c]
            )


@kernel
def _scatter(to_level, number, uv, own, image, cotangent):  # type: ignore[no-untyped-def]
    """Transpose of `_gather`, in pixel order; neighbouring pixels write neighbouring texels."""
    size = to_level.shape[1]
    one, half = uv.dtype.type(1), uv.dtype.type(0.5)
    shared = to_level.shape[0] == 1
    for p in range(uv.shape[0]):
        share = min(own[p] - number + one, one)
        if share <= 0:
            continue
        b = 0 if shared else image[p]
        x, y = uv[p, 0] * size - half, (one - uv[p, 1]) * size - half
        left, top = np.floor(x), np.floor(y)
        across, down = x - left, y - top
        x0, y0 = int(left), int(top)
        x1, y1 = min(max(x0 + 1, 0), size - 1), min(max(y0 + 1, 0), size - 1)
        x0, y0 = min(max(x0, 0), size - 1), min(max(y0, 0), size - 1)
        w00, w01 = share * (one - down) * (one - across), share * (one - down) * across
        w10, w11 = share * down * (one - across), share * down * across
        for c in range(cotangent.shape[1]):
            g = cotangent[p, c]
            to_level[b, y0, x0, c] += w00 * g
            to_level[b, y0, x1, c] += w01 * g
            to_level[b, y1, x0, c] += w10 * g
            to_level[b, y1, x1, c] += w11 * g
