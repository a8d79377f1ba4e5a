"""The fused Adam step over texels against plain torch and against automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nextface.fitting.texels import (
    BETAS,
    Penalties,
    TexelAdam,
    adam_kernel,
    adam_torch,
    runs,
    typical_kernel,
    typical_torch,
)


def random_level(size: int, channels: int, seed: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, size, size, channels, generator=torch.Generator().manual_seed(seed))


def step_arguments(size: int, channels: int, chroma: float) -> list[object]:
    """level, start, both moments, gradient, deviation, symmetry, sign, chroma, rate, epsilon, bias"""
    per_channel = torch.Generator().manual_seed(9)
    tensors = [random_level(size, channels, seed) for seed in range(5)]
    tensors[3] = tensors[3].square()
    weights = [torch.rand(channels, generator=per_channel) for _ in range(2)]
    sign = torch.where(torch.arange(channels) == channels - 2, -1.0, 1.0)
    return [
        *tensors,
        *weights,
        sign,
        chroma,
        0.01 + torch.rand(channels, generator=per_channel),
        0.1 + torch.rand(2, channels, generator=per_channel),
        0.3,
    ]


def moving_texels(size: int, share: float, batch: int = 2) -> Tensor:
    """About that share of the texels, with their mirror images. Bool [B, s, s]"""
    some = torch.rand(batch, size, size, generator=torch.Generator().manual_seed(4)) < share
    return some | some.flip(2)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(("size", "channels", "chroma"), [(16, 7, 0.8), (16, 7, 0.0), (5, 4, 0.3), (32, 3, 0.5)])
def test_the_kernel_is_its_slow_twin(size: int, channels: int, chroma: float, share: float):
    """Values and both moments after two steps; odd sizes have a middle column that is its own mirror image."""
    fast, slow = step_arguments(size, channels, chroma), step_arguments(size, channels, chroma)
    moving = moving_texels(size, share)
    for tensors in (fast, slow):
        for moment in (tensors[2], tensors[3]):
            moment *= moving[..., None]
    for _ in range(2):
        adam_kernel(*fast, runs(moving))
        adam_torch(*slow, moving)
    for number in (0, 2, 3):
        assert torch.allclose(fast[number], slow[number], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [5, 64])
def test_the_typical_gradients_kernel_is_its_slow_twin(size: int):
    moving = moving_texels(size, 0.3)
    gradient = random_level(size, 7, 0) * moving[..., None]
    gradient[0, :, :, 2] = 0.0
    torch.testing.assert_close(typical_kernel(gradient, runs(moving)), typical_torch(gradient))


def test_texels_that_no_photo_shows_stay_unless_their_mirror_image_moves():
    start = random_level(8, 3, 0, batch=1)
    touched = torch.zeros(1, 8, 8, dtype=torch.bool)
    touched[0, 3, 1] = True
    texels = TexelAdam(
        start, Penalties(torch.ones(3), torch.ones(3), torch.ones(3), 0.0), 0.02 * torch.ones(3), touched
    )
    texels.step(random_level(8, 3, 1, batch=1) * touched[..., None], 1.0, 0.1 * torch.ones(1, 3))
    moved = (texels.level != start).all(-1)[0]
    assert moved.nonzero().tolist() == [[3, 1], [3, 6]]


@pytest.mark.grad
def test_the_penalties_gradients_are_those_of_the_documented_sums():
    """One step from zero moments: the first moment holds (1 − β₁) times the gradient of the penalties as documented."""
    size, channels, chroma = 8, 7, 0.6
    level, start, first, second, _, deviation, symmetry, sign, _, rate, epsilon, bias = step_arguments(
        size, channels, chroma
    )
    first, second = torch.zeros_like(first), torch.zeros_like(second)
    leaf = level.clone().double().requires_grad_(True)
    moved = leaf - start
    colour = moved[..., :3]
    total = (
        (deviation * moved.square()).sum()
        + (symmetry * (leaf - sign * leaf.flip(2)).square()).sum()
        + chroma * (colour - colour.mean(-1, keepdim=True)).square().sum()
    )
    (expected,) = torch.autograd.grad(total, leaf)
    photo = torch.zeros_like(level)
    everywhere = runs(torch.ones(level.shape[:3], dtype=torch.bool))
    adam_kernel(level, start, first, second, photo, deviation, symmetry, sign, chroma, rate, epsilon, bias, everywhere)
    assert torch.allclose(first.double(), (1.0 - BETAS[0]) * expected, rtol=1e-4, atol=1e-5)


def test_without_penalties_it_is_adam():
    level = random_level(4, 3, 0, batch=1)
    zero = torch.zeros(3)
    texels = TexelAdam(level, Penalties(zero, zero, torch.ones(3), 0.0), 0.02 * torch.ones(3))
    parameter = level.clone().requires_grad_(True)
    adam = torch.optim.Adam([parameter], lr=0.02, betas=BETAS, eps=1e-6)
    for number in range(5):
        gradient = random_level(4, 3, 10 + number, batch=1)
        texels.step(gradient.clone(), 1.0, 1e-6 * torch.ones(1, 3))
        parameter.grad = gradient
        adam.step()
    assert torch.allclose(texels.level, parameter.detach(), atol=1e-5)


def test_a_faint_gradient_moves_a_texel_less():
    """Below epsilon the step falls with the gradient instead of following its sign."""
    level = torch.zeros(1, 4, 4, 3)
    zero = torch.zeros(3)
    texels = TexelAdam(level, Penalties(zero, zero, torch.ones(3), 0.0), 0.02 * torch.ones(3))
    gradient = torch.zeros(1, 4, 4, 3)
    gradient[0, 0], gradient[0, 1] = 1.0, 0.001
    texels.step(gradient, 1.0, 0.1 * torch.ones(len(level), 3))
    moved = texels.level.abs()[0]
    assert float(moved[0].min()) > 50 * float(moved[1].max())
    assert float(moved[2:].max()) == 0.0


def test_a_channel_without_rate_stays():
    start = random_level(4, 3, 0)
    texels = TexelAdam(
        start, Penalties(torch.ones(3), torch.ones(3), torch.ones(3), 1.0), torch.tensor([0.01, 0.0, 0.01])
    )
    texels.step(random_level(4, 3, 1), 1.0, 0.1 * torch.ones(len(start), 3))
    assert torch.equal(texels.level[..., 1], start[..., 1])
    assert not torch.equal(texels.level[..., 0], start[..., 0])
