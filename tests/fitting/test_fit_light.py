"""The light's prior and its linear start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nextface.fitting.light import light_prior, linear_start
from nextface.rendering.raster import VisiblePixels
from nextface.rendering.sh import irradiance


def normals_of(count: int, seed: int = 0) -> Tensor:
    """Unit normals of a face seen from the front, view frame. [P, 3]"""
    normals = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    normals[:, 2] = normals[:, 2].abs() + 0.3
    return torch.nn.functional.normalize(normals, dim=-1)


def one_row(count: int) -> VisiblePixels:
    """An image of a single row, all covered."""
    place, zero = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    return VisiblePixels(zero, zero, place, zero, torch.full((count, 4), -1), 1, 1, count)


def shading(light: Tensor, normals: Tensor) -> Tensor:
    """Of white skin. [P, 3]"""
    return irradiance(normals, light, torch.zeros(len(normals), dtype=torch.int64)) / math.pi


@pytest.mark.parametrize("bands", [3, 5, 9, 12])
def test_latent_round_trip(bands: int):
    """light → latent → light, for any number of bands, also beyond those that the prior was learnt on."""
    prior = light_prior(bands)
    latent = torch.randn(2, prior.factor.shape[0], generator=torch.Generator().manual_seed(bands))
    light = prior.light(latent)
    assert light.shape == (2, bands * bands, 3)
    assert torch.allclose(prior.light(prior.latent(light)), light, atol=2e-3)


def test_latent_of_the_mean_is_zero():
    prior = light_prior(5)
    assert float(prior.latent(prior.mean[None]).abs().max()) < 1e-4


def test_the_mean_light_has_unit_frontal_irradiance_and_comes_from_above():
    prior = light_prior(9)
    straight = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    front, above, below = shading(prior.mean[None], straight).mean(-1)
    assert float(front) == pytest.approx(1.0, abs=0.35)
    assert float(above) > 1.2 * float(below)


def test_lights_drawn_from_the_prior_are_mostly_positive():
    prior = light_prior(9)
    latent = torch.randn(50, prior.factor.shape[0], generator=torch.Generator().manual_seed(1))
    normals = normals_of(200)
    values = torch.cat([shading(light[None], normals) for light in prior.light(latent)])
    assert float((values > 0).float().mean()) > 0.97


def test_the_linear_start_finds_light_and_gains():
    """Known albedo and a light from the prior: the shading comes back within 3%."""
    prior = light_prior(5)
    normals = normals_of(3000)
    latent = 0.8 * torch.randn(1, prior.factor.shape[0], generator=torch.Generator().manual_seed(2))
    gains = torch.tensor([0.9, 0.7, 0.55])
    albedo = torch.tensor([0.45, 0.28, 0.2]) * (
        0.8 + 0.4 * torch.rand(3000, 1, generator=torch.Generator().manual_seed(3))
    )
    truth = shading(prior.light(latent), normals).clamp_min(0.0)
    found, logs = linear_start(prior, normals, albedo, albedo * truth * gains, torch.ones(3000), one_row(3000))
    recovered = shading(prior.light(found), normals) * logs.exp()
    error = (recovered - truth * gains).square().mean().sqrt() / (truth * gains).mean()
    assert float(error) < 0.03


def test_the_linear_start_ignores_what_is_not_trusted_and_what_does_not_fit():
    prior = light_prior(5)
    normals = normals_of(2000)
    albedo = torch.tensor([[0.45, 0.28, 0.2]]).expand(2000, -1)
    truth = shading(prior.light(torch.zeros(1, prior.factor.shape[0])), normals).clamp_min(0.0)
    observed = albedo * truth
    observed[:500] = 0.9
    observed[500:650] = 0.0
    trust = torch.ones(2000)
    trust[:500] = 0.0
    found, logs = linear_start(prior, normals, albedo, observed, trust, one_row(2000))
    recovered = shading(prior.light(found), normals) * logs.exp()
    assert float(((recovered - truth)[650:].abs()).mean() / truth.mean()) < 0.06


def test_a_red_light_and_red_gains_are_told_apart_by_the_prior():
    """Both explain the same photo; the start puts a cast of the whole picture into the gains."""
    prior = light_prior(5)
    normals = normals_of(2000)
    truth = shading(prior.mean[None], normals)
    found, logs = linear_start(
        prior, normals, torch.ones(2000, 3), truth * torch.tensor([1.3, 1.0, 0.8]), torch.ones(2000), one_row(2000)
    )
    assert torch.allclose(logs[0].exp(), torch.tensor([1.3, 1.0, 0.8]), rtol=0.05)
    assert float(found.square().mean()) < 0.2
