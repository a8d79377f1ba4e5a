"""Looking up skin maps at covered pixels, and what each texel was seen by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from nextface.morphable.model import MorphableModel
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import Fragments, interpolate
from nextface.rendering.jit import array, compiled, kernel, spread, together, untouched_zeros
from nextface.textures import COARSEST, LaplacianTexture, upsample


@dataclass(frozen=True)
class TextureLookup:
    """Where and how finely each covered pixel sees the skin maps. The geometry is fixed: no gradient reaches it.

    A pixel looks up every level bilinearly and sums them down to its own level: level l counts with weight
    clamp(own − l + 1, 0, 1), so that a pixel moves smoothly from one level to the next (trilinear mip-mapping).

    uv:         lower-left origin. [P, 2]
    texel:      upper left texel of the 2×2 looked up in each level, row · size + column; levels finer than every pixel are
                left out. [levels, P] int64
    across, down: shares of its right column and of its lower row. [levels, P]
    own:        the level whose texels are as large as the pixel, 0 for 16² maps, 1 for 32², …; fractional. [P]
    image:      ascending. [P] int64
    resolution: of the finest level
    batch:      images
    """

    uv: Tensor
    texel: Tensor
    across: Tensor
    down: Tensor
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
            own = (-torch.log2(footprint * COARSEST)).clamp(0.0, float(finest))
            reached = math.ceil(float(own.max())) if len(own) else 0
            squares = [taps(uv, COARSEST << number) for number in range(reached + 1)]
            texel, across, down = (torch.stack(part) for part in zip(*squares, strict=True))
            return cls(uv, texel, across, down, own, pixels.image, resolution, pixels.batch)

    def reached(self, texture: LaplacianTexture) -> list[Tensor]:
        """The levels that some pixel looks up, the coarsest at least."""
        return texture.levels[: len(self.texel)]

    def lookup(self, texture: LaplacianTexture) -> Tensor:
        """Map values at every covered pixel. Texture of B images or 1 shared; differentiable in its levels. -> [P, C]"""
        if not compiled(self.uv):
            return self.lookup_torch(texture)
        return _Lookup.apply(self.texel, self.across, self.down, self.own, self.image, *self.reached(texture))

    def lookup_torch(self, texture: LaplacianTexture) -> Tensor:
        """The same in plain torch, on any device."""
        table = torch.cat([level.flatten(0, 2) for level in self.reached(texture)])
        rows = self._shared_rows if texture.levels[0].shape[0] == 1 else self._own_rows
        values = table.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        return (values * self._row_weights[..., None]).sum(1)

    @cached_property
    def _row_weights(self) -> Tensor:
        """How much each pixel takes of each row of `_rows`. `[P, 4 · levels]`"""
        shares = [(self.own - number + 1.0).clamp(0.0, 1.0) for number in range(len(self.texel))]
        parts = [share * weight for number, share in enumerate(shares) for _, weight in self._corners(number)]
        return torch.stack(parts, 1)

    @cached_property
    def _shared_rows(self) -> Tensor:
        return self._rows(torch.zeros_like(self.image), 1)

    @cached_property
    def _own_rows(self) -> Tensor:
        return self._rows(self.image, self.batch)

    def _rows(self, image: Tensor, images: int) -> Tensor:
        """The texels each pixel looks up, as rows of the reached levels of `images` laid end to end. `[P, 4 · levels]`"""
        parts, begin = [], 0
        for number in range(len(self.texel)):
            texels = COARSEST**2 << (2 * number)
            parts += [begin + image * texels + texel for texel, _ in self._corners(number)]
            begin += images * texels
        return torch.stack(parts, 1)

    def seen(self, weights: Tensor) -> Tensor:
        """How much each texel was seen: the pixels' weights (say max(n·v, 0) of accepted pixels), spread bilinearly.

        A pixel marks the level of its own size, so that texels finer than pixels get no gaps. weights: [P] ->
        [B, T, T, 1]; 1 is about one pixel per own-level texel.
        """
        seen = self.own.new_zeros(self.batch, COARSEST, COARSEST, 1)
        for number in range(len(self.texel)):
            size = COARSEST << number
            share = (1.0 - (self.own - number).abs()).clamp_min(0.0) * weights
            marks = self.own.new_zeros(self.batch * size * size)
            for texel, weight in self._corners(number):
                marks.index_add_(0, self.image * size * size + texel, share * weight)
            seen = upsample(seen, size) + marks.reshape(self.batch, size, size, 1)
        while seen.shape[1] < self.resolution:
            seen = upsample(seen, 2 * seen.shape[1])
        return seen

    def touched(self, texture: LaplacianTexture) -> list[Tensor]:
        """Which texels of the reached levels some pixel looks up. Bool [B, s, s], one row where the texture has one"""
        found = []
        for number, level in enumerate(self.reached(texture)):
            images, size = level.shape[:2]
            marks = torch.zeros(images * size * size, dtype=torch.bool, device=self.uv.device)
            pixels = self.own > number - 1.0
            first = self.image * (size * size if images > 1 else 0)
            for texel, _ in self._corners(number):
                marks[(first + texel)[pixels]] = True
            found.append(marks.reshape(images, size, size))
        return found

    def _corners(self, number: int) -> list[tuple[Tensor, Tensor]]:
        """The four texels looked up in a level, with their weights. `[P]` each."""
        texel, across, down, size = self.texel[number], self.across[number], self.down[number], COARSEST << number
        return [
            (texel, (1.0 - down) * (1.0 - across)),
            (texel + 1, (1.0 - down) * across),
            (texel + size, down * (1.0 - across)),
            (texel + size + 1, down * across),
        ]


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


def taps(uv: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Upper left texel (row · size + column) of the 2×2 around each uv in a map of size², and the shares of the right column
    and of the lower row; beyond the outer texels' centres the map is constant. `[P]` each."""
    x = (uv[:, 0] * size - 0.5).clamp(0.0, size - 1.0)
    y = ((1.0 - uv[:, 1]) * size - 0.5).clamp(0.0, size - 1.0)
    left, top = x.long().clamp_max(size - 2), y.long().clamp_max(size - 2)
    return top * size + left, x - left, y - top


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: FunctionCtx, texel: Tensor, across: Tensor, down: Tensor, own: Tensor, image: Tensor, *levels: Tensor
    ) -> Tensor:
        ctx.save_for_backward(texel, across, down, own, image)  # type: ignore[attr-defined]
        ctx.shapes = [level.shape for level in levels]  # type: ignore[attr-defined]
        values = levels[0].new_zeros(own.shape[0], levels[0].shape[3])
        taps = [array(part) for part in (texel, across, down, own, image)]
        gather, _ = _kernels(values.shape[1])
        for number, level in enumerate(levels):
            spread(gather, len(own), array(level.flatten(1, 2)), level.shape[1], number, *taps, values.numpy())
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, cotangent: Tensor):  # type: ignore[override, no-untyped-def]
        taps = [array(part) for part in ctx.saved_tensors]  # type: ignore[attr-defined]
        to_values = array(cotangent)
        _, scatter = _kernels(to_values.shape[1])
        to_levels: list[Tensor | None] = []
        calls = []
        for number, shape in enumerate(ctx.shapes):  # type: ignore[attr-defined]
            if not ctx.needs_input_grad[5 + number]:  # type: ignore[attr-defined]
                to_levels.append(None)
                continue
            to_level = untouched_zeros(shape, cotangent.dtype)
            calls.append((scatter, (to_level.flatten(1, 2).numpy(), shape[1], number, *taps, to_values)))
            to_levels.append(to_level)
        together(calls)
        return None, None, None, None, None, *to_levels


