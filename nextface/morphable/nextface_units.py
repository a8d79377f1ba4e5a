"""From NextFace's numbers to ours and back: raw coefficients and the roughness of its renderer, redner."""

from __future__ import annotations

from torch import Tensor


def from_raw(raw: Tensor, deviation: Tensor) -> Tensor:
    """NextFace's coefficients multiply the stored basis; ours multiply basis · sqrt(variance). `[..., K] -> [..., K]`"""
    return raw / deviation


def to_raw(coefficients: Tensor, deviation: Tensor) -> Tensor:
    """The inverse of `from_raw`; `deviation` from `nextface.morphable.basel.read_scale`. `[..., K] -> [..., K]`"""
    return coefficients * deviation


def from_redner_roughness(roughness: Tensor) -> Tensor:
    """redner's roughness to perceptual roughness r. Any shape.

    redner's lobe is Blinn-Phong with exponent n = 2 / roughness - 2 and Smith masking for a Beckmann width of
    sqrt(roughness). A width alpha corresponds to n = 2 / alpha² - 2 (Walter et al. 2007), so its roughness is alpha²,
    and with alpha = r² it is r to the fourth power. NextFace's start of 0.4 is r = 0.795.
    """
    return roughness.clamp_min(0.0) ** 0.25


def to_redner_roughness(roughness: Tensor) -> Tensor:
    """The inverse of `from_redner_roughness`."""
    return roughness**4
