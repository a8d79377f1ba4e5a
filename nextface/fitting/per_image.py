"""Sums and medians of packed pixels, one per image, on the device and without a loop over images.

An image's value does not depend on the images beside it, and its pixels are added in their own order: on the CPU it has the
same bytes in every batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nextface.rendering.raster import VisiblePixels


def total(values: Tensor, pixels: VisiblePixels) -> Tensor:
    """Sum over each image's pixels; differentiable. `[P] -> [B]`"""
    return torch.segment_reduce(values, "sum", lengths=_starts(pixels).diff(), unsafe=True)


def mean(values: Tensor, weight: Tensor, pixels: VisiblePixels) -> Tensor:
    """Weighted mean over each image's pixels, with a sum of weights of at least 1; differentiable. `[P], [P] -> [B]`"""
    return total(values * weight, pixels) / total(weight, pixels).clamp_min(1.0)


def median(values: Tensor, chosen: Tensor, pixels: VisiblePixels) -> Tensor:
    """Median over each image's chosen pixels (the lower one of two middle values), NaN where there are none.

    values: [P, C]; chosen: bool [P] -> [B, C]. No gradient. The host waits for the largest image's count of pixels.
    """
    starts = _starts(pixels)
    place = torch.arange(len(pixels), device=values.device) - starts[pixels.image]
    rows = values.new_full((pixels.batch, max(1, int(starts.diff().max())), values.shape[1]), torch.nan)
    rows[pixels.image, place] = values.masked_fill(~chosen[:, None], torch.nan)
    return rows.mT.nanmedian(-1).values


def sample(values: Tensor, pixels: VisiblePixels, count: int) -> Tensor:
    """`count` pixels of each image, evenly spread; an image that has no more gives all, followed by zeros. `[P, C] -> [B, count, C]`"""
    starts = _starts(pixels)
    present = starts.diff()[:, None]
    slot = torch.arange(count, device=values.device)
    step = ((present.double() - 1.0) / (count - 1.0)).clamp_min(1.0)
    index = torch.where(slot < present, starts[:-1, None] + (slot * step).long(), len(pixels))
    return torch.cat([values, values.new_zeros(1, values.shape[1])])[index]


def _starts(pixels: VisiblePixels) -> Tensor:
    """Packed index of each image's first pixel, and the count of all. [B + 1]"""
    images = torch.arange(pixels.batch + 1, device=pixels.image.device)
    return torch.searchsorted(pixels.image, images)
