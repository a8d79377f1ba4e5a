"""How the tone that a photo shows is shared between skin and exposure."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nextface.fitting import skin_tone
from nextface.fitting.light import EXPOSURE_SD, WHITE_BALANCE_SD
from nextface.fitting.outliers import fit_trust
from nextface.fitting.skin_tone import SkinTone
from nextface.morphable.model import MorphableModel
from nextface.rendering.jit import plain_torch


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


def improbability(skin: SkinTone, tone: Tensor, albedo: Tensor, weight: float) -> Tensor:
    """The squared standard deviations that `share` says it minimises. [B]"""
    departure = skin.log_albedo(albedo)[:, 1] - skin.mean[1].log()
    limit = skin_tone._LARGEST_DEPARTURE
    metered = -skin_tone._COMPENSATION * departure.clamp(-limit, limit)
    gain = tone - skin.log_albedo(albedo)
    balance = (gain[:, ::2] - gain[:, 1:2]) / WHITE_BALANCE_SD
    exposure = (gain[:, 1] - metered) / EXPOSURE_SD
    return exposure.square() + balance.square().sum(-1) + weight * albedo.square().sum(-1)


@pytest.mark.parametrize("level", [-2.6, -2.0, -1.6, -1.2, -0.9])
@pytest.mark.parametrize("weight", [0.3, 1.0, 5.0])
def test_the_share_is_the_most_probable_one(level: float, weight: float, skin: SkinTone):
    """No face near it, of its own or of a random pattern, explains the tone with less."""
    tone = torch.tensor([[level + 0.3, level, level - 0.2]])
    found = skin.share(tone, weight)
    best = float(improbability(skin, tone, found, weight))
    random = torch.Generator().manual_seed(0)
    along = torch.randn(300, 3, generator=random) @ skin.directions
    anywhere = torch.randn(300, found.shape[1], generator=random) / found.shape[1] ** 0.5
    for size in (0.05, 0.3, 1.0):
        for directions in (along, anywhere):
            others = improbability(skin, tone, found + size * directions, weight)
            assert float(others.min()) > 0.97 * best - 0.02, size


def test_a_darker_picture_is_partly_darker_skin(skin: SkinTone, head: MorphableModel):
    tones = torch.linspace(-3.0, -0.8, 8)[:, None] + torch.tensor([0.35, 0.0, -0.3])
    found = skin.log_albedo(skin.share(tones, 1.0))[:, 1]
    rises = found.diff() / tones[:, 1].diff()
    assert bool((rises > 0.3).all())
    assert bool((rises < 1.6).all())


def test_a_heavy_albedo_weight_gives_all_to_the_exposure(skin: SkinTone):
    tone = torch.tensor([[-2.0, -2.4, -2.7]])
    free, held = skin.share(tone, 1.0), skin.share(tone, 1e5)
    assert float(held.norm()) < 0.02 * float(free.norm())


@pytest.mark.parametrize("level", [-4.0, -2.6, -0.9, 0.5])
@pytest.mark.parametrize("weight", [0.3, 5.0])
def test_the_share_s_kernel_is_its_slow_twin(level: float, weight: float, skin: SkinTone):
    tone = level + 0.3 * torch.randn(3, 3, generator=torch.Generator().manual_seed(2))
    with plain_torch():
        slow = skin.share(tone, weight)
    assert torch.allclose(skin.share(tone, weight), slow, atol=1e-4)
