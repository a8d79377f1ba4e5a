"""The yardsticks of the fidelity benchmark against answers worked out by hand."""

from __future__ import annotations

import math

import pytest
import roma
import torch

from benchmarks import metrics


def test_similarity_is_recovered_and_leaves_no_vertex_error() -> None:
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(50, 3, generator=generator) * 40.0
    rotation = roma.rotvec_to_rotmat(torch.tensor([0.3, -0.8, 0.2]))
    target = 1.7 * source @ rotation.T + torch.tensor([5.0, -3.0, 100.0])
    scale, found, translation = metrics.similarity(source, target)
    assert float(scale) == pytest.approx(1.7, rel=1e-5)
    torch.testing.assert_close(found, rotation, atol=1e-5, rtol=0)
    torch.testing.assert_close(translation, torch.tensor([5.0, -3.0, 100.0]), atol=1e-3, rtol=0)
    errors = metrics.vertex_errors(source, target, torch.ones(50, dtype=torch.bool), 63.0)
    assert errors.max() < 1e-3


def test_similarity_never_mirrors() -> None:
    source = torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
    _, rotation, _ = metrics.similarity(source, source * torch.tensor([-1.0, 1.0, 1.0]))
    assert float(torch.linalg.det(rotation)) == pytest.approx(1.0, abs=1e-5)


def test_vertex_error_is_quoted_for_the_standard_interocular() -> None:
    corners = torch.tensor([[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]]) * 50.0
    bent = corners + torch.tensor([[0.0, 0, 1], [0, 0, -1], [0, 0, -1], [0, 0, 1]])
    errors = metrics.vertex_errors(bent, corners, torch.ones(4, dtype=torch.bool), interocular=126.0)
    torch.testing.assert_close(errors, torch.full((4,), 0.5), atol=2e-3, rtol=0)


def test_rotation_error_is_the_geodesic_angle() -> None:
    first = roma.rotvec_to_rotmat(torch.tensor([0.1, 0.4, -0.2]))
    second = first @ roma.rotvec_to_rotmat(torch.tensor([0.0, math.radians(3.0), 0.0]))
    assert metrics.rotation_error(first, second) == pytest.approx(3.0, abs=1e-3)


def test_psnr_with_and_without_the_free_scale() -> None:
    truth = torch.rand(100, 3, generator=torch.Generator().manual_seed(2))
    assert metrics.psnr(truth + 0.1, truth) == pytest.approx(20.0, abs=1e-3)
    assert metrics.psnr(truth * 0.5, truth, scaled=True) > 100.0


def test_lab_and_typology_angle_of_known_colours() -> None:
    grey = metrics.lab(torch.full((3,), 0.18418652))
    torch.testing.assert_close(grey, torch.tensor([50.0, 0.0, 0.0]), atol=2e-2, rtol=0)
    red = metrics.lab(torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(red, torch.tensor([53.24, 80.09, 67.20]), atol=2e-2, rtol=0)
    light = float(metrics.typology_angle(torch.tensor([0.62, 0.42, 0.32])))
    dark = float(metrics.typology_angle(torch.tensor([0.09, 0.05, 0.03])))
    assert metrics.skin_type(light) in ("light", "very light")
    assert metrics.skin_type(dark) == "dark"
    assert [metrics.skin_type(angle) for angle in (60, 45, 30, 20, 0, -31)] == [
        "very light",
        "light",
        "intermediate",
        "tan",
        "brown",
        "dark",
    ]
