"""Reflection of SH light by skin."""

from __future__ import annotations

import math

from torch import Tensor


def shade_diffuse(albedo: Tensor, irradiance: Tensor) -> Tensor:
    """Lambert: ρ/π · E. albedo: [P, 3]; irradiance: [P, 3], linear RGB -> [P, 3]."""
    return albedo * irradiance * (1.0 / math.pi)
