"""The yardsticks of crops against answers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.crop_metrics import (
    bootstrap,
    degrees,
    flat,
    frame_psnr,
    gain,
    low_pass,
    reduction,
    scaled,
    skill,
    squares,
)


@pytest.fixture
def crops():
    """Two crops of 16 pixels with a mask that cuts through blocks, and rubbish outside of it."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.zeros(2, 1, 16, 16)
    mask[0, :, 3:14, 2:9] = 1.0
    mask[1, :, :, 5:] = 1.0
    values = torch.rand(2, 3, 16, 16, generator=generator)
    return torch.where(mask > 0, values, 50.0), mask


def errors(made, truth, mask):
    return squares(made, truth, mask)[:, None]


def test_skill_is_one_for_the_truth_and_zero_for_the_best_colour(crops):
    truth, mask = crops
    colour = flat(truth, mask).expand_as(truth)
    best = errors(colour, truth, mask)
    assert float(skill(errors(truth, truth, mask), best)) == 1.0
    assert float(skill(best, best)) == 0.0
    assert float(skill(errors(colour + 0.01, truth, mask), best)) < 0.0, "no colour is nearer"
    assert float(skill(errors(torch.lerp(truth, colour, 0.5), truth, mask), best)) == pytest.approx(0.75)


def test_low_pass_sees_the_mask_alone_and_keeps_what_is_smooth(crops):
    truth, mask = crops
    plain = torch.where(mask > 0, torch.tensor(0.3), torch.tensor(9.0)).expand(-1, 3, -1, -1)
    assert torch.allclose(low_pass(plain, mask, 8)[mask.expand(-1, 3, -1, -1) > 0], torch.tensor(0.3), atol=1e-6)
    everywhere = torch.ones(1, 1, 16, 16)
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * torch.ones(1, 1, 16, 16)
    assert torch.allclose(low_pass(board, everywhere, 8), torch.tensor(0.5))
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    assert torch.allclose(low_pass(ramp, everywhere, 4)[..., 2:14], ramp[..., 2:14], atol=1e-5)


def test_errors_over_blocks(crops):
    truth, mask = crops
    for factor in (1, 2, 8):
        shifted = squares(truth + 0.1, truth, mask, factor)
        assert torch.allclose(shifted, 0.01 * mask.sum((1, 2, 3)), rtol=1e-3), "an even error is the same in all blocks"
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1.0).expand(1, 1, 16, 16)
    everywhere = torch.ones(1, 1, 16, 16)
    assert float(squares(board, 0 * board, everywhere)) == 256.0
    assert float(squares(board, 0 * board, everywhere, 2)) == 0.0


def test_one_scale_is_found_inside_the_mask(crops):
    truth, mask = crops
    made = torch.where(mask > 0, 0.4 * truth, torch.tensor(7.0))
    assert squares(scaled(made, truth, mask), truth, mask).max() < 1e-8


def test_gain_and_reduction():
    before = torch.tensor([[4.0, 4.0], [1.0, 1.0]])
    assert float(gain(before, before / 4)) == pytest.approx(20.0 * math.log10(2.0), rel=1e-6)
    assert float(gain(before, before)) == 0.0
    one_better = before * torch.tensor([[0.1], [1.0]])
    assert float(gain(before, one_better)) == pytest.approx(5.0), "the mean of subjects, not of their errors"
    assert float(reduction(before, before * 0.81)) == pytest.approx(0.1)


def test_bootstrap_of_a_mean_is_as_wide_as_its_standard_error():
    values = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    found = bootstrap(lambda rows: rows.mean((-2, -1)), values)
    error = float(values.std()) / math.sqrt(200)
    assert found.value == pytest.approx(float(values.mean()), abs=1e-6)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.low < found.value < found.high


def test_bootstrap_keeps_pairs_together():
    """Subjects differ a hundredfold, but each gains the same."""
    before = 10.0 ** torch.linspace(-1, 1, 12)[:, None]
    found = bootstrap(gain, before, before / 2)
    assert found.high - found.low < 1e-6
    assert found.text() == "3.01 (3.01 to 3.01)"


def test_frame_psnr_and_angles():
    truth = torch.zeros(2, 3, 8, 8)
    assert frame_psnr(truth + 0.2, truth) == pytest.approx(20.0, abs=1e-4)
    assert degrees(math.sqrt(2.0)) == pytest.approx(90.0)
    assert degrees(0.01) == pytest.approx(math.degrees(0.01), rel=1e-4)
