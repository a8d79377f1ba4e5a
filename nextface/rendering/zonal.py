"""An SH light seen through a zonal kernel, per pixel: the inner loop of diffuse and specular shading.

With K_l the kernel's coefficients (1 for a delta), the result is Σ_l K_l Σ_m c_lm Y_lm(direction). The compiled kernels
work on blocks of pixels so that the compiler vectorises over pixels; the basis is never stored.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from nextface.rendering.basis import band_numbers, basis_tables, sh_basis
from nextface.rendering.jit import array, compiled, image_starts, kernel, strips, together

_BLOCK = 64


@lru_cache
def _typed_tables(bands: int, dtype: np.dtype) -> tuple[np.ndarray, ...]:
    return tuple(table.astype(dtype) for table in basis_tables(bands))


def filtered_light(directions: Tensor, coefficients: Tensor, image: Tensor, zonal: Tensor | None = None) -> Tensor:
    """Σ_l K_l Σ_m c_lm Y_lm(direction), `[P, 3]`; differentiable in all but `image`.

    directions: unit, view frame, [P, 3]; coefficients: [B, L, 3]; image: ascending, [P];
    zonal: K_l per pixel, [P, bands], or None for 1 everywhere.
    """
    if not compiled(directions):
        return filtered_light_torch(directions, coefficients, image, zonal)
    return _FilteredLight.apply(directions, coefficients, zonal, image)


def filtered_light_torch(
    directions: Tensor, coefficients: Tensor, image: Tensor, zonal: Tensor | None = None
) -> Tensor:
    """The same in plain torch, on any device."""
    lights, count, channels = coefficients.shape
    basis = sh_basis(directions, math.isqrt(count))
    if zonal is not None:
        basis = basis * (zonal @ _spread(math.isqrt(count), zonal.dtype, zonal.device))
    if lights == 1:
        return basis @ coefficients[0]
    # Every pixel under every light, of which it keeps its own: one product, whose gradient needs no atomic sums per light.
    all_lights = (basis @ coefficients.permute(1, 0, 2).flatten(1)).unflatten(1, (lights, channels))
    return all_lights.gather(1, image[:, None, None].expand(-1, 1, channels))[:, 0]


@lru_cache
def _spread(bands: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Repeats a value per band for each coefficient of the band. `[bands, bands²]`"""
    return (band_numbers(bands, device) == torch.arange(bands, device=device)[:, None]).to(dtype)


class _FilteredLight(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: FunctionCtx, directions: Tensor, coefficients: Tensor, zonal: Tensor | None, image: Tensor
    ) -> Tensor:
        ctx.save_for_backward(directions, coefficients, zonal, image)  # type: ignore[attr-defined, arg-type]
        light = torch.empty_like(directions, memory_format=torch.contiguous_format)
        parts = strips(image_starts(image, coefficients.shape[0]))
        arguments = _arguments(directions, coefficients, zonal)
        together([(_forward, (*part, *arguments, light.numpy())) for part in parts])
        return light

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, cotangent: Tensor):  # type: ignore[override, no-untyped-def]
        directions, coefficients, zonal, image = ctx.saved_tensors  # type: ignore[attr-defined]
        _, light_wanted, zonal_wanted, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
        to_directions = torch.empty_like(directions, memory_format=torch.contiguous_format)
        to_zonal = directions.new_empty(len(directions) if zonal_wanted else 0, math.isqrt(coefficients.shape[1]))
        parts = strips(image_starts(image, coefficients.shape[0]))
        sums = coefficients.new_zeros(len(parts), *coefficients.shape[1:])
        shared = (*_arguments(directions, coefficients, zonal), array(cotangent), light_wanted, zonal_wanted)
        shared = (*shared, to_directions.numpy(), to_zonal.numpy())
        together([(_backward, (*part, *shared, own)) for part, own in zip(parts, sums.numpy(), strict=True)])
        to_coefficients = None
        if light_wanted:
            images = torch.tensor([number for number, _, _ in parts])
            to_coefficients = torch.zeros_like(coefficients).index_add(0, images, sums)
        return to_directions, to_coefficients, to_zonal if zonal_wanted else None, None


