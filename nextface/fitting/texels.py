"""One fused step of Adam over a level of the skin maps, regularisers included.

By automatic differentiation the penalties and Adam cost an order of magnitude more than everything else at 2048²; here
every texel that a photo shows is read and written once, and the others not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nextface.rendering.jit import compiled, kernel, spread, untouched_zeros
from nextface.textures import row_strips

BETAS = (0.9, 0.95)
_GRAIN = 32


@dataclass
class Penalties:
    """Quadratic penalties of one level per texel and channel; x is the level, x₀ its start, x' its mirror image.

    deviation: weight of (x − x₀)². [C]
    symmetry:  weight of (x − s·x')². [C]
    sign:      s, −1 for the tangent-space x of a normal. [C]
    chroma:    weight of the squared departure of (x − x₀) from its mean over the first three channels
    """

    deviation: Tensor
    symmetry: Tensor
    sign: Tensor
    chroma: float


class TexelAdam:
    """Adam (Kingma & Ba 2015) over one level `[B, s, s, C]`.

    start: stays as it is; `level` is the copy of it that moves, in place.
    rate: step per channel. [C]; epsilon: per image and channel, in units of the gradient; texels with less gradient than that
    move slower, so that barely seen texels stay near their start instead of following their noise. [B, C]
    touched: the texels that may have a gradient, all if left out; a texel moves if it or its mirror image is one. Bool [B, s, s]
    """

    def __init__(self, start: Tensor, penalties: Penalties, rate: Tensor, touched: Tensor | None = None) -> None:
        self.level = start.clone()
        self._start = start
        self._first, self._second = (
            untouched_zeros(start.shape, start.dtype) if compiled(start) else torch.zeros_like(start) for _ in range(2)
        )
        self._penalties = penalties
        self._rate = rate
        self._count = 0
        if touched is None:
            touched = torch.ones(start.shape[:3], dtype=torch.bool, device=start.device)
        self._moving = touched | touched.flip(2)
        self._runs = runs(self._moving) if compiled(start) else None

    def step(self, gradient: Tensor, decay: float, epsilon: Tensor) -> None:
        """gradient: of the photo term, as the level; decay: factor on the rate; epsilon: [B, C]."""
        self._count += 1
        first_bias, second_bias = (1.0 - beta**self._count for beta in BETAS)
        penalties = self._penalties
        arguments = (
            self.level,
            self._start,
            self._first,
            self._second,
            gradient,
            penalties.deviation,
            penalties.symmetry,
            penalties.sign,
            penalties.chroma,
            self._rate * (decay / first_bias),
            epsilon,
            second_bias,
        )
        if self._runs is None:
            adam_torch(*arguments, self._moving)
        else:
            adam_kernel(*arguments, self._runs)

    def typical(self, gradient: Tensor) -> Tensor:
        """Root mean square of the gradient of an image's texels that have one. `[B, s, s, C] -> [B, C]`"""
        if self._runs is None:
            return typical_torch(gradient)
        return typical_kernel(gradient, self._runs)


def runs(moving: Tensor) -> np.ndarray:
    """Stretches of texels in the left halves of the rows: row of all images' rows, first column, end. [N, 3]

    moving: symmetric about the middle, the middle column of an odd size included. Bool [B, s, s]
    """
    half = moving[:, :, : (moving.shape[2] + 1) // 2].flatten(0, 1).numpy()
    edges = np.diff(np.pad(half, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, first = np.nonzero(edges == 1)
    _, end = np.nonzero(edges == -1)
    return np.stack([row, first, end], 1)


def typical_torch(gradient: Tensor) -> Tensor:
    """`TexelAdam.typical` in plain torch, on any device."""
    count = (gradient != 0.0).sum(2).sum(1).clamp_min(1)
    return (gradient.square().sum(2).sum(1) / count).sqrt()


def typical_kernel(gradient: Tensor, runs: np.ndarray) -> Tensor:
    """`TexelAdam.typical` on the CPU, of the texels of `runs` and their mirror images."""
    batch, size, _, channels = gradient.shape
    sums = np.zeros((2, batch * size, channels), np.float32)
    firsts = np.searchsorted(runs[:, 0], np.arange(batch * size + 1))
    spread(_squares, batch * size, gradient.flatten(0, 1).contiguous().numpy(), runs, firsts, sums, grain=_GRAIN)
    squares, count = torch.from_numpy(sums.reshape(2, batch, size, channels).sum(2))
    return (squares / count.clamp_min(1.0)).sqrt()


def adam_torch(
    level: Tensor,
    start: Tensor,
    first: Tensor,
    second: Tensor,
    photo: Tensor,
    deviation: Tensor,
    symmetry: Tensor,
    sign: Tensor,
    chroma: float,
    rate: Tensor,
    epsilon: Tensor,
    second_bias: float,
    moving: Tensor,
) -> None:
    """The step in plain torch, on any device, strip by strip. moving: bool [B, s, s]"""
    batch, size = level.shape[:2]
    for rows in row_strips(size, batch * size):
        x, x0, m, v = (tensor[:, rows] for tensor in (level, start, first, second))
        moved = x - x0
        gradient = photo[:, rows] + 2.0 * deviation * moved + 4.0 * symmetry * (x - sign * x.flip(2))
        colour = moved[..., :3]
        gradient[..., :3] += 2.0 * chroma * (colour - colour.mean(-1, keepdim=True))
        gradient *= moving[:, rows, :, None]
        m.mul_(BETAS[0]).add_(gradient, alpha=1.0 - BETAS[0])
        v.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1.0 - BETAS[1])
        x.sub_(rate * m / ((v / second_bias).sqrt() + epsilon[:, None, None]))


def adam_kernel(
    level: Tensor,
    start: Tensor,
    first: Tensor,
    second: Tensor,
    photo: Tensor,
    deviation: Tensor,
    symmetry: Tensor,
    sign: Tensor,
    chroma: float,
    rate: Tensor,
    epsilon: Tensor,
    second_bias: float,
    runs: np.ndarray,
) -> None:
    """The step in one pass over the texels of `runs` and their mirror images, on the CPU."""
    texels = [tensor.flatten(0, 1).numpy() for tensor in (level, start, first, second, photo.contiguous())]
    channels = [tensor.numpy() for tensor in (deviation, symmetry, sign)]
    scalars = [np.float32(value) for value in (second_bias, *BETAS)]
    steps = [np.float32(chroma), rate.numpy(), epsilon.numpy(), *scalars]
    spread(_adam(level.shape[3]), len(runs), runs, *texels, *channels, *steps, grain=_GRAIN)


@kernel
def _squares(start, stop, gradient, runs, firsts, sums):  # type: ignore[no-untyped-def]
    """Sums of squares and counts of non-zeros of a range of rows. sums: [2, rows, C]"""
    columns, channels = gradient.shape[1:]
    one = np.float32(1)
    for row in range(start, stop):
        for run in range(firsts[row], firsts[row + 1]):
            for left in range(runs[run, 1], runs[run, 2]):
                right = columns - 1 - left
                for k in range(channels):
                    g = gradient[row, left, k]
                    sums[0, row, k] += g * g
                    sums[1, row, k] += one if g != 0 else 0
                if left != right:
                    for k in range(channels):
                        g = gradient[row, right, k]
                        sums[0, row, k] += g * g
                        sums[1, row, k] += one if g != 0 else 0


@lru_cache
def _adam(channels: int) -> Callable[..., Any]:
    """The kernel for a count of channels that the compiler knows."""

    @kernel
    def adam(  # type: ignore[no-untyped-def]
        begin,
        stop,
        runs,
        level,
        start,
        first,
        second,
        photo,
        deviation,
        symmetry,
        sign,
        chroma,
        rate,
        epsilon,
        second_bias,
        beta1,
        beta2,
    ):
        """Of a range of runs. A texel and its mirror image take their gradients before either moves."""
        rows, columns = level.shape[:2]
        per_image = rows // epsilon.shape[0]
        zero, two, four, one, third = np.float32(0), np.float32(2), np.float32(4), np.float32(1), np.float32(1 / 3)
        scale = one / second_bias
        here, there = np.empty(channels, np.float32), np.empty(channels, np.float32)
        for run in range(begin, stop):
            row = runs[run, 0]
            image = row // per_image
            for left in range(runs[run, 1], runs[run, 2]):
                right = columns - 1 - left
                mean_left = mean_right = zero
                for k in range(3):
                    mean_left += (level[row, left, k] - start[row, left, k]) * third
                    mean_right += (level[row, right, k] - start[row, right, k]) * third
                for k in range(channels):
                    x, y = level[row, left, k], level[row, right, k]
                    dx, dy = x - start[row, left, k], y - start[row, right, k]
                    pull, alike, tint = two * deviation[k], four * symmetry[k], two * chroma if k < 3 else zero
                    gx = pull * dx + alike * (x - sign[k] * y) + tint * (dx - mean_left)
                    gy = pull * dy + alike * (y - sign[k] * x) + tint * (dy - mean_right)
                    here[k], there[k] = photo[row, left, k] + gx, photo[row, right, k] + gy
                for k in range(channels):
                    m = beta1 * first[row, left, k] + (one - beta1) * here[k]
                    v = beta2 * second[row, left, k] + (one - beta2) * here[k] * here[k]
                    first[row, left, k], second[row, left, k] = m, v
                    level[row, left, k] -= rate[k] * m / (np.sqrt(v * scale) + epsilon[image, k])
                if left == right:
                    continue
                for k in range(channels):
                    m = beta1 * first[row, right, k] + (one - beta1) * there[k]
                    v = beta2 * second[row, right, k] + (one - beta2) * there[k] * there[k]
                    first[row, right, k], second[row, right, k] = m, v
                    level[row, right, k] -= rate[k] * m / (np.sqrt(v * scale) + epsilon[image, k])

    return adam
