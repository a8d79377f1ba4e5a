"""Skin maps as Laplacian levels: the pyramid that is optimised, looked up and exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

COARSEST = 16
RELIEF_FROM = 64
"""Side of the levels that a normal map has: coarser structure of the surface is the mesh's."""

_STRIP = 1 << 20
"""Texels that are worked on at once where a step would hold several temporaries of a whole map."""


def row_strips(rows: int, columns: int) -> list[slice]:
    """The rows of a large picture in strips of at most some million texels, one row at least."""
    step = max(1, _STRIP // columns)
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]


def upsample(level: Tensor, size: int) -> Tensor:
    """Bilinear, half-pixel centred. `[B, h, w, C] -> [B, size, size, C]`."""
    if level.shape[1] == size:
        return level
    channels_first = level.permute(0, 3, 1, 2)
    return interpolate(channels_first, (size, size), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


def relief(levels: Sequence[Tensor]) -> list[Tensor]:
    """The levels of slopes, zero where coarser than `RELIEF_FROM`. [B, s, s, 2] each"""
    return [level if level.shape[1] >= RELIEF_FROM else torch.zeros_like(level) for level in levels]


def resized(image: Tensor, size: int) -> Tensor:
    """Means over the area of each new texel. `[B, h, w, C] -> [B, size, size, C]`."""
    return interpolate(image.permute(0, 3, 1, 2), (size, size), mode="area").permute(0, 2, 3, 1)


@dataclass
class LaplacianTexture:
    """A square map as a sum of levels of 16², 32², … texels, each level bilinearly upsampled.

    levels: coarse to fine, `[B, s, s, C]` with s = 16·2^l; row 0 is the top of the image (v = 1). The full map is
        the sum of all levels; a pixel that covers many fine texels sums only down to its own level.
    """

    levels: list[Tensor]

    @classmethod
    def from_image(cls, image: Tensor) -> LaplacianTexture:
        """Decompose a full map `[B, T, T, C]`, T = 16·2^n, so that `full()` returns it (to rounding)."""
        pyramid = [image]
        while pyramid[-1].shape[1] > COARSEST:
            pyramid.append(resized(pyramid[-1], pyramid[-1].shape[1] // 2))
        pyramid.reverse()
        levels = [pyramid[0]]
        for coarse, fine in zip(pyramid[:-1], pyramid[1:], strict=True):
            levels.append(fine - upsample(coarse, fine.shape[1]))
        return cls([level.contiguous() for level in levels])

    @classmethod
    def constant(cls, value: Tensor, resolution: int) -> LaplacianTexture:
        """A map of one value per image, `[B, C]`, at `resolution`²."""
        batch, channels = value.shape
        levels = [value[:, None, None, :].expand(batch, COARSEST, COARSEST, channels).contiguous()]
        size = 2 * COARSEST
        while size <= resolution:
            levels.append(value.new_zeros(batch, size, size, channels))
            size *= 2
        return cls(levels)

    @property
    def resolution(self) -> int:
        return self.levels[-1].shape[1]

    @property
    def channels(self) -> int:
        return self.levels[-1].shape[3]

    def full(self) -> Tensor:
        """The whole map, `[B, T, T, C]`."""
        image = self.levels[0]
        for level in self.levels[1:]:
            image = upsample(image, level.shape[1]) + level
        return image

    def to(self, device: torch.device | str) -> LaplacianTexture:
        return LaplacianTexture([level.to(device) for level in self.levels])


MAP_CHANNELS = {"diffuse": 3, "specular": 1, "roughness": 1, "normal": 2}


def channels() -> dict[str, slice]:
    """Of stacked maps, by domain."""
    found, first = {}, 0
    for name, count in MAP_CHANNELS.items():
        found[name] = slice(first, first + count)
        first += count
    return found


@dataclass
class SkinMaps:
    """The optimised skin. Values outside their range may occur inside the loop; `images` clamps them.

    diffuse:    albedo, linear Rec.709. 3 channels
    specular:   Fresnel weight w in 0..1. 1 channel
    roughness:  perceptual roughness r. 1 channel
    normal:     tangent-space slopes (sx, sy), the normal is normalise(sx, sy, 1), green up. 2 channels
    confidence: how far each texel was seen: 1 measured in the photo, ~0.5 taken from the mirror, 0 from statistics.
        `[B, T, T, 1]`
    """

    diffuse: LaplacianTexture
    specular: LaplacianTexture
    roughness: LaplacianTexture
    normal: LaplacianTexture
    confidence: Tensor

    def textures(self) -> dict[str, LaplacianTexture]:
        return {name: getattr(self, name) for name in MAP_CHANNELS}

    def images(self) -> dict[str, Tensor]:
        """Full maps ready for export, in range: diffuse, specular, roughness and unit normals. `[B, T, T, 3|1|1|3]`."""
        return {name: self.image(name) for name in MAP_CHANNELS}

    def image(self, name: str) -> Tensor:
        """One of `images`."""
        full = self.textures()[name].full()
        if name == "normal":
            return torch.nn.functional.normalize(torch.cat([full, torch.ones_like(full[..., :1])], -1), dim=-1)
        return full.clamp(0.05 if name == "roughness" else 0.0, 1.0)

    def to(self, device: torch.device | str) -> SkinMaps:
        moved = {name: texture.to(device) for name, texture in self.textures().items()}
        return SkinMaps(**moved, confidence=self.confidence.to(device))
