"""Texels that the photo did not show."""

from __future__ import annotations

import torch
from torch import Tensor

from nextface.fitting.fill import MIRRORED, confidence_map, fill_unseen, seen_from
from nextface.textures import LaplacianTexture

SIZE = 64
SIGN = torch.tensor([1.0, -1.0])


def texture(seed: int) -> LaplacianTexture:
    image = torch.rand(1, SIZE, SIZE, 2, generator=torch.Generator().manual_seed(seed))
    return LaplacianTexture.from_image(image)


def left_seen() -> Tensor:
    seen = torch.zeros(1, SIZE, SIZE, 1)
    seen[:, :, : SIZE // 2] = 1.0
    return seen


def test_seen_texels_keep_what_was_measured():
    fitted, start = texture(0), texture(1)
    filled = fill_unseen(fitted, start, torch.ones(1, SIZE, SIZE, 1), SIGN)
    for level, expected in zip(filled.levels, fitted.levels, strict=True):
        assert torch.allclose(level, expected, atol=1e-6)


def test_the_mirror_image_takes_over():
    """The unseen half departs from its own statistics as the seen half does from its, with the sign of each channel."""
    fitted, start = texture(0), texture(1)
    filled = fill_unseen(fitted, start, left_seen(), SIGN)
    for level, measured, base in zip(filled.levels, fitted.levels, start.levels, strict=True):
        half = level.shape[1] // 2
        assert torch.allclose(level[:, :, :half], measured[:, :, :half], atol=1e-6)
        departure = (measured - base)[:, :, :half].flip(2) * SIGN
        assert torch.allclose((level - base)[:, :, half:], departure, atol=1e-6)


def test_where_neither_side_was_seen_the_fine_levels_are_the_statistics():
    fitted, start = texture(0), texture(1)
    seen = torch.zeros(1, SIZE, SIZE, 1)
    seen[:, : SIZE // 2] = 1.0
    filled = fill_unseen(fitted, start, seen, SIGN)
    for level, base in zip(filled.levels[1:], start.levels[1:], strict=True):
        half = level.shape[1] // 2
        assert torch.equal(level[:, half:], base[:, half:])


def test_the_tone_of_seen_skin_carries_on():
    """Coarsest level: a shift found on the seen half fills the unseen one by push-pull instead of breaking off."""
    start = LaplacianTexture.constant(torch.tensor([[0.4, 0.4]]), SIZE)
    fitted = LaplacianTexture([start.levels[0] - 0.1, *start.levels[1:]])
    seen = torch.zeros(1, SIZE, SIZE, 1)
    seen[:, : SIZE // 2] = 1.0
    full = fill_unseen(fitted, start, seen, torch.ones(2)).full()
    assert torch.allclose(full, torch.full_like(full, 0.3), atol=1e-4)


def test_nothing_seen_is_the_statistics():
    fitted, start = texture(0), texture(1)
    filled = fill_unseen(fitted, start, torch.zeros(1, SIZE, SIZE, 1), SIGN)
    assert torch.allclose(filled.full(), start.full(), atol=1e-6)


def test_confidence_says_where_a_texel_came_from():
    seen = torch.zeros(1, 4, 4, 1)
    seen[0, 0, 0] = 1.0
    seen[0, 1] = 1.0
    seen[0, 2, 0] = 0.5
    confidence = confidence_map(seen)[0, :, :, 0]
    assert confidence[0].tolist() == [1.0, 0.0, 0.0, MIRRORED]
    assert confidence[1].tolist() == [1.0] * 4
    assert confidence[2].tolist() == [0.5, 0.0, 0.0, MIRRORED * 0.5]
    assert confidence[3].tolist() == [0.0] * 4


def test_weights_become_a_soft_mask():
    weights = torch.tensor([0.0, 0.1, 0.2, 5.0])
    assert torch.allclose(seen_from(weights, 0.2), torch.tensor([0.0, 0.5, 1.0, 1.0]))
