"""How near crops are to the truth: inside a mask, at several resolutions, with intervals over subjects.

Crops are [N, C, S, S], masks weights 0…1 of their pixels, [N, 1, S, S].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

ROUNDS = 2000
"""Resamplings behind an interval."""
_LEAST = 1e-12


@dataclass(frozen=True)
class Interval:
    """A figure and the bounds of its bootstrap 95% interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def bootstrap(statistic: Callable[..., Tensor], *samples: Tensor, seed: int = 0) -> Interval:
    """A statistic of subjects with its percentile interval; the rows of all samples are drawn together, so pairs stay pairs.

    statistic: of samples with rows along the axis before the last [..., M, C], the last axis kept or summed away -> [...];
    samples: one row a subject, [M, C] each
    """
    count = len(samples[0])
    rows = torch.randint(count, (ROUNDS, count), generator=torch.Generator().manual_seed(seed))
    drawn = statistic(*(sample.double()[rows] for sample in samples))
    low, high = torch.quantile(drawn, drawn.new_tensor([0.025, 0.975])).tolist()
    return Interval(float(statistic(*(sample.double() for sample in samples))), low, high)


def skill(errors: Tensor, flat_errors: Tensor) -> Tensor:
    """1 − the errors' sum over that of the best constant: 1 is perfect, 0 no better than one colour. [..., M, C] -> [...]"""
    return 1.0 - errors.sum((-2, -1)) / flat_errors.sum((-2, -1)).clamp_min(_LEAST)


def gain(before: Tensor, after: Tensor) -> Tensor:
    """Decibels by which each subject's squared error falls, averaged over the subjects. [..., M, C] -> [...]"""
    ratio = before.sum(-1).clamp_min(_LEAST) / after.sum(-1).clamp_min(_LEAST)
    return 10.0 * ratio.log10().mean(-1)


def reduction(before: Tensor, after: Tensor) -> Tensor:
    """Share by which the root mean square error, averaged over the subjects, falls. Mean squares, [..., M, C] -> [...]"""
    roots = [errors.mean(-1).sqrt().mean(-1) for errors in (before, after)]
    return 1.0 - roots[1] / roots[0].clamp_min(_LEAST)


def squares(made: Tensor, truth: Tensor, mask: Tensor, factor: int = 1) -> Tensor:
    """Squared errors, averaged over channels and summed over the pixels of the mask. `[N]`

    factor: errors are averaged over blocks of so many pixels a side first; a block counts as its share of the mask
    """
    error, weight = blocks(made - truth, mask, factor)
    return (error.square().mean(1, keepdim=True) * weight).sum((1, 2, 3)) * factor**2


def blocks(values: Tensor, mask: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Means over the mask's pixels in blocks of factor² pixels, and the blocks' share of the mask. [N, C, S/f, S/f], [N, 1, …]"""
    if factor == 1:
        return values, mask
    share = avg_pool2d(mask, factor)
    return avg_pool2d(values * mask, factor) / share.clamp_min(_LEAST), share


def low_pass(values: Tensor, mask: Tensor, factor: int) -> Tensor:
    """Crops as their means over blocks say, looked up bilinearly; of the mask's pixels alone. [N, C, S, S]"""
    size = values.shape[-2:]
    sums = [
        interpolate(avg_pool2d(part, factor), size, mode="bilinear", align_corners=False)
        for part in (values * mask, mask)
    ]
    return sums[0] / sums[1].clamp_min(_LEAST) * (sums[1] > _LEAST)


def flat(values: Tensor, mask: Tensor) -> Tensor:
    """The one colour that is nearest to each crop inside its mask. [N, C, 1, 1]"""
    return (values * mask).sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True).clamp_min(_LEAST)


def scaled(made: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Crops times the one number each that brings them nearest to the truth inside the mask."""
    across = (made * truth * mask).sum((1, 2, 3), keepdim=True)
    return made * (across / (made.square() * mask).sum((1, 2, 3), keepdim=True).clamp_min(_LEAST))


def frame_psnr(made: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio of whole encoded crops (−1…1), every pixel counting, averaged over them. dB"""
    error = (0.5 * (made.clamp(-1.0, 1.0) - truth)).square().mean((1, 2, 3))
    return float((-10.0 * error.clamp_min(_LEAST).log10()).mean())


def degrees(chord: float) -> float:
    """The angle between unit vectors whose ends are so far apart."""
    return math.degrees(2.0 * math.asin(min(1.0, chord / 2.0)))
