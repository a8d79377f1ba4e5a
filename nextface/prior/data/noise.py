"""Noise in the head's rest space: the same place of the skin has the same value in every view.

A periodic volume of band-limited noise and one of soft spots are made once; a person's skin looks them up at several scales,
each turned and shifted at random, so that no two persons share a pattern and none repeats along an axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from nextface.rendering.jit import array, compiled, kernel, spread

SIDE = 32
"""Voxels along the volume, which is periodic; a power of two."""
WAVELENGTH = 4.0
"""Of the noise, voxels."""
FIELDS = 4
"""Independent fields of noise, beside one of which only the gradient is kept."""
CHANNELS = FIELDS + 3
GRAIN = 256
"""Side of the white noise that sensors have."""
_BANDWIDTH = 0.35
_SPOT_SPACING, _SPOT_RADII = 4.0, (0.7, 1.5)
"""Mean distance and radii of spots, voxels."""


@dataclass(frozen=True)
class NoiseVolume:
    """fields: FIELDS of unit variance; the gradient of another, per voxel. [N, N, N, CHANNELS]
    spots:  soft spots of strength 0..1 at random places. [N, N, N, 1]; N = SIDE
    grain:  white noise of a plane, [3, GRAIN, GRAIN]
    """

    fields: Tensor
    spots: Tensor
    grain: Tensor

    @classmethod
    def make(cls, generator: torch.Generator, device: torch.device | str = "cpu") -> NoiseVolume:
        """generator: of the CPU, so that every device gets the same volume"""
        axis = torch.fft.fftfreq(SIDE)
        wave = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
        band = torch.exp(-((wave.square().sum(0).sqrt() * WAVELENGTH - 1.0) ** 2) / (2.0 * _BANDWIDTH**2))
        white = torch.randn(FIELDS + 1, SIDE, SIDE, SIDE, generator=generator)
        spectrum = torch.fft.fftn(white, dim=(1, 2, 3)) * band
        deviation = torch.fft.ifftn(spectrum, dim=(1, 2, 3)).real.flatten(1).std(1)
        spectrum = spectrum / deviation[:, None, None, None]
        gradient = spectrum[-1] * (2j * torch.pi) * wave
        fields = torch.fft.ifftn(torch.cat([spectrum[:-1], gradient]), dim=(1, 2, 3)).real
        volume = fields.permute(1, 2, 3, 0).contiguous()
        grain = torch.randn(3, GRAIN, GRAIN, generator=generator)
        return cls(volume.to(device), _spots(generator).to(device), grain.to(device))


def look_up(volume: Tensor, places: Tensor) -> Tensor:
    """Trilinear values of a periodic volume. volume: [N, N, N, C]; places: voxels, [B, 3, P] -> [B, C, P]"""
    if not compiled(places):
        return look_up_torch(volume, places)
    values = places.new_empty(len(places), volume.shape[3], places.shape[2])
    spread(_look_up, len(places), array(volume), array(places), values.numpy(), grain=1)
    return values


def look_up_torch(volume: Tensor, places: Tensor) -> Tensor:
    """The same in plain torch, on any device."""
    side = volume.shape[0]
    channels_first = pad(volume.permute(3, 0, 1, 2)[None], (0, 1) * 3, mode="circular")
    where = places.mT.remainder(side).flip(-1) * (2.0 / side) - 1.0
    return grid_sample(channels_first, where[None, None], align_corners=True)[0, :, 0].transpose(0, 1).contiguous()


@kernel
def _look_up(start, stop, volume, places, values):  # type: ignore[no-untyped-def]
    wrap = volume.shape[0] - 1
    one = np.float32(1)
    for row in range(start, stop):
        for p in range(places.shape[2]):
            x, y, z = places[row, 0, p], places[row, 1, p], places[row, 2, p]
            left, low, near = np.floor(x), np.floor(y), np.floor(z)
            b, d, f = x - left, y - low, z - near
            a, c, e = one - b, one - d, one - f
            i, j, k = int(left) & wrap, int(low) & wrap, int(near) & wrap
            i1, j1, k1 = (i + 1) & wrap, (j + 1) & wrap, (k + 1) & wrap
            for channel in range(volume.shape[3]):
                front = a * (c * volume[i, j, k, channel] + d * volume[i, j1, k, channel])
                front += b * (c * volume[i1, j, k, channel] + d * volume[i1, j1, k, channel])
                back = a * (c * volume[i, j, k1, channel] + d * volume[i, j1, k1, channel])
                back += b * (c * volume[i1, j, k1, channel] + d * volume[i1, j1, k1, channel])
                values[row, channel, p] = e * front + f * back


def _spots(generator: torch.Generator) -> Tensor:
    count = round((SIDE / _SPOT_SPACING) ** 3)
    centre = torch.rand(count, 3, generator=generator) * SIDE
    low, high = _SPOT_RADII
    radius = low + (high - low) * torch.rand(count, generator=generator)
    strength = 0.3 + 0.7 * torch.rand(count, generator=generator)
    axis = torch.arange(SIDE, dtype=torch.float32)
    total = torch.zeros(SIDE, SIDE, SIDE)
    for place, width, depth in zip(centre, radius, strength, strict=True):
        away = (axis[None] - place[:, None] + SIDE / 2).remainder(SIDE) - SIDE / 2
        x, y, z = torch.exp(-0.5 * (away / width) ** 2)
        total = torch.maximum(total, depth * x[:, None, None] * y[:, None] * z)
    return total[..., None]
