"""Reflection of SH light by skin."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nextface.rendering.sh import irradiance
from nextface.rendering.specular import TABLE_BANDS, lobes
from nextface.rendering.transport import Shadow
from nextface.rendering.zonal import filtered_light

_NARROW, _WIDE = 0.2, 0.8
"""Roughness below which a lobe in shadow is a cone of its own, and from which it sees what diffuse reflection sees."""


def shade_diffuse(albedo: Tensor, irradiance: Tensor) -> Tensor:
    """Lambert: ρ/π · E. albedo: [P, 3]; irradiance: [P, 3], linear RGB -> [P, 3]."""
    return albedo * irradiance * (1.0 / math.pi)


def shade_specular(
    normal: Tensor, to_viewer: Tensor, weight: Tensor, roughness: Tensor, radiance: Tensor, image: Tensor
) -> Tensor:
    """GGX with α = r² and Fresnel w · F_exact(n = 1.4) under SH light, `[P, 3]` linear RGB, not below 0.

    normal: unit shading normal, view frame, [P, 3]; to_viewer: unit, view frame, [P, 3]; weight: w, [P, 1]; roughness:
    perceptual r, [P, 1]; radiance: SH coefficients, [B, L, 3], bands above 9 are dropped; image: ascending, [P].
    """
    bands = min(math.isqrt(radiance.shape[1]), TABLE_BANDS)
    lobe = lobes(normal, to_viewer, roughness, bands)
    low = lobe.about_normal.shape[1] ** 2
    light = filtered_light(lobe.direction, radiance[:, : bands * bands], image, lobe.about_direction)
    light = light + filtered_light(normal, radiance[:, :low], image, lobe.about_normal)
    return weight * lobe.strength * light.clamp_min(0.0)


def shade(
    normal: Tensor,
    to_viewer: Tensor,
    diffuse: Tensor,
    specular: Tensor,
    roughness: Tensor,
    radiance: Tensor,
    image: Tensor,
    shadow: Shadow | None = None,
) -> Tensor:
    """Diffuse plus specular reflection, `[P, 3]` linear RGB. diffuse: albedo, [P, 3]; the rest as in `shade_specular`."""
    reflected = shade_specular(normal, to_viewer, specular, roughness, radiance, image)
    if shadow is not None:
        reflected = reflected * torch.lerp(shadow.lobe.expand_as(shadow.lit), shadow.lit, _width(roughness))
    return shade_diffuse(diffuse, incoming(normal, radiance, image, shadow)) + reflected


def _width(roughness: Tensor) -> Tensor:
    """From 0 for a narrow lobe to 1 for one that gathers light as widely as diffuse reflection does.

    A narrow lobe in shadow loses the share of it that is blocked, whatever the light; a wide one what the irradiance loses.
    """
    across = ((roughness - _NARROW) / (_WIDE - _NARROW)).clamp(0.0, 1.0)
    return across * across * (3.0 - 2.0 * across)


def incoming(normal: Tensor, radiance: Tensor, image: Tensor, shadow: Shadow | None = None) -> Tensor:
    """Irradiance, self-shadowed where a shadow is given, not below 0. `[P, 3]`; a constant light 1 gives π."""
    arriving = irradiance(normal, radiance, image).clamp_min(0.0)
    return arriving if shadow is None else arriving * shadow.lit
