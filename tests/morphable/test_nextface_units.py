"""NextFace's numbers and ours."""

from __future__ import annotations

import numpy as np
import torch

from nextface.morphable.nextface_units import from_raw, from_redner_roughness, to_raw, to_redner_roughness


def test_raw_coefficients():
    deviation = torch.tensor([100.0, 10.0, 0.5])
    raw = torch.tensor([[50.0, -20.0, 1.0]])
    assert torch.equal(from_raw(raw, deviation), torch.tensor([[0.5, -2.0, 2.0]]))
    assert torch.equal(to_raw(from_raw(raw, deviation), deviation), raw)


def test_roughness_goes_and_returns():
    r = torch.linspace(0.05, 1.0, 20)
    assert torch.allclose(from_redner_roughness(to_redner_roughness(r)), r, atol=1e-6)
    assert abs(float(from_redner_roughness(torch.tensor(0.4))) - 0.7953) < 1e-4
    assert float(from_redner_roughness(torch.tensor(-0.1))) == 0.0


def test_roughness_means_the_same_highlight():
    """redner's Blinn-Phong lobe against a Beckmann lobe of alpha = r²: the same mean squared slope of the facets.

    For narrow lobes cos^n(h) is about exp(-n h² / 2) and Beckmann exp(-h² / alpha²).
    """
    redner = 0.01
    exponent = 2 / redner - 2
    alpha = float(from_redner_roughness(torch.tensor(redner))) ** 2
    angle = np.linspace(0, 0.3, 2000)
    phong = np.cos(angle) ** exponent
    beckmann = np.exp(-((np.tan(angle) / alpha) ** 2)) / np.cos(angle) ** 4
    widths = [np.sqrt((lobe * angle**3).sum() / (lobe * angle).sum()) for lobe in (phong, beckmann)]
    assert abs(widths[0] / widths[1] - 1) < 0.02
