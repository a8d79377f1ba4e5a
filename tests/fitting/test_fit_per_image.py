"""Sums, medians and samples per image of packed pixels against loops over images."""

from __future__ import annotations

import pytest
import torch

from nextface.fitting import per_image
from nextface.rendering.raster import VisiblePixels

COUNTS = (7, 0, 12, 1)


@pytest.fixture
def pixels() -> VisiblePixels:
    """Rows of pixels, 7, none, 12 and 1 of four images."""
    image = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
    column = torch.cat([torch.arange(count) for count in COUNTS])
    zero = torch.zeros_like(image)
    return VisiblePixels(image, zero, column, zero, torch.full((len(image), 4), -1), 4, 1, 12)


@pytest.fixture
def values() -> torch.Tensor:
    return torch.randn(sum(COUNTS), 2, generator=torch.Generator().manual_seed(0))


def test_sums_and_means(pixels: VisiblePixels, values: torch.Tensor):
    weight = values[:, 1].abs()
    sums, means = per_image.total(values[:, 0], pixels), per_image.mean(values[:, 0], weight, pixels)
    for image, count in enumerate(COUNTS):
        mine = pixels.image == image
        assert float(sums[image]) == pytest.approx(float(values[mine, 0].sum()), abs=1e-6)
        expected = (values[mine, 0] * weight[mine]).sum() / weight[mine].sum().clamp_min(1.0)
        assert float(means[image]) == pytest.approx(float(expected) if count else 0.0, abs=1e-6)


@pytest.mark.grad
def test_gradients(pixels: VisiblePixels, values: torch.Tensor):
    data = values[:, 0].double().requires_grad_(True)
    weight = values[:, 1].double().abs().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda data, weight: per_image.mean(data, weight, pixels), (data, weight))


def test_medians_are_torch_s_own(pixels: VisiblePixels, values: torch.Tensor):
    chosen = values[:, 0] < 0.8
    found = per_image.median(values, chosen, pixels)
    assert found.shape == (4, 2)
    for image in range(4):
        mine = values[(pixels.image == image) & chosen]
        if len(mine):
            assert torch.equal(found[image], mine.median(0).values)
        else:
            assert bool(found[image].isnan().all())


def test_a_sample_is_spread_over_each_image_and_padded(pixels: VisiblePixels, values: torch.Tensor):
    found = per_image.sample(values, pixels, 8)
    first, third = values[pixels.image == 0], values[pixels.image == 2]
    assert torch.equal(found[0, :7], first) and float(found[0, 7:].abs().max()) == 0.0
    assert float(found[1].abs().max()) == 0.0
    assert torch.equal(found[2], third[torch.linspace(0, 11, 8).long()])


def test_an_image_has_the_same_bytes_in_every_batch(pixels: VisiblePixels, values: torch.Tensor):
    mine = pixels.image == 2
    zero = torch.zeros(12, dtype=torch.int64)
    alone = VisiblePixels(zero, zero, torch.arange(12), zero, torch.full((12, 4), -1), 1, 1, 12)
    chosen = values[:, 0] < 0.8
    assert torch.equal(per_image.total(values[:, 0], pixels)[2:3], per_image.total(values[mine, 0], alone))
    assert torch.equal(
        per_image.median(values, chosen, pixels)[2:3], per_image.median(values[mine], chosen[mine], alone)
    )


def test_no_pixel_at_all(values: torch.Tensor):
    none = torch.zeros(0, dtype=torch.int64)
    empty = VisiblePixels(none, none, none, none, torch.zeros(0, 4, dtype=torch.int64), 2, 3, 3)
    assert per_image.total(values[:0, 0], empty).tolist() == [0.0, 0.0]
    assert bool(per_image.median(values[:0], values[:0, 0] > 0, empty).isnan().all())
    assert float(per_image.sample(values[:0], empty, 4).abs().max()) == 0.0