def _arguments(directions: Tensor, coefficients: Tensor, zonal: Tensor | None) -> tuple:  # type: ignore[type-arg]
    """Directions, coefficients, zonal (one row when shared), tables."""
    bands = math.isqrt(coefficients.shape[1])
    light = array(coefficients)
    weights = np.ones((1, bands), light.dtype) if zonal is None else array(zonal)
    return array(directions), light, weights, *_typed_tables(bands, light.dtype)


@kernel
def _load_weights(zonal, start, size, weights):  # type: ignore[no-untyped-def]
    """K_l of a block of pixels as rows, `[bands, block]`; zero beyond its size, so that those lanes add nothing."""
    shared = zonal.shape[0] == 1
    weights[:] = 0
    for k in range(size):
        row = 0 if shared else start + k
        for degree in range(weights.shape[0]):
            weights[degree, k] = zonal[row, degree]


@kernel
def _forward(b, begin, stop, directions, coefficients, zonal, diagonal, slope, back, derivative, light):  # type: ignore[no-untyped-def]
    bands = diagonal.shape[0]
    work = np.zeros((10, _BLOCK), directions.dtype)
    x, y, z, cosine, sine = work[0], work[1], work[2], work[3], work[4]
    before, legendre, red, green, blue = work[5], work[6], work[7], work[8], work[9]
    weights = np.empty((bands, _BLOCK), directions.dtype)
    for start in range(begin, stop, _BLOCK):
        size = min(_BLOCK, stop - start)
        for k in range(size):
            x[k], y[k], z[k] = directions[start + k, 0], directions[start + k, 1], directions[start + k, 2]
        _load_weights(zonal, start, size, weights)
        cosine[:] = 1
        sine[:] = 0
        work[7:] = 0
        for m in range(bands):
            legendre[:] = diagonal[m]
            before[:] = 0
            for degree in range(m, bands):
                if degree > m:
                    s, t = slope[degree, m], back[degree, m]
                    for k in range(_BLOCK):
                        value = s * z[k] * legendre[k] - t * before[k]
                        before[k] = legendre[k]
                        legendre[k] = value
                weight = weights[degree]
                plus, minus = degree * degree + degree + m, degree * degree + degree - m
                r0, g0, b0 = coefficients[b, plus, 0], coefficients[b, plus, 1], coefficients[b, plus, 2]
                r1, g1, b1 = coefficients[b, minus, 0], coefficients[b, minus, 1], coefficients[b, minus, 2]
                for k in range(_BLOCK):
                    weighted = legendre[k] * weight[k]
                    even, odd = weighted * cosine[k], weighted * sine[k]
                    red[k] += r0 * even + r1 * odd
                    green[k] += g0 * even + g1 * odd
                    blue[k] += b0 * even + b1 * odd
            for k in range(_BLOCK):
                c, s = cosine[k], sine[k]
                cosine[k], sine[k] = x[k] * c - y[k] * s, x[k] * s + y[k] * c
        for k in range(size):
            light[start + k, 0], light[start + k, 1], light[start + k, 2] = red[k], green[k], blue[k]


