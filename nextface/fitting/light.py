"""Natural light: its Gaussian prior, learnt from HDR environments, and the linear start of the statistical stage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nextface.fitting import per_image
from nextface.morphable.model import combined
from nextface.rendering.raster import VisiblePixels
from nextface.rendering.sh import IRRADIANCE_BANDS, cosine_coefficients, scale_bands, sh_basis

_PRIOR_FILE = Path(__file__).with_name("light_prior.npz")

EXPOSURE_SD = 0.18
"""Standard deviation of log exposure: a photographer exposes so that white under this light records near 1."""
WHITE_BALANCE_SD = 0.12
"""Standard deviation of the logs of the red and blue gains: cameras balance to near neutral."""

_START_PIXELS = 4000
_START_ROUNDS = 4
# Residuals of neighbouring pixels err together: this many of them count as independent.
_INDEPENDENT = 300.0
_RELATIVE_SD = 0.1


@dataclass(frozen=True)
class LightPrior:
    """Light = mean + z · factor with z ~ N(0, 1), white-balanced and of unit mean frontal irradiance (E/π = 1).

    mean: SH coefficients, view frame. [L, 3]; factor: [K, L, 3]
    """

    mean: Tensor
    factor: Tensor

    def light(self, latent: Tensor) -> Tensor:
        """`[B, K] -> [B, L, 3]`."""
        return self.mean + combined(latent, self.factor)

    def latent(self, light: Tensor) -> Tensor:
        """Least-squares inverse of `light`, pulled to 0 where the light does not say. `[B, L, 3] -> [B, K]`."""
        factor = self.factor.flatten(1).double()
        normal = factor @ factor.T + 1e-6 * torch.eye(len(factor), dtype=torch.float64, device=factor.device)
        offset = (light - self.mean).flatten(1).double()
        return torch.linalg.solve(normal, factor @ offset.T).T.to(light)

    def to(self, device: torch.device | str) -> LightPrior:
        return LightPrior(self.mean.to(device), self.factor.to(device))


@cache
def light_prior(bands: int) -> LightPrior:
    """The shipped prior for `bands`² coefficients; bands beyond those it was learnt on have zero spread."""
    with np.load(_PRIOR_FILE, allow_pickle=False) as file:
        mean, factor = torch.from_numpy(file["mean"]).float(), torch.from_numpy(file["factor"]).float()
    count = bands * bands
    if count <= mean.shape[0]:
        return LightPrior(mean[:count].contiguous(), factor[:, :count].contiguous())
    missing = count - mean.shape[0]
    return LightPrior(
        torch.cat([mean, mean.new_zeros(missing, 3)]),
        torch.cat([factor, factor.new_zeros(factor.shape[0], missing, 3)], 1),
    )


def linear_start(
    prior: LightPrior, normals: Tensor, albedo: Tensor, observed: Tensor, trust: Tensor, pixels: VisiblePixels
) -> tuple[Tensor, Tensor]:
    """Light and gains of each photo by re-weighted linear least squares; diffuse shading is linear in both.

    normals: view frame, [P, 3]; albedo, observed: linear RGB, [P, 3]; trust: [P]
    returns: latent [B, K] and log gains per channel [B, 3]
    """
    rows = torch.cat([normals, albedo, observed, trust[:, None], torch.ones_like(trust)[:, None]], 1)
    rows = per_image.sample(rows, pixels, _START_PIXELS)
    normals, albedo, observed, trust, present = rows.split((3, 3, 3, 1, 1), -1)
    batch, count = rows.shape[:2]
    response = _unit_responses(normals.flatten(0, 1))[:, : prior.mean.shape[0]].unflatten(0, (batch, count)) / torch.pi
    seen = response.shape[-1]
    unit_light = torch.cat([prior.mean[None], prior.factor])[:, :seen].permute(1, 2, 0).flatten(1)
    lit = torch.bmm(response, unit_light.expand(batch, -1, -1)).unflatten(2, (3, -1)) * albedo[..., None]
    mean, factor = lit[..., 0], lit[..., 1:].flatten(1, 2)
    unit = torch.eye(factor.shape[2], dtype=torch.float64, device=factor.device)
    present_count = present.sum((1, 2))[:, None, None].clamp_min(1.0)
    shading = mean
    weight = trust
    latent, gains = factor.new_zeros(batch, factor.shape[2]), torch.ones_like(mean[:, :1])
    for _ in range(_START_ROUNDS):
        shading = shading.maximum(1e-3 * albedo)
        gains = (weight * shading * observed).sum(1, keepdim=True) / (weight * shading.square()).sum(1, keepdim=True)
        gains = gains.clamp_min(1e-4)
        noise = _RELATIVE_SD * (gains * shading).sum((1, 2), keepdim=True) / (3.0 * present_count)
        scale = weight.sqrt() * (_INDEPENDENT / weight.sum((1, 2), keepdim=True).clamp_min(1e-6)).sqrt() / noise
        whitened = factor * (gains * scale).flatten(1)[..., None]
        target = ((observed - gains * mean) * scale).flatten(1)[..., None]
        factorised = torch.linalg.cholesky_ex((whitened.mT @ whitened).double() + unit)[0]
        latent = torch.cholesky_solve((whitened.mT @ target).double(), factorised)[..., 0].to(latent)
        shading = mean + (factor * latent[:, None]).sum(-1).view_as(mean)
        residual = (observed - gains * shading).norm(dim=2, keepdim=True)
        middle = residual.masked_fill(present == 0.0, torch.nan).nanmedian(1, keepdim=True).values
        weight = trust / (1.0 + (residual / (1.5 * middle.clamp_min(1e-4))).square())
    return latent, gains[:, 0].log()


def _unit_responses(normals: Tensor) -> Tensor:
    """Irradiance of every unit SH coefficient that a clamped cosine can see. `[P, 3] -> [P, 25]`"""
    basis = sh_basis(normals, IRRADIANCE_BANDS)[..., None]
    return scale_bands(basis, cosine_coefficients(IRRADIANCE_BANDS))[..., 0]
