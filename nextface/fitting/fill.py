"""Texels that the photo did not show: filled from the mirror, then from coarser levels, and marked as such."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate

from nextface.rendering.bake import fill
from nextface.textures import COARSEST, LaplacianTexture

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
        weight = _resized(seen, level.shape[1])
        other = weight.flip(2) * (1.0 - weight)
        moved = level - base
        total = (weight + other).clamp_max(1.0)
        blended = weight * moved + other * sign * moved.flip(2)
        if level.shape[1] == COARSEST:
            known = (total > _KNOWN).to(total)
            blended = fill(blended / total.clamp_min(_KNOWN), known)
        levels.append(base + blended)
    return LaplacianTexture(levels)


def confidence_map(seen: Tensor) -> Tensor:
    """1 where measured, `MIRRORED` where the mirror image was, 0 where neither. `[B, T, T, 1]`"""
    return seen + (1.0 - seen) * MIRRORED * seen.flip(2)


def _resized(seen: Tensor, size: int) -> Tensor:
    channels_first = seen.permute(0, 3, 1, 2)
    return interpolate(channels_first, (size, size), mode="area").permute(0, 2, 3, 1)


def seen_from(weights: Tensor, threshold: float) -> Tensor:
    """Accumulated texel weights as a soft 0…1: 1 from `threshold` on. `[B, T, T, 1]`"""
    return (weights / threshold).clamp(0.0, 1.0)
