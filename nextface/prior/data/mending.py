"""What training does to clean crops: random masks, backgrounds, and the traces that a fit leaves in its maps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, normalize, pad

from nextface.color import luminance
from nextface.prior.data.faces import Faces
from nextface.prior.data.noise import GRAIN

GRID = 10
"""Cells along a crop of the smooth noise that masks, backgrounds and traces are made of."""
_SENSOR_NOISE = 0.006
_WIDEST_BLUR = 1.6
"""Standard deviation, pixels of a crop of 128."""
_MARK = 1.0 / 8.0
_FAINTEST = 0.7
"""Share of a mark's contrast that a fit may lack."""
_USUAL_SKIN = (0.31, 0.19, 0.13)
"""Linear albedo to which fits draw a skin's tone; near the geometric mean of the generated people, (0.30, 0.18, 0.12) of 96."""
_DRAWN = 0.6
"""Share of the way to the usual skin that a fit may go."""


@dataclass(frozen=True)
class Chances:
    """Random numbers of F crops. numbers: 0..1, [F, 16]; grids: normal, [F, 8, GRID, GRID]; grain: place in the sensor's noise,
    int64 [F, 2]"""

    numbers: Tensor
    grids: Tensor
    grain: Tensor

    @classmethod
    def draw(cls, count: int, generator: torch.Generator) -> Chances:
        grids = torch.randn(count, 8, GRID, GRID, generator=generator)
        place = torch.randint(GRAIN, (count, 2), generator=generator)
        return cls(torch.rand(count, 16, generator=generator), grids, place)

    def rows(self, index: Tensor | slice) -> Chances:
        return Chances(self.numbers[index], self.grids[index], self.grain[index])

    def to(self, device: torch.device | str) -> Chances:
        return Chances(self.numbers.to(device), self.grids.to(device), self.grain.to(device))


def random_masks(faces: Faces, chances: Chances) -> Tensor:
    """Parts of the heads such as a fit knows: skin that one camera saw, less blobs. 0 or 1, [B, 1, S, S]"""
    size = faces.covered.shape[-1]
    azimuth, reach, amount, only_skin = ((chances.numbers[:, k, None, None, None]) for k in range(4))
    angle = (azimuth - 0.5) * 2.4
    facing = faces.mesh_normal[:, :1] * angle.sin() + faces.mesh_normal[:, 2:] * angle.cos()
    blobs = _grown(chances.grids[:, :1, :5, :5], size)
    mask = (facing > reach * 0.5 - 0.2) & (blobs > 2.2 * amount - 2.6)
    own = torch.where(only_skin < 0.5, faces.skin, faces.covered)
    return (mask & (own > 0.5)).float()


def photographed(faces: Faces, chances: Chances, grain: Tensor) -> Tensor:
    """The photos before out-of-focus backgrounds, with the sensor's noise. Linear, 0..1, [B, 3, S, S]

    grain: `NoiseVolume.grain`
    """
    size = faces.photo.shape[-1]
    level = 0.02 + 0.6 * chances.numbers[:, 4].square()
    colours = _grown(0.12 * chances.grids[:, 1:4] + 0.5 * chances.grids[:, 4:5], size)
    photo = torch.lerp(level[:, None, None, None] * colours.exp(), faces.photo, faces.covered)
    noise = _taken(grain, chances.grain, size)
    return (photo + _SENSOR_NOISE * noise * (0.3 + photo).sqrt()).clamp(0.0, 1.0)


