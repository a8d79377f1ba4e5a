"""Colour at the file border: sRGB's own transfer curve, luminance and chroma in linear Rec.709."""

from __future__ import annotations

import torch
from torch import Tensor

REC709_LUMA = (0.2126, 0.7152, 0.0722)
_RGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)


def srgb_to_linear(encoded: Tensor) -> Tensor:
    """Decode sRGB (IEC 61966-2-1) in 0..1 to linear Rec.709. Any shape."""
    low = encoded / 12.92
    high = ((encoded.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(encoded <= 0.04045, low, high)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Encode linear Rec.709 as sRGB (IEC 61966-2-1); values outside 0..1 are clipped. Any shape."""
    linear = linear.clamp(0.0, 1.0)
    low = linear * 12.92
    high = 1.055 * linear.clamp_min(0.0031308) ** (1.0 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, low, high)


def luminance(rgb: Tensor) -> Tensor:
    """Relative luminance Y of linear Rec.709. `[..., 3] -> [...]`."""
    return rgb @ rgb.new_tensor(REC709_LUMA)


def chromaticity(rgb: Tensor) -> Tensor:
    """x and y of XYZ / (1 + X + Y + Z), bounded and smooth at black. `[..., 3] -> [..., 2]`."""
    xyz = rgb @ rgb.new_tensor(_RGB_TO_XYZ).T
    return xyz[..., :2] / (1.0 + xyz.sum(-1, keepdim=True))
