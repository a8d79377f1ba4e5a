"""Natural light: its Gaussian prior, learnt from HDR environments, and the linear start of the statistical stage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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
        return self.mean + (latent @ self.factor.flatten(1)).unflatten(1, self.mean.shape)

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
    prior: LightPrior, normals: Tensor, albedo: Tensor, observed: Tensor, trust: Tensor
) -> tuple[Tensor, Tensor]:
    """Light and gains of one photo by re-weighted linear least squares; diffuse shading is linear in both.

    normals: view frame. [P, 3]; albedo, observed: linear RGB. [P, 3]; trust: [P]
    returns: latent [K] and log gains per channel [3]
    """
    if len(trust) > _START_PIXELS:
        keep = torch.linspace(0, len(trust) - 1, _START_PIXELS, device=trust.device).long()
        normals, albedo, observed, trust = normals[keep], albedo[keep], observed[keep], trust[keep]
    response = _unit_responses(normals)[:, : prior.mean.shape[0]] / torch.pi
    seen = response.shape[1]
    mean = response @ prior.mean[:seen] * albedo
    factor = torch.einsum("pl,klc->pkc", response, prior.factor[:, :seen]) * albedo[:, None]
    latent = mean.new_zeros(factor.shape[1])
    weight = trust
    gains = torch.ones_like(mean[0])
    for _ in range(_START_ROUNDS):
        shading = (mean + torch.einsum("pkc,k->pc", factor, latent)).clamp_min(1e-3 * albedo)
        gains = (weight[:, None] * shading * observed).sum(0) / (weight[:, None] * shading.square()).sum(0)
        gains = gains.clamp_min(1e-4)
        noise = _RELATIVE_SD * (gains * shading).mean()
        scale = (_INDEPENDENT / weight.sum().clamp_min(1e-6)).sqrt() / noise
        rows = factor * gains * (weight.sqrt() * scale)[:, None, None]
        target = (observed - gains * mean) * (weight.sqrt() * scale)[:, None]
        flat = rows.permute(0, 2, 1).flatten(0, 1)
        normal = flat.T @ flat + torch.eye(flat.shape[1], device=flat.device)
        latent = torch.linalg.solve(normal, flat.T @ target.flatten())
        residual = (observed - gains * (mean + torch.einsum("pkc,k->pc", factor, latent))).norm(dim=1)
        spread = 1.5 * residual.median().clamp_min(1e-4)
        weight = trust / (1.0 + (residual / spread).square())
    return latent, gains.log()


def _unit_responses(normals: Tensor) -> Tensor:
    """Irradiance of every unit SH coefficient that a clamped cosine can see. `[P, 3] -> [P, 25]`"""
    basis = sh_basis(normals, IRRADIANCE_BANDS)[..., None]
    return scale_bands(basis, cosine_coefficients(IRRADIANCE_BANDS))[..., 0]
