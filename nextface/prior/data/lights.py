"""Light on the faces of the training set: CC0 environments turned at random, blended, with a lamp before some."""

from __future__ import annotations

import math
from importlib.resources import files

import numpy as np
import roma
import torch
from torch import Tensor

from nextface.color import luminance
from nextface.constants import constant
from nextface.rendering.basis import band_of, sh_basis
from nextface.rendering.sh import rotation_matrix

_TILT, _BLENDED, _LAMPS, _TINT = 10.0, 0.3, 0.4, 0.05
_SHARPEST, _SOFTEST = 0.012, 0.07
"""Band l of a lamp is a point's times exp(−s l (l + 1)), with s between these."""
_BRIGHTEST_LAMP = 1.2
"""Irradiance by a lamp from ahead, as a multiple of the environment's."""
_BACKLIT = 0.25
"""Least share that the front has in the light of front and back."""


def environments(bands: int) -> Tensor:
    """SH coefficients of the environments, linear, zenith up. `[N, bands², 3]`"""
    with files("nextface.prior.data").joinpath("lights.npz").open("rb") as file, np.load(file) as archive:
        return torch.from_numpy(archive["light"][:, : bands**2])


def draw_lights(count: int, bands: int, generator: torch.Generator) -> Tensor:
    """Random lights in the view frame, linear Rec.709, `[count, bands², 3]`, on the CPU.

    Scaled so that a white patch that faces the viewer is lit with irradiance π.
    """
    table = environments(bands)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    light = _turned(table, count, generator)
    blend = (torch.rand(count, generator=generator) < _BLENDED)[:, None, None] * uniform(0.0, 0.7, 1, 1)
    light = torch.lerp(light, _turned(table, count, generator), blend)
    lamps = (torch.rand(count, generator=generator) < _LAMPS).float() * uniform(0.2, _BRIGHTEST_LAMP)
    azimuth, height = uniform(-1.5, 1.5), uniform(-0.15, 1.0)
    toward = torch.stack([azimuth.sin() * height.cos(), height.sin(), azimuth.cos() * height.cos()], 1)
    softness = uniform(_SHARPEST, _SOFTEST, 1)
    degree = torch.tensor(band_of(bands), dtype=torch.float32)
    lamp = sh_basis(toward, bands) * torch.exp(-softness * degree * (degree + 1))
    warmth = torch.exp(uniform(-1.0, 1.0, 1) * torch.tensor([0.25, 0.0, -0.35]))
    grey = luminance(light)[..., None]
    light = torch.lerp(grey.expand_as(light), light, uniform(0.4, 1.0, 1, 1))
    light = light + (lamps[:, None] * lamp * math.pi)[..., None] * warmth[:, None]
    return (
        light
        / _front(light)[:, None].pow(uniform(0.75, 1.0, 1, 1))
        * torch.exp(_TINT * torch.randn(count, 1, 3, generator=generator))
    )


def _turned(table: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Environments turned about the vertical, tilted, some mirrored; those that light the face from behind are turned round."""
    chosen = table[torch.randint(len(table), (count,), generator=generator)]
    yaw = torch.rand(count, generator=generator) * 2.0 * math.pi
    tilt = torch.randn(count, generator=generator) * math.radians(_TILT)
    bands = math.isqrt(table.shape[1])
    light = rotation_matrix(roma.euler_to_rotmat("YX", torch.stack([yaw, tilt], 1)), bands) @ chosen
    flip = constant(tuple(_signs(bands, 0)), light)
    mirrored = (torch.rand(count, generator=generator) < 0.5)[:, None, None]
    light = torch.where(mirrored, light * flip[:, None], light)
    behind = light * constant(tuple(_signs(bands, 2)), light)[:, None]
    front, back = _front(light).mean(1), _front(behind).mean(1)
    light = torch.where((front / (front + back) < _BACKLIT)[:, None, None], behind, light)
    return light / _front(light).mean(1)[:, None, None]


def _front(light: Tensor) -> Tensor:
    """Irradiance over π of a patch that faces the viewer, by bands 0 to 2, not below a tenth of the mean. [B, L, 3] -> [B, 3]"""
    ahead = sh_basis(light.new_tensor([[0.0, 0.0, 1.0]]), 3)[0]
    cosine = light.new_tensor([math.pi] + [2.0 * math.pi / 3.0] * 3 + [math.pi / 4.0] * 5)
    floor = 0.1 * light[:, 0] / math.sqrt(4.0 * math.pi)
    return torch.maximum(((ahead * cosine)[:, None] * light[:, :9]).sum(1) / math.pi, floor)


def _signs(bands: int, axis: int) -> list[float]:
    """Sign of each basis function when an axis is mirrored."""
    probe = torch.tensor([[0.36, 0.48, 0.8]], dtype=torch.float64)
    other = probe.clone()
    other[:, axis] *= -1.0
    return torch.sign(sh_basis(probe, bands) * sh_basis(other, bands))[0].tolist()
