from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import normalize

from nextface.rendering import sh
from nextface.rendering.basis import sh_basis
from nextface.rendering.zonal import filtered_light, filtered_light_torch


def directions(count: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def sphere(nodes: int = 40) -> tuple[Tensor, Tensor]:
    """Product quadrature, exact for polynomials of degree below 2·nodes: unit vectors [S, 3] and weights [S]."""
    z, weight = np.polynomial.legendre.leggauss(nodes)
    phi = (np.arange(2 * nodes) + 0.5) * np.pi / nodes
    ring = np.sqrt(1 - z**2)[:, None]
    points = np.stack([ring * np.cos(phi), ring * np.sin(phi), np.broadcast_to(z[:, None], (nodes, 2 * nodes))], -1)
    return torch.from_numpy(points.reshape(-1, 3)), torch.from_numpy(np.repeat(weight * np.pi / nodes, 2 * nodes))


def test_basis_is_scipys_without_the_phase():
    points = directions(200)
    basis = sh_basis(points, 10)
    theta, phi = torch.acos(points[:, 2]).numpy(), torch.atan2(points[:, 1], points[:, 0]).numpy()
    for degree in range(10):
        for m in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(m), theta, phi)
            part = value.real if m >= 0 else value.imag
            expected = part if m == 0 else math.sqrt(2) * (-1) ** m * part
            np.testing.assert_allclose(basis[:, degree * degree + degree + m].numpy(), expected, atol=1e-12)


def test_first_band_points_along_the_axes():
    axes = sh_basis(torch.eye(3, dtype=torch.float64), 2)[:, 1:]
    factor = math.sqrt(3 / (4 * math.pi))
    expected = factor * torch.tensor([[0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)  # y, z, x
    torch.testing.assert_close(axes, expected)


def test_basis_is_orthonormal():
    points, weights = sphere()
    basis = sh_basis(points, 10)
    torch.testing.assert_close(basis.T @ (weights[:, None] * basis), torch.eye(100, dtype=torch.float64))


def test_basis_in_single_precision_and_many_bands():
    points = directions(500)
    exact, rounded = sh_basis(points, 16), sh_basis(points.float(), 16)
    assert (rounded - exact).abs().max() < 2e-5


def test_cosine_coefficients_by_integration():
    x, weight = np.polynomial.legendre.leggauss(400)
    x, weight = 0.5 * (x + 1), 0.5 * weight
    for degree, value in enumerate(sh.cosine_coefficients(10)):
        integral = 2 * np.pi * (weight * x * np.polynomial.legendre.Legendre.basis(degree)(x)).sum()
        assert value == pytest.approx(integral, abs=1e-12)


@pytest.mark.parametrize("bands", [5, 10])
def test_irradiance_by_integration(bands: int):
    """Against ∫ L(ω) max(n·ω, 0) dω of a light with as much in each of its bands."""
    points, weights = sphere(200)
    random = torch.Generator().manual_seed(2)
    radiance = torch.randn(bands**2, 3, generator=random, dtype=torch.float64) * 0.3
    radiance[0] = 2.0
    light = sh_basis(points, bands) @ radiance
    normals = directions(20)
    expected = ((normals @ points.T).clamp_min(0) * weights) @ light
    ours = sh.irradiance(normals, radiance[None], torch.zeros(20, dtype=torch.long))
    torch.testing.assert_close(ours, expected, atol=3e-4, rtol=1e-4)


def test_furnace_a_constant_light_gives_pi():
    radiance = torch.zeros(1, 81, 3)
    radiance[:, 0] = math.sqrt(4 * math.pi)
    ours = sh.irradiance(directions(10).float(), radiance, torch.zeros(10, dtype=torch.long))
    torch.testing.assert_close(ours, torch.full((10, 3), math.pi))


@pytest.mark.parametrize("bands", [1, 2, 5, 10])
@pytest.mark.parametrize("zonal", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_filtered_light_twin(bands: int, zonal: bool, batch: int):
    """Values and gradients, on more pixels than one block and images of unlike size, one of them empty."""
    random = torch.Generator().manual_seed(bands)
    image = torch.tensor([0] * 150 + [2] * 41) if batch > 1 else torch.zeros(191, dtype=torch.long)
    inputs = [directions(191), torch.randn(batch, bands**2, 3, generator=random, dtype=torch.float64)]
    if zonal:
        inputs.append(torch.rand(191, bands, generator=random, dtype=torch.float64))
    inputs = [part.clone().requires_grad_() for part in inputs]
    weights = inputs[2] if zonal else None
    fast = filtered_light(inputs[0], inputs[1], image, weights)
    slow = filtered_light_torch(inputs[0], inputs[1], image, weights)
    torch.testing.assert_close(fast, slow)
    cotangent = torch.randn(fast.shape, generator=random, dtype=torch.float64)
    ours, twins = (torch.autograd.grad(out, inputs, cotangent, allow_unused=True) for out in (fast, slow))
    for mine, twin, part in zip(ours, twins, inputs, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(part) if twin is None else twin)


def test_filtered_light_gradcheck():
    random = torch.Generator().manual_seed(4)
    image = torch.tensor([0, 0, 0, 1, 1])
    inputs = (
        directions(5).requires_grad_(),
        torch.randn(2, 16, 3, generator=random, dtype=torch.float64, requires_grad=True),
        torch.rand(5, 4, generator=random, dtype=torch.float64, requires_grad=True),
    )
    assert gradcheck(lambda d, c, k: filtered_light(d, c, image, k), inputs)
    assert gradcheck(lambda d, c: filtered_light(d, c, image), inputs[:2])


def test_environment_axes():
    """Ahead in the middle, what is to the right of the photo in the right half, up at the top, behind at the border."""
    rows = sh.environment_directions(64)
    ahead, right, up, behind = rows[32, 64], rows[32, 96], rows[0, 64], rows[32, 0]
    for found, expected in ((ahead, (0, 0, -1)), (right, (1, 0, 0)), (up, (0, 1, 0)), (behind, (0, 0, 1))):
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=0.06, rtol=0)
    assert rows.norm(dim=-1).allclose(torch.ones(64, 128))


def test_environment_uv_inverts_the_directions():
    uv = sh.environment_uv(sh.environment_directions(16))
    u, v = torch.meshgrid((torch.arange(32) + 0.5) / 32, (torch.arange(16) + 0.5) / 16, indexing="xy")
    torch.testing.assert_close(uv, torch.stack([u, v], -1), atol=1e-4, rtol=0)


def test_projecting_an_environment_map_returns_its_light():
    radiance = torch.randn(81, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = sh.project(sh.environment_map(radiance, 128), 9)
    torch.testing.assert_close(found, radiance, atol=5e-3, rtol=0)


def test_window_keeps_the_mean_and_stops_ringing():
    radiance = sh_basis(directions(1), 9).T.expand(-1, 3)  # a delta light
    soft = sh.windowed(radiance)
    torch.testing.assert_close(soft[0], radiance[0])
    sharp_map, soft_map = sh.environment_map(radiance, 64), sh.environment_map(soft, 64)
    assert -soft_map.min() / soft_map.max() < 0.3 * -sharp_map.min() / sharp_map.max()
