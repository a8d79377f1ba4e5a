"""Scales and robust losses that residuals pass through."""

from __future__ import annotations

import pytest
import torch

from nextface.fitting.losses import encode, perceptual, robust


@pytest.mark.grad
def test_gradients():
    values = torch.tensor([0.0, 0.001, 0.2, 1.5], dtype=torch.float64)
    positive = (values + 1e-4).requires_grad_(True)
    assert torch.autograd.gradcheck(encode, (positive,))
    assert torch.autograd.gradcheck(lambda x: robust(x, 0.1), (positive,))
    assert torch.autograd.gradcheck(perceptual, (torch.rand(4, 3, dtype=torch.float64, requires_grad=True),))


def test_encoding_evens_out_dark_and_light_skin():
    """The same relative difference weighs nearly the same at any albedo, down to dark skin in shade."""
    light, dark = torch.tensor(0.4), torch.tensor(0.04)
    ratio = (encode(1.1 * light) - encode(light)) / (encode(1.1 * dark) - encode(dark))
    assert 0.3 < float(ratio) / 3.0 < 1.4
    assert float((1.1 * light - light) / (1.1 * dark - dark)) == pytest.approx(10.0, rel=1e-4)


def test_encoding_is_monotone_and_finite_below_black():
    values = encode(torch.tensor([-1.0, 0.0, 0.01, 0.5, 5.0]))
    assert values[0] == values[1]
    assert bool((values[1:].diff() > 0).all())


def test_the_robust_loss_is_quadratic_near_and_linear_far():
    near, far = torch.tensor(1e-6), torch.tensor(100.0)
    assert float(robust(near, 0.1)) == pytest.approx(0.5 * float(near), rel=1e-2)
    assert float(robust(far, 0.1)) == pytest.approx(0.1 * float(far) ** 0.5, rel=0.02)


def test_perception_keeps_grey_and_halves_colour():
    grey = torch.tensor([[0.3, 0.3, 0.3]])
    assert torch.allclose(perceptual(grey), grey)
    colour = torch.tensor([[0.2, -0.1, -0.1]])
    assert torch.allclose(perceptual(colour), 0.5 * colour)
