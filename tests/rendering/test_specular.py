from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import normalize

from nextface.rendering.basis import sh_basis
from nextface.rendering.shading import shade_diffuse, shade_specular
from nextface.rendering.specular import NODES, lobes, lobes_torch, specular_table

INDEX = 1.4


def fresnel(cosine: Tensor) -> Tensor:
    inside = (1 - (1 - cosine**2) / INDEX**2).sqrt()
    across = (cosine - INDEX * inside) / (cosine + INDEX * inside)
    along = (INDEX * cosine - inside) / (INDEX * cosine + inside)
    return (across**2 + along**2) / 2


def integrated(viewing: float, roughness: float, radiance: Tensor, nodes: int = 240) -> Tensor:
    """∫ GGX(v, ω) L(ω) max(n·ω, 0) dω with n = z, v in the xz plane, by quadrature around the mirror direction.

    radiance: [81, C] -> [C]
    """
    alpha = roughness**2
    view = torch.tensor([math.sqrt(1 - viewing**2), 0.0, viewing], dtype=torch.float64)
    mirror = view * torch.tensor([-1.0, -1.0, 1.0])
    x, weight = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(nodes))
    x, weight = (x + 1) / 2, weight / 2
    theta, solid = math.pi * x**2, weight * 2 * math.pi * x  # dense near the mirror direction
    phi = (torch.arange(2 * nodes) + 0.5) * math.pi / nodes
    side = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    up = torch.linalg.cross(mirror, side)
    ring = phi.cos()[:, None] * side + phi.sin()[:, None] * up
    light = (theta.cos()[:, None, None] * mirror + theta.sin()[:, None, None] * ring).flatten(0, 1)
    solid = (solid * theta.sin())[:, None].expand(-1, 2 * nodes).flatten() * math.pi / nodes
    above = light[:, 2] > 0
    light, solid = light[above], solid[above]
    half = normalize(light + view, dim=-1)
    width = alpha**2 / (math.pi * (half[:, 2] ** 2 * (alpha**2 - 1) + 1) ** 2)

    def smith(cosine: Tensor) -> Tensor:
        return 2 * cosine / (cosine + (alpha**2 + (1 - alpha**2) * cosine**2).sqrt())

    shadow = smith(light[:, 2]) * smith(torch.tensor(viewing, dtype=torch.float64))
    value = width * shadow * fresnel(half @ view) / (4 * viewing)
    return (value * solid) @ (sh_basis(light, math.isqrt(len(radiance))) @ radiance)


def side_light(softness: float, azimuth: float) -> Tensor:
    """One lobe of light over an ambient part, 9 bands; softness blurs it as exp(−softness l (l + 1) / 2). [81, 3]"""
    towards = torch.tensor([[0.84 * math.cos(azimuth), 0.84 * math.sin(azimuth), 0.54]], dtype=torch.float64)
    degree = torch.tensor([degree for degree in range(9) for _ in range(2 * degree + 1)])
    light = 4 * sh_basis(normalize(towards, dim=-1), 9)[0] * torch.exp(-softness * degree * (degree + 1) / 2)
    light[0] += 0.5
    return light[:, None].expand(-1, 3)


def ours(viewing: Tensor, roughness: float, radiance: Tensor) -> Tensor:
    count = len(viewing)
    normal = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(count, -1).contiguous()
    view = torch.stack([(1 - viewing**2).sqrt(), torch.zeros_like(viewing), viewing], 1)
    ones = torch.ones(count, 1, dtype=torch.float64)
    return shade_specular(normal, view, ones, roughness * ones, radiance[None], torch.zeros(count, dtype=torch.long))


@pytest.mark.parametrize("roughness, bound", [(0.3, 0.03), (0.5, 0.05), (0.8, 0.035)])
def test_against_integrated_ggx(roughness: float, bound: float):
    """Relative RMSE over a sphere's projected disk under soft side lights from eight azimuths."""
    viewing = torch.linspace(0.2, 0.98, 6, dtype=torch.float64)
    lights = [side_light(0.12, azimuth * math.pi / 4) for azimuth in range(8)]
    exact = torch.stack([integrated(float(v), roughness, torch.cat(lights, 1)) for v in viewing])
    found = torch.cat([ours(viewing, roughness, light) for light in lights], 1)
    area = viewing[:, None]
    assert ((area * (found - exact) ** 2).sum() / (area * exact**2).sum()).sqrt() < bound


@pytest.mark.parametrize("roughness", [0.2, 0.45, 0.9])
def test_furnace_returns_the_table_which_is_the_integrated_albedo(roughness: float):
    constant = torch.zeros(81, 3, dtype=torch.float64)
    constant[0] = math.sqrt(4 * math.pi)
    viewing = torch.tensor([0.15, 0.4, 0.7, 0.95], dtype=torch.float64)
    found = ours(viewing, roughness, constant)
    exact = torch.stack([integrated(float(v), roughness, constant) for v in viewing])
    torch.testing.assert_close(found, exact, rtol=0.01, atol=0)
    assert (found <= 1).all()


def test_furnace_diffuse_returns_the_albedo():
    albedo = torch.rand(5, 3)
    torch.testing.assert_close(shade_diffuse(albedo, torch.full((5, 3), math.pi)), albedo)


def test_table_ends_in_the_mirror_and_never_exceeds_one():
    table = specular_table(torch.float64).unflatten(0, (NODES, NODES))
    nodes = torch.linspace(0, 1, NODES, dtype=torch.float64)
    torch.testing.assert_close(table[0, :, 0], fresnel(nodes), atol=1e-6, rtol=0)
    assert (table[0, :, 2:12] == 1).all() and (table[0, :, 12:] == 0).all()
    assert table[..., 0].max() <= 1 and table[..., 0].min() > 0
    assert table[0, -1, 0] == pytest.approx(0.0278, abs=1e-4)


def pixels(count: int) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    normal = normalize(torch.randn(count, 3, generator=random, dtype=torch.float64), dim=-1)
    aside = torch.randn(count, 3, generator=random, dtype=torch.float64)
    return normal, normalize(normal + 0.8 * aside, dim=-1), torch.rand(count, 1, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("bands", [3, 9])
def test_lobes_twin(bands: int):
    inputs = [part.requires_grad_() for part in pixels(300)]
    fast, slow = (list(vars(make(*inputs, bands)).values()) for make in (lobes, lobes_torch))
    random = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(part.shape, generator=random, dtype=torch.float64) for part in fast]
    for mine, twin in zip(fast, slow, strict=True):
        torch.testing.assert_close(mine, twin)
    ours_grad, twin_grad = (torch.autograd.grad(out, inputs, cotangents) for out in (fast, slow))
    for mine, twin in zip(ours_grad, twin_grad, strict=True):
        torch.testing.assert_close(mine, twin)


def test_specular_gradcheck():
    random = torch.Generator().manual_seed(6)
    normal, view, roughness = pixels(4)
    weight = torch.rand(4, 1, generator=random, dtype=torch.float64)
    radiance = torch.randn(2, 81, 3, generator=random, dtype=torch.float64) * 0.1
    radiance[:, 0] = 4.0
    image = torch.tensor([0, 0, 1, 1])
    inputs = [part.requires_grad_() for part in (normal, view, weight, roughness, radiance)]
    assert gradcheck(lambda *parts: shade_specular(*parts, image), inputs, atol=1e-4)