def corrupted(domain: str, faces: Faces, chances: Chances) -> Tensor:
    """Maps of one domain with what a fit leaves in them: shading, highlights, a tint, a tone nearer to the usual, noise and blur, and
    marks of the skin (brows, stubble, moles) that it has found in part. [B, C, S, S]

    domain: "diffuse", "specular", "roughness" or "normal"
    """
    size = faces.covered.shape[-1]
    number = [chances.numbers[:, k, None, None, None] for k in range(16)]
    smooth = _grown(chances.grids[:, 5:8], size)
    shading = luminance_of(faces.shading).clamp_min(0.02)
    shading = (shading / _skin_mean(shading, faces.skin)).log().clamp(-2.0, 1.5)
    gloss = luminance_of(faces.highlight)
    if domain == "diffuse":
        tint = (0.4 * (torch.stack([number[5], number[6], number[7]], 1)[:, :, 0] - 0.5)).exp()
        usual = faces.diffuse.new_tensor(_USUAL_SKIN)[:, None, None]
        tint = tint * (usual / _skin_mean(faces.diffuse, faces.skin).clamp_min(1e-3)) ** (_DRAWN * number[13])
        trace = (0.7 * number[8] * shading + 0.08 * number[9] * smooth[:, :1]).exp()
        plain = torch.lerp(faces.diffuse, _coarse(faces.diffuse, faces.covered), _FAINTEST * number[11])
        values = plain * trace * tint + 0.8 * number[10] * faces.highlight
    elif domain == "normal":
        wrong = faces.normal + (number[8] * 1.2 - 1.0) * (faces.normal - faces.mesh_normal)
        values = normalize(wrong + 0.10 * number[9] * smooth + 1e-6, dim=1) * faces.covered
    else:
        sign = 1.0 if domain == "specular" else -1.0
        trace = 0.5 * (number[8] - 0.5) + 0.10 * number[9] * smooth[:, :1]
        trace = trace + sign * (number[10] - 0.3) * (0.25 * shading + 2.0 * gloss).clamp(-0.4, 0.4)
        values = torch.lerp(getattr(faces, domain), _skin_mean(getattr(faces, domain), faces.skin), 0.7 * number[11])
        values = values * (1.0 + trace)
    # Only what lies on the head is blurred together.
    sigma = _WIDEST_BLUR * chances.numbers[:, 12] * size / 128.0
    values = _blurred(values * faces.covered, sigma) / _blurred(faces.covered, sigma).clamp_min(1e-3)
    if domain == "normal":
        return normalize(values, dim=1) * faces.covered
    return values.clamp(0.0, 1.0) * faces.covered


def luminance_of(image: Tensor) -> Tensor:
    """[B, 3, S, S] -> [B, 1, S, S]"""
    return luminance(image.movedim(1, -1))[:, None]


def _skin_mean(values: Tensor, skin: Tensor) -> Tensor:
    return (values * skin).sum((2, 3), keepdim=True) / skin.sum((2, 3), keepdim=True).clamp_min(1.0)


def _grown(grid: Tensor, size: int) -> Tensor:
    return interpolate(grid, (size, size), mode="bicubic", align_corners=False)


def _coarse(values: Tensor, covered: Tensor) -> Tensor:
    """Without what is finer than `_MARK` of the crop, such as a fit starts from. [B, C, S, S], [B, 1, S, S]"""
    size = values.shape[-1]
    block = max(1, round(_MARK * size))
    mean = avg_pool2d(values * covered, block) / avg_pool2d(covered, block).clamp_min(1e-3)
    return interpolate(mean, (size, size), mode="bilinear", align_corners=False) * covered


def _taken(grain: Tensor, place: Tensor, size: int) -> Tensor:
    """A window of the periodic grain for each of some places. grain: [3, GRAIN, GRAIN] -> [B, 3, size, size]"""
    step = torch.arange(size, device=place.device)
    row, column = ((place[:, axis, None] + step).remainder(GRAIN) for axis in (0, 1))
    return grain.flatten(1)[:, row[:, :, None] * GRAIN + column[:, None]].transpose(0, 1)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, each image by its own standard deviation in pixels. [B, C, S, S], [B]"""
    count, channels, size, _ = images.shape
    reach = max(1, math.ceil(2.0 * _WIDEST_BLUR * size / 128.0))
    offset = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma.clamp_min(0.1)[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    flat = pad(images, (reach,) * 4, mode="replicate").flatten(0, 1)[None]
    flat = conv2d(flat, kernel[:, :, None], groups=count * channels)
    return conv2d(flat, kernel[..., None], groups=count * channels)[0].unflatten(0, (count, channels))
