"""How the tone that a photo shows is shared between skin and exposure."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nextface.fitting.light import EXPOSURE_SD, WHITE_BALANCE_SD
from nextface.fitting.outliers import fit_trust
from nextface.fitting.skin_tone import SkinTone
from nextface.morphable.model import MorphableModel


@pytest.fixture(scope="module")
def skin(head: MorphableModel) -> SkinTone:
    return SkinTone.of(head, fit_trust(head))


def mean_skin(head: MorphableModel, albedo: Tensor) -> Tensor:
    """Trusted mean of the diffuse albedo, vertex by vertex. [B, 3]"""
    trust = fit_trust(head)
    return (trust * head.diffuse(albedo)).sum(1) / trust.sum()


def random_albedo(head: MorphableModel, seed: int) -> Tensor:
    return torch.randn(2, head.diffuse_basis.shape[0], generator=torch.Generator().manual_seed(seed))


def test_mean_albedo_is_the_model_s(skin: SkinTone, head: MorphableModel):
    albedo = 0.5 * random_albedo(head, 0)
    assert torch.allclose(skin.log_albedo(albedo).exp(), mean_skin(head, albedo), atol=1e-4)


def test_a_pattern_leaves_the_mean_skin_alone(skin: SkinTone, head: MorphableModel):
    albedo = random_albedo(head, 1)
    pattern = skin.pattern(albedo)
    assert torch.allclose(
        mean_skin(head, pattern), head.diffuse_mean.new_zeros(1) + mean_skin(head, 0 * albedo), atol=1e-4
    )
    assert float(pattern.norm()) > 0.5 * float(albedo.norm())
    assert torch.allclose(skin.pattern(pattern), pattern, atol=1e-5)


@pytest.mark.grad
@pytest.mark.parametrize("level", [-2.6, -1.6, -0.9])
@pytest.mark.parametrize("weight", [0.3, 1.0, 5.0])
def test_the_share_is_the_most_probable_one(level: float, weight: float, skin: SkinTone):
    """The gradient of the sum of squared standard deviations vanishes there."""
    tone = torch.tensor([[level + 0.3, level, level - 0.2]])
    albedo = skin.share(tone, weight).requires_grad_(True)
    residual = tone - skin.log_albedo(albedo)
    balance = (residual[:, ::2] - residual[:, 1:2]) / WHITE_BALANCE_SD
    terms = (residual[:, 1] / EXPOSURE_SD).square().sum() + balance.square().sum()
    cost = 0.5 * (terms + weight * albedo.square().sum())
    (gradient,) = torch.autograd.grad(cost, albedo)
    assert float(gradient.norm()) < 0.01 * (1.0 + float(terms.detach().sqrt()) / EXPOSURE_SD)


def test_a_darker_picture_is_partly_darker_skin(skin: SkinTone, head: MorphableModel):
    tones = torch.linspace(-3.0, -0.8, 8)[:, None] + torch.tensor([0.35, 0.0, -0.3])
    found = skin.log_albedo(skin.share(tones, 1.0))[:, 1]
    rises = found.diff() / tones[:, 1].diff()
    assert bool((rises > 0.3).all())
    assert bool((rises < 1.0).all())


def test_a_heavy_albedo_weight_gives_all_to_the_exposure(skin: SkinTone):
    tone = torch.tensor([[-2.0, -2.4, -2.7]])
    free, held = skin.share(tone, 1.0), skin.share(tone, 1e5)
    assert float(held.norm()) < 0.02 * float(free.norm())