@lru_cache
def _kernels(channels: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Lookup of one level and its transpose, for a count of channels that the compiler knows: loops of unknown length over so
    few channels cost more than the sums in them."""

    @kernel
    def gather(start, stop, level, size, number, texel, across, down, own, image, values):  # type: ignore[no-untyped-def]
        """Add one level, [1|B, size², C], to the values [P, C] of a range of pixels."""
        one, above = values.dtype.type(1), values.dtype.type(number - 1)
        shared = level.shape[0] == 1
        for p in range(start, stop):
            share = min(own[p] - above, one)
            if share <= 0:
                continue
            b = 0 if shared else image[p]
            t, right, lower = texel[number, p], across[number, p], down[number, p]
            w10, w11 = share * lower * (one - right), share * lower * right
            w00, w01 = share * (one - right) - w10, share * right - w11
            for c in range(channels):
                upper = w00 * level[b, t, c] + w01 * level[b, t + 1, c]
                values[p, c] += upper + w10 * level[b, t + size, c] + w11 * level[b, t + size + 1, c]

    @kernel
    def scatter(to_level, size, number, texel, across, down, own, image, to_values):  # type: ignore[no-untyped-def]
        """Transpose of `gather`, in pixel order; neighbouring pixels write neighbouring texels."""
        one, above = to_values.dtype.type(1), to_values.dtype.type(number - 1)
        shared = to_level.shape[0] == 1
        for p in range(own.shape[0]):
            share = min(own[p] - above, one)
            if share <= 0:
                continue
            b = 0 if shared else image[p]
            t, right, lower = texel[number, p], across[number, p], down[number, p]
            w10, w11 = share * lower * (one - right), share * lower * right
            w00, w01 = share * (one - right) - w10, share * right - w11
            for c in range(channels):
                g = to_values[p, c]
                to_level[b, t, c] += w00 * g
                to_level[b, t + 1, c] += w01 * g
                to_level[b, t + size, c] += w10 * g
                to_level[b, t + size + 1, c] += w11 * g

    return gather, scatter
