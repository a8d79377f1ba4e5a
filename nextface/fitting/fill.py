"""Texels that the photo did not show: filled from the mirror, then from coarser levels, and marked as such."""

from __future__ import annotations

import torch
from torch import Tensor

from nextface.rendering.bake import fill
from nextface.textures import COARSEST, LaplacianTexture, resized, row_strips

MIRRORED = 0.5
"""Confidence of a texel taken from its mirror image."""

_KNOWN = 0.05


def fill_unseen(texture: LaplacianTexture, start: LaplacianTexture, seen: Tensor, sign: Tensor) -> LaplacianTexture:
    """Blend every level's departure from `start` with its mirror image where the texel itself was not seen.

    The coarsest level has no coarser one to fall back on: its gaps are filled by push-pull, so that the tone found on seen
    skin carries on into skin that neither side shows.

    texture, start: the fitted and the statistical maps; seen: 0…1 per texel, [B, T, T, 1]; sign: of each channel's mirror
    image, [C].
    """
    levels = []
    for level, base in zip(texture.levels, start.levels, strict=True):
        batch, size = level.shape[:2]
        weight = resized(seen, size)
        if size == COARSEST:
            levels.append(base + _carried_on(level - base, weight, sign))
            continue
        filled = torch.empty_like(level)
        for rows in row_strips(size, batch * size):
            filled[:, rows] = base[:, rows] + _mixed(level[:, rows] - base[:, rows], weight[:, rows], sign)
        levels.append(filled)
    return LaplacianTexture(levels)


def _mixed(moved: Tensor, weight: Tensor, sign: Tensor) -> Tensor:
    """Rows of a level's departure with those of its mirror image in the unseen share. `[B, r, s, C]`"""
    return weight * moved + weight.flip(2) * (1.0 - weight) * sign * moved.flip(2)


def _carried_on(moved: Tensor, weight: Tensor, sign: Tensor) -> Tensor:
    """A level's departure, mixed, and continued where neither side was seen. `[B, s, s, C]`"""
    total = (weight + weight.flip(2) * (1.0 - weight)).clamp_max(1.0)
    return fill(_mixed(moved, weight, sign) / total.clamp_min(_KNOWN), (total > _KNOWN).to(total))


def confidence_map(seen: Tensor) -> Tensor:
    """1 where measured, `MIRRORED` where the mirror image was, 0 where neither. `[B, T, T, 1]`"""
    return seen + (1.0 - seen) * MIRRORED * seen.flip(2)


def seen_from(weights: Tensor, threshold: float) -> Tensor:
    """Accumulated texel weights as a soft 0…1: 1 from `threshold` on. `[B, T, T, 1]`"""
    return (weights / threshold).clamp(0.0, 1.0)
