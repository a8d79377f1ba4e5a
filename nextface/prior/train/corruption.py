"""Crops as an unfinished fit leaves them, made from clean ones: what the encoder learns to bring back.

Albedo gets residual shading, cast shadows, baked highlights and a tint; specular weight and roughness an uneven gain and
offset; normals a bend; all of them blur. Photos stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, normalize, pad

from nextface.color import linear_to_srgb, srgb_to_linear
from nextface.prior.fusion import DOMAINS
from nextface.prior.train.processes import Processes

FIELD = 5  # side of the random fields, from which smooth ones are interpolated
SHADING = 0.5  # deviation of the logarithm of residual shading
TINT = 0.15  # deviation of the logarithm of each channel's gain
HIGHLIGHT = 0.5  # linear
SHADOW = 0.6  # greatest share of light that a cast shadow takes
OFFSET = 0.35  # deviation of specular weight and roughness in -1…1
BEND = 0.35  # deviation of the vector added to unit normals


@dataclass(frozen=True)
class Draws:
    """What is random about a batch of corruptions, a few numbers per crop. [B, …]

    strength: 0 leaves a crop clean, 1 spoils it most, [B, 1, 1, 1]; bumps: normal deviates, [B, 6, FIELD, FIELD]; gains:
    normal deviates, [B, 3, 1, 1]; blur: share of the blurred crop, [B, 1, 1, 1]
    """

    strength: Tensor
    bumps: Tensor
    gains: Tensor
    blur: Tensor

    @classmethod
    def of(cls, rows: int, generator: torch.Generator) -> Draws:
        """generator: on the CPU"""
        strength, blur = torch.rand(2, rows, 1, 1, 1, generator=generator)
        bumps = torch.randn(rows, 6, FIELD, FIELD, generator=generator)
        return cls(strength, bumps, torch.randn(rows, 3, 1, 1, generator=generator), blur)

    def own(self, processes: Processes) -> Draws:
        """Those of this process's rows."""
        return Draws(*(processes.own(getattr(self, each.name)) for each in fields(self)))


def corrupted(image: Tensor, domain: Tensor, draws: Draws, mask: Tensor | None = None) -> Tensor:
    """Spoilt crops. Mid-grey outside of the mask stays mid-grey.

    image: -1…1, [B, 3, S, S]; domain: index in DOMAINS, [B]; mask: [B, 1, S, S] -> [B, 3, S, S]
    """
    strength = draws.strength.to(image)
    smooth = interpolate(draws.bumps.to(image), image.shape[-2:], mode="bicubic", align_corners=True) * strength
    which = domain.view(-1, 1, 1, 1)
    grey = image + OFFSET * (smooth[:, :1] + 0.5 * strength * draws.gains[:, :1].to(image) * image)
    spoilt = torch.where(which == DOMAINS.index("diffuse"), _lit(image, smooth, draws, strength), grey)
    bent = normalize(image + BEND * smooth[:, :3], dim=1) * image.norm(dim=1, keepdim=True).clamp_max(1.0)
    spoilt = torch.where(which == DOMAINS.index("normal"), bent, spoilt)
    spoilt = torch.lerp(spoilt, _blurred(spoilt), strength * draws.blur.to(image)).clamp(-1.0, 1.0)
    spoilt = torch.where(which == 0, image, spoilt)
    return spoilt if mask is None else spoilt * mask


def _lit(image: Tensor, smooth: Tensor, draws: Draws, strength: Tensor) -> Tensor:
    """Albedo under uneven light. smooth: fields times strength, [B, 6, S, S]"""
    gain = torch.exp(SHADING * smooth[:, :1] + TINT * strength * draws.gains.to(image))
    shadow = 1.0 - SHADOW * strength * torch.sigmoid(12.0 * (smooth[:, 1:2].abs() - 0.6))
    highlight = HIGHLIGHT * (smooth[:, 2:3] - 0.7).clamp_min(0.0).square()
    linear = srgb_to_linear(0.5 * image + 0.5) * gain * shadow + highlight
    return 2.0 * linear_to_srgb(linear.clamp(0.0, 1.0)) - 1.0


def _blurred(image: Tensor) -> Tensor:
    """Two boxes of 1/32 of the side, one after the other."""
    reach = max(1, image.shape[-1] // 64)
    for _ in range(2):
        image = avg_pool2d(pad(image, (reach,) * 4, mode="replicate"), 2 * reach + 1, stride=1)
    return image
