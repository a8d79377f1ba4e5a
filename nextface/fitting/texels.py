"""One fused step of Adam over a level of the skin maps, regularisers included.

By automatic differentiation the penalties and Adam cost an order of magnitude more than everything else at 2048²; here
every texel is read and written once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import torch
from torch import Tensor

from nextface.rendering.jit import compiled

BETAS = (0.9, 0.95)


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
    """Adam (Kingma & Ba 2015) over one level `[B, s, s, C]`, in place.

    rate: step per channel. [C]; epsilon: per channel, in units of the gradient; texels with less gradient than that
    move slower, so that barely seen texels stay near their start instead of following their noise. [C]
    """

    def __init__(self, level: Tensor, penalties: Penalties, rate: Tensor) -> None:
        self.level = level
        self._start = level.clone()
        self._first = torch.zeros_like(level)
        self._second = torch.zeros_like(level)
        self._penalties = penalties
        self._rate = rate
        self._count = 0

    def step(self, gradient: Tensor, decay: float, epsilon: Tensor) -> None:
        """gradient: of the photo term, as the level; decay: factor on the rate; epsilon: [C]."""
        self._count += 1
        first_bias, second_bias = (1.0 - beta**self._count for beta in BETAS)
        rate = self._rate * (decay / first_bias)
        step = adam_kernel if compiled(self.level) else adam_torch
        penalties = self._penalties
        step(
            self.level,
            self._start,
            self._first,
            self._second,
            gradient,
            penalties.deviation,
            penalties.symmetry,
            penalties.sign,
            penalties.chroma,
            rate,
            epsilon,
            second_bias,
        )


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
) -> None:
    """The step in plain torch, on any device."""
    moved = level - start
    gradient = photo + 2.0 * deviation * moved + 4.0 * symmetry * (level - sign * level.flip(2))
    colour = moved[..., :3]
    gradient[..., :3] += 2.0 * chroma * (colour - colour.mean(-1, keepdim=True))
    first.mul_(BETAS[0]).add_(gradient, alpha=1.0 - BETAS[0])
    second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1.0 - BETAS[1])
    level.sub_(rate * first / ((second / second_bias).sqrt() + epsilon))


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
) -> None:
    """The step in one pass over the texels, on the CPU."""
    texels = [tensor.flatten(0, 1).numpy() for tensor in (level, start, first, second, photo.contiguous())]
    channels = [tensor.numpy() for tensor in (deviation, symmetry, sign)]
    scalars = [np.float32(value) for value in (second_bias, *BETAS)]
    _adam(*texels, *channels, np.float32(chroma), rate.numpy(), epsilon.numpy(), *scalars)  # type: ignore[call-arg]


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})
def _adam(  # type: ignore[no-untyped-def]
    level, start, first, second, photo, deviation, symmetry, sign, chroma, rate, epsilon, second_bias, beta1, beta2
):
    """Rows are independent; within one, a texel and its mirror image take their gradients before either moves."""
    rows, columns, channels = level.shape
    two, four, one = np.float32(2), np.float32(4), np.float32(1)
    for row in numba.prange(rows):
        for left in range((columns + 1) // 2):
            right = columns - 1 - left
            mean_left = mean_right = np.float32(0)
            for k in range(3):
                mean_left += (level[row, left, k] - start[row, left, k]) / np.float32(3)
                mean_right += (level[row, right, k] - start[row, right, k]) / np.float32(3)
            for k in range(channels):
                x, y = level[row, left, k], level[row, right, k]
                dx, dy = x - start[row, left, k], y - start[row, right, k]
                gx = photo[row, left, k] + two * deviation[k] * dx + four * symmetry[k] * (x - sign[k] * y)
                gy = photo[row, right, k] + two * deviation[k] * dy + four * symmetry[k] * (y - sign[k] * x)
                if k < 3:
                    gx += two * chroma * (dx - mean_left)
                    gy += two * chroma * (dy - mean_right)
                for side in range(2):
                    column = left if side == 0 else right
                    if side == 1 and left == right:
                        continue
                    g = gx if side == 0 else gy
                    m = beta1 * first[row, column, k] + (one - beta1) * g
                    v = beta2 * second[row, column, k] + (one - beta2) * g * g
                    first[row, column, k], second[row, column, k] = m, v
                    level[row, column, k] -= rate[k] * m / (np.sqrt(v / second_bias) + epsilon[k])
