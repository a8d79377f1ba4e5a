"""Colour at the file border."""

from __future__ import annotations

import pytest
import torch

from nextface.color import REC709_LUMA, chromaticity, linear_to_srgb, luminance, srgb_to_linear


def test_known_values_of_srgb():
    """IEC 61966-2-1: mid-grey 0.5, the linear toe's end, black and white."""
    encoded = torch.tensor([0.0, 0.04045, 0.5, 1.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.04045 / 12.92, 0.2140411, 1.0], dtype=torch.float64)
    assert torch.allclose(srgb_to_linear(encoded), expected, atol=1e-7)


def test_round_trip_of_all_bytes():
    encoded = torch.arange(256, dtype=torch.float32) / 255.0
    back = linear_to_srgb(srgb_to_linear(encoded)) * 255.0
    assert torch.equal(back.round(), torch.arange(256.0))
    assert torch.allclose(back, encoded * 255.0, atol=1e-2)


def test_encoding_clips():
    assert linear_to_srgb(torch.tensor([-0.5, 2.0])).tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


@pytest.mark.grad
def test_gradients_are_finite_at_black_and_at_the_toe():
    values = torch.tensor([0.0, 0.001, 0.0031308, 0.02, 0.04045, 0.5, 1.0], dtype=torch.float64)
    for curve in (srgb_to_linear, linear_to_srgb):
        leaf = values.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(curve(leaf).sum(), leaf)
        assert bool(torch.isfinite(gradient).all())
        assert bool((gradient > 0).all())
    smooth = torch.tensor([0.002, 0.1, 0.6], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(srgb_to_linear, (smooth,))
    assert torch.autograd.gradcheck(linear_to_srgb, (smooth,))


def test_luminance_of_white_and_of_the_primaries():
    assert float(luminance(torch.ones(3))) == pytest.approx(1.0, abs=1e-6)
    assert torch.allclose(luminance(torch.eye(3)), torch.tensor(REC709_LUMA))


def test_chromaticity_is_smooth_at_black_and_blind_to_nothing():
    assert torch.equal(chromaticity(torch.zeros(2, 3)), torch.zeros(2, 2))
    red, green = chromaticity(torch.eye(3))[:2]
    assert float(red[0]) > float(red[1])
    assert float(green[1]) > float(green[0])
    grey = torch.linspace(0.0, 100.0, 50)[:, None].expand(-1, 3)
    assert bool((chromaticity(grey).sum(-1) < 1.0).all())
