"""Light as spherical harmonics: irradiance, environment maps, windowing.

Basis and order of the coefficients: `nextface.rendering.basis`. Directions are unit vectors in the view frame: x right,
y up, z to the viewer.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from nextface.constants import constant
from nextface.rendering.basis import band_of, sh_basis
from nextface.rendering.zonal import filtered_light

IRRADIANCE_BANDS = 9
"""Bands of a light that reach its irradiance: all of nine or ten, as the clamped cosine has nothing in band 9."""


@lru_cache
def cosine_coefficients(bands: int) -> tuple[float, ...]:
    """A_l of the clamped cosine: irradiance = Σ A_l c_lm Y_lm(n) (Ramamoorthi & Hanrahan 2001). Odd l > 1 vanish."""
    values = []
    for degree in range(bands):
        if degree == 1:
            values.append(2.0 * math.pi / 3.0)
        elif degree % 2 == 1:
            values.append(0.0)
        else:
            half = degree // 2
            sign = 1.0 if half % 2 == 1 else -1.0
            values.append(2.0 * math.pi * sign / ((degree + 2) * (degree - 1)) * math.comb(degree, half) / 2.0**degree)
    return tuple(values)


def scale_bands(coefficients: Tensor, factors: tuple[float, ...]) -> Tensor:
    """Multiply band l by `factors[l]`; bands beyond them are dropped. `[..., L, C] -> [..., min(L, n²), C]`."""
    bands = min(len(factors), math.isqrt(coefficients.shape[-2]))
    weights = constant(tuple(factors[degree] for degree in band_of(bands)), coefficients)
    return coefficients[..., : bands * bands, :] * weights[:, None]


def irradiance(normals_view: Tensor, radiance: Tensor, image: Tensor) -> Tensor:
    """Unshadowed irradiance E at surface normals, not clamped; a constant light 1 gives π.

    normals_view: unit, [P, 3]; radiance: SH coefficients, linear RGB, [B, L, 3]; image: ascending, [P] -> [P, 3].
    Exact for up to ten bands. Five bands, often used, are 1.4% off under a small lamp.
    """
    bands = min(IRRADIANCE_BANDS, math.isqrt(radiance.shape[1]))
    return filtered_light(normals_view, scale_bands(radiance, cosine_coefficients(bands)), image)


def rotation_matrix(rotation: Tensor, bands: int) -> Tensor:
    """What a rotation does to SH coefficients: the light c seen in rotated axes, light'(ω) = light(R ω), has coefficients D c.

    A rotated light stays within its bands, so D follows exactly from its values at enough directions. Differentiable.
    rotation: [B, 3, 3] -> [B, bands², bands²]
    """
    # In double precision, so that the rounding of the products, which depends on who else is in the batch, leaves no trace.
    directions, inverse = _sampling(bands, torch.float64, rotation.device)
    turned = directions @ rotation.double().mT
    return (inverse @ sh_basis(turned.flatten(0, 1), bands).unflatten(0, turned.shape[:2])).to(rotation.dtype)


@lru_cache
def _sampling(bands: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Directions `[N, 3]`, and the matrix `[bands², N]` that turns a light's values there into its coefficients."""
    count = 3 * bands * bands
    number = torch.arange(count, dtype=torch.float64)
    z, angle = 1.0 - (2.0 * number + 1.0) / count, number * math.pi * (3.0 - math.sqrt(5.0))
    radius = (1.0 - z * z).sqrt()
    directions = torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1)
    inverse = torch.linalg.pinv(sh_basis(directions, bands))
    return directions.to(device, dtype), inverse.to(device, dtype)


def environment_directions(height: int, device: torch.device | str | None = None) -> Tensor:
    """Directions of the pixels of an equirectangular map, view frame. `[H, 2H, 3]`.

    With u, v in 0..1 from the upper left corner of the image (pixel centres at .5): θ = π v is the angle from +y (up) and
    φ = 2π u − π the azimuth, direction = (sin θ sin φ, cos θ, −sin θ cos φ). The centre of the map is what the photographer
    sees ahead (−z, behind the subject), the right half is to the right of the photo, the borders are behind the camera.
    """
    v = (torch.arange(height, device=device) + 0.5) / height
    u = (torch.arange(2 * height, device=device) + 0.5) / (2 * height)
    theta, phi = math.pi * v[:, None], 2.0 * math.pi * u[None, :] - math.pi
    upward = theta.cos().expand(-1, 2 * height)
    return torch.stack([theta.sin() * phi.sin(), upward, -theta.sin() * phi.cos()], -1)


def environment_uv(directions: Tensor) -> Tensor:
    """The inverse of `environment_directions`. unit `[..., 3] -> [..., 2]` (u, v) in 0..1."""
    x, y, z = directions.unbind(-1)
    u = torch.atan2(x, -z) / (2.0 * math.pi) + 0.5
    v = torch.acos(y.clamp(-1.0, 1.0)) / math.pi
    return torch.stack([u, v], -1)


def environment_map(radiance: Tensor, height: int) -> Tensor:
    """Evaluate a light as an equirectangular map, linear, not clamped. `[L, 3] -> [H, 2H, 3]`."""
    directions = environment_directions(height, radiance.device).to(radiance.dtype)
    basis = sh_basis(directions.flatten(0, 1), math.isqrt(radiance.shape[0]))
    return (basis @ radiance).unflatten(0, (height, 2 * height))


def project(environment: Tensor, bands: int) -> Tensor:
    """SH coefficients of an equirectangular map. `[H, 2H, 3] -> [bands², 3]`.

    Each row is weighted by the exact solid angle of its pixels.
    """
    height = environment.shape[0]
    directions = environment_directions(height, environment.device).to(environment.dtype)
    edges = torch.cos(torch.linspace(0.0, math.pi, height + 1, device=environment.device, dtype=torch.float64))
    solid = ((edges[:-1] - edges[1:]) * math.pi / height).to(environment.dtype)
    weighted = (environment * solid[:, None, None]).flatten(0, 1)
    return sh_basis(directions.flatten(0, 1), bands).T @ weighted


def windowed(radiance: Tensor) -> Tensor:
    """Low-pass a light for export so that it does not ring: Hann window over the bands (Sloan 2008, "Stupid SH tricks").

    Band l is multiplied by (1 + cos(π l / bands)) / 2. `[..., L, C] -> [..., L, C]`.
    """
    bands = math.isqrt(radiance.shape[-2])
    return scale_bands(radiance, tuple(0.5 + 0.5 * math.cos(math.pi * degree / bands) for degree in range(bands)))