@kernel
def _backward(  # type: ignore[no-untyped-def]
    b,
    begin,
    stop,
    directions,
    coefficients,
    zonal,
    diagonal,
    slope,
    back,
    derivative,
    cotangent,
    light_wanted,
    zonal_wanted,
    to_directions,
    to_zonal,
    to_coefficients,
):
    """For one order m: even, odd = Σ_c g_c c_{l,±m,c} is what reaches Y_{l,±m}; the sums over l of its products with P_lm and
    dP_lm/dz are kept per pixel, and (x + iy)^m and its derivatives multiply them once per m."""
    bands = diagonal.shape[0]
    dtype = directions.dtype
    zero = dtype.type(0)
    work = np.zeros((23, _BLOCK), dtype)
    x, y, z, red, green, blue = work[0], work[1], work[2], work[3], work[4], work[5]
    cosine, sine, fewer_cosine, fewer_sine = work[6], work[7], work[8], work[9]
    gx, gy, gz = work[10], work[11], work[12]
    even_sum, odd_sum, even_slope, odd_slope = work[13], work[14], work[15], work[16]
    red_cosine, green_cosine, blue_cosine = work[17], work[18], work[19]
    red_sine, green_sine, blue_sine = work[20], work[21], work[22]
    legendre = np.zeros((bands + 1, bands, _BLOCK), dtype)
    weights = np.empty((bands, _BLOCK), dtype)
    to_weights = np.zeros((bands, _BLOCK), dtype)
    for start in range(begin, stop, _BLOCK):
        size = min(_BLOCK, stop - start)
        for k in range(size):
            p = start + k
            x[k], y[k], z[k] = directions[p, 0], directions[p, 1], directions[p, 2]
            red[k], green[k], blue[k] = cotangent[p, 0], cotangent[p, 1], cotangent[p, 2]
        _load_weights(zonal, start, size, weights)
        for m in range(bands):
            legendre[m, m] = diagonal[m]
            for degree in range(m + 1, bands):
                s, t = slope[degree, m], back[degree, m]
                now, last, earlier = legendre[m, degree], legendre[m, degree - 1], legendre[m, max(degree - 2, 0)]
                for k in range(_BLOCK):
                    now[k] = s * z[k] * last[k] - t * earlier[k]
        cosine[:] = 1
        sine[:] = 0
        work[8:13] = 0
        to_weights[:] = 0
        for m in range(bands):
            work[13:17] = 0
            for k in range(_BLOCK):
                red_cosine[k], red_sine[k] = red[k] * cosine[k], red[k] * sine[k]
                green_cosine[k], green_sine[k] = green[k] * cosine[k], green[k] * sine[k]
                blue_cosine[k], blue_sine[k] = blue[k] * cosine[k], blue[k] * sine[k]
            for degree in range(m, bands):
                now, following, weight = legendre[m, degree], legendre[m + 1, degree], weights[degree]
                rate = derivative[degree, m]
                plus, minus = degree * degree + degree + m, degree * degree + degree - m
                r0, g0, b0 = coefficients[b, plus, 0], coefficients[b, plus, 1], coefficients[b, plus, 2]
                r1, g1, b1 = coefficients[b, minus, 0], coefficients[b, minus, 1], coefficients[b, minus, 2]
                for k in range(_BLOCK):
                    even = r0 * red[k] + g0 * green[k] + b0 * blue[k]
                    odd = r1 * red[k] + g1 * green[k] + b1 * blue[k]
                    here, next_order = now[k] * weight[k], rate * following[k] * weight[k]
                    even_sum[k] += here * even
                    odd_sum[k] += here * odd
                    even_slope[k] += next_order * even
                    odd_slope[k] += next_order * odd
                if zonal_wanted:
                    band = to_weights[degree]
                    for k in range(_BLOCK):
                        band[k] += now[k] * (
                            r0 * red_cosine[k]
                            + g0 * green_cosine[k]
                            + b0 * blue_cosine[k]
                            + r1 * red_sine[k]
                            + g1 * green_sine[k]
                            + b1 * blue_sine[k]
                        )
                if light_wanted:
                    s0, s1, s2, s3, s4, s5 = zero, zero, zero, zero, zero, zero
                    for k in range(_BLOCK):
                        here = now[k] * weight[k]
                        s0 += here * red_cosine[k]
                        s1 += here * green_cosine[k]
                        s2 += here * blue_cosine[k]
                        s3 += here * red_sine[k]
                        s4 += here * green_sine[k]
                        s5 += here * blue_sine[k]
                    to_coefficients[plus, 0] += s0
                    to_coefficients[plus, 1] += s1
                    to_coefficients[plus, 2] += s2
                    to_coefficients[minus, 0] += s3
                    to_coefficients[minus, 1] += s4
                    to_coefficients[minus, 2] += s5
            order = dtype.type(m)
            for k in range(_BLOCK):
                gx[k] += order * (even_sum[k] * fewer_cosine[k] + odd_sum[k] * fewer_sine[k])
                gy[k] += order * (odd_sum[k] * fewer_cosine[k] - even_sum[k] * fewer_sine[k])
                gz[k] += even_slope[k] * cosine[k] + odd_slope[k] * sine[k]
                c, s = cosine[k], sine[k]
                fewer_cosine[k], fewer_sine[k] = c, s
                cosine[k], sine[k] = x[k] * c - y[k] * s, x[k] * s + y[k] * c
        for k in range(size):
            p = start + k
            to_directions[p, 0], to_directions[p, 1], to_directions[p, 2] = gx[k], gy[k], gz[k]
        if zonal_wanted:
            for k in range(size):
                for degree in range(bands):
                    to_zonal[start + k, degree] = to_weights[degree, k]
