"""The terms of the statistical and maps stages' objectives."""

from __future__ import annotations

import torch
from torch import Tensor

_ENCODING_OFFSET = 0.02
_ENCODING_POWER = 0.45
_COLOUR_SHARE = 0.5


def encode(linear: Tensor) -> Tensor:
    """A perceptual scale on which residuals are compared: (x + 0.02)^0.45, finite in slope at black.

    Comparing linear values would let bright skin outvote dark skin and highlights outvote shadows. Any shape.
    """
    # Not by `**`, which torch rounds differently at the end of an array: a pixel's value must not depend on its neighbours in it.
    return (_ENCODING_POWER * (linear.clamp_min(0.0) + _ENCODING_OFFSET).log()).exp()


def robust(distance_squared: Tensor, scale: float) -> Tensor:
    """Charbonnier-like loss, quadratic within `scale` and linear beyond: scale²·(sqrt(1 + d²/scale²) − 1). Any shape."""
    return scale * scale * (torch.sqrt(1.0 + distance_squared / (scale * scale)) - 1.0)


def perceptual(residual: Tensor) -> Tensor:
    """Residuals on `encode`'s scale with their colour part halved.

    Cameras change saturation far more than brightness ratios; a fit that trusts both alike explains a vivid rendition by
    darker skin under more light. `[P, 3] -> [P, 3]`
    """
    grey = residual.mean(-1, keepdim=True)
    return grey + _COLOUR_SHARE * (residual - grey)
