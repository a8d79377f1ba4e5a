"""Blur over packed pixels."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from nextface.rendering.jit import array, compiled, kernel
from nextface.rendering.raster import VisiblePixels

_SIDE = math.exp(-0.5)


def blur(values: Tensor, pixels: VisiblePixels) -> Tensor:
    """3×3 Gaussian with σ = 1 pixel, renormalised over covered pixels: the background never bleeds in.

    values: [P, C] -> [P, C]. Separable: (e^-½, 1, e^-½) along rows, then along columns, each renormalised.
    """
    if not compiled(values):
        return blur_torch(values, pixels)
    return _Blur.apply(values, pixels.neighbours)


def blur_torch(values: Tensor, pixels: VisiblePixels) -> Tensor:
    """The same in plain torch, on any device."""
    for axis in (pixels.neighbours[:, :2], pixels.neighbours[:, 2:]):
        weights = (axis >= 0).to(values.dtype) * _SIDE
        sides = values.index_select(0, axis.clamp_min(0).flatten()).unflatten(0, axis.shape)
        sides = (sides * weights[..., None]).sum(1)
        values = (values + sides) / (1.0 + weights.sum(1, keepdim=True))
    return values


class _Blur(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, neighbours: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(neighbours)  # type: ignore[attr-defined]
        along_rows, blurred = values.new_empty(values.shape), values.new_empty(values.shape)
        _blur_axis(array(values), array(neighbours), 0, along_rows.numpy())
        _blur_axis(along_rows.numpy(), array(neighbours), 2, blurred.numpy())
        return blurred

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, cotangent: Tensor):  # type: ignore[override, no-untyped-def]
        (neighbours,) = ctx.saved_tensors  # type: ignore[attr-defined]
        along_rows, to_values = cotangent.new_empty(cotangent.shape), cotangent.new_empty(cotangent.shape)
        _blur_axis_transposed(array(cotangent), array(neighbours), 2, along_rows.numpy())
        _blur_axis_transposed(along_rows.numpy(), array(neighbours), 0, to_values.numpy())
        return to_values, None


@kernel
def _blur_axis(values, neighbours, first, blurred):  # type: ignore[no-untyped-def]
    side = values.dtype.type(_SIDE)
    one = values.dtype.type(1)
    for p in range(values.shape[0]):
        a, b = neighbours[p, first], neighbours[p, first + 1]
        scale = one / (one + side * (a >= 0) + side * (b >= 0))
        for c in range(values.shape[1]):
            total = values[p, c]
            if a >= 0:
                total += side * values[a, c]
            if b >= 0:
                total += side * values[b, c]
            blurred[p, c] = total * scale


@kernel
def _blur_axis_transposed(cotangent, neighbours, first, to_values):  # type: ignore[no-untyped-def]
    """Gathers, because the neighbour relation is symmetric: each pixel collects its neighbours' scaled cotangents."""
    side = cotangent.dtype.type(_SIDE)
    one = cotangent.dtype.type(1)
    scale = np.empty(cotangent.shape[0], cotangent.dtype)
    for p in range(cotangent.shape[0]):
        scale[p] = one / (one + side * (neighbours[p, first] >= 0) + side * (neighbours[p, first + 1] >= 0))
    for p in range(cotangent.shape[0]):
        a, b = neighbours[p, first], neighbours[p, first + 1]
        for c in range(cotangent.shape[1]):
            total = cotangent[p, c] * scale[p]
            if a >= 0:
                total += side * cotangent[a, c] * scale[a]
            if b >= 0:
                total += side * cotangent[b, c] * scale[b]
            to_values[p, c] = total
