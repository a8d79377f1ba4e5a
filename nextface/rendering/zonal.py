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

from nextface.rendering.basis import band_of, basis_tables, sh_basis
from nextface.rendering.jit import array, kernel

_BLOCK = 64


@lru_cache
def _typed_tables(bands: int, dtype: np.dtype) -> tuple[np.ndarray, ...]:
    return tuple(table.astype(dtype) for table in basis_tables(bands))


def filtered_light(directions: Tensor, coefficients: Tensor, image: Tensor, zonal: Tensor | None = None) -> Tensor:
    """Σ_l K_l Σ_m c_lm Y_lm(direction), `[P, 3]`; differentiable in all but `image`.

    directions: unit, view frame, [P, 3]; coefficients: [B, L, 3]; image: ascending, [P];
    zonal: K_l per pixel, [bands, P], or None for 1 everywhere.
    """
    if directions.device.type != "cpu":
        return filtered_light_torch(directions, coefficients, image, zonal)
    return _FilteredLight.apply(directions, coefficients, zonal, image)


def filtered_light_torch(
    directions: Tensor, coefficients: Tensor, image: Tensor, zonal: Tensor | None = None
) -> Tensor:
    """The same in plain torch, on any device."""
    bands = math.isqrt(coefficients.shape[1])
    basis = sh_basis(directions, bands)
    if zonal is not None:
        basis = basis * zonal[torch.tensor(band_of(bands), device=zonal.device)].T
    if coefficients.shape[0] == 1:
        return basis @ coefficients[0]
    return torch.einsum("pl,plc->pc", basis, coefficients[image])


class _FilteredLight(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: FunctionCtx, directions: Tensor, coefficients: Tensor, zonal: Tensor | None, image: Tensor
    ) -> Tensor:
        ctx.save_for_backward(directions, coefficients, zonal, image)  # type: ignore[attr-defined]
        light = torch.empty_like(directions, memory_format=torch.contiguous_format)
        _forward(*_arguments(directions, coefficients, zonal, image), light.numpy())
        return light

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, cotangent: Tensor):  # type: ignore[override, no-untyped-def]
        directions, coefficients, zonal, image = ctx.saved_tensors  # type: ignore[attr-defined]
        to_directions = torch.empty_like(directions, memory_format=torch.contiguous_format)
        to_coefficients = torch.zeros_like(coefficients, memory_format=torch.contiguous_format)
        to_zonal = None if zonal is None else torch.empty_like(zonal, memory_format=torch.contiguous_format)
        _backward(
            *_arguments(directions, coefficients, zonal, image),
            array(cotangent),
            to_directions.numpy(),
            to_coefficients.numpy(),
            None if to_zonal is None else to_zonal.numpy(),
        )
        return to_directions, to_coefficients, to_zonal, None


def _arguments(directions: Tensor, coefficients: Tensor, zonal: Tensor | None, image: Tensor) -> tuple:  # type: ignore[type-arg]
    """Directions, coefficients, zonal, first pixel of every image (and the end), tables."""
    bands = math.isqrt(coefficients.shape[1])
    light = array(coefficients)
    if light.shape[0] == 1:
        starts = np.array([0, directions.shape[0]])
    else:
        starts = np.searchsorted(array(image), np.arange(light.shape[0] + 1))
    return array(directions), light, None if zonal is None else array(zonal), starts, *_typed_tables(bands, light.dtype)


@kernel
def _forward(directions, coefficients, zonal, starts, diagonal, slope, back, derivative, light):  # type: ignore[no-untyped-def]
    bands = diagonal.shape[0]
    work = np.empty((10, _BLOCK), directions.dtype)
    x, y, z, cosine, sine = work[0], work[1], work[2], work[3], work[4]
    before, legendre, red, green, blue = work[5], work[6], work[7], work[8], work[9]
    for b in range(coefficients.shape[0]):
        for start in range(starts[b], starts[b + 1], _BLOCK):
            size = min(_BLOCK, starts[b + 1] - start)
            for k in range(size):
                x[k], y[k], z[k] = directions[start + k, 0], directions[start + k, 1], directions[start + k, 2]
            work[3] = 1
            work[4] = 0
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
                    centre = degree * degree + degree
                    r0, g0, b0 = (
                        coefficients[b, centre + m, 0],
                        coefficients[b, centre + m, 1],
                        coefficients[b, centre + m, 2],
                    )
                    r1, g1, b1 = (
                        coefficients[b, centre - m, 0],
                        coefficients[b, centre - m, 1],
                        coefficients[b, centre - m, 2],
                    )
                    if zonal is None:
                        for k in range(size):
                            even, odd = legendre[k] * cosine[k], legendre[k] * sine[k]
                            red[k] += r0 * even + r1 * odd
                            green[k] += g0 * even + g1 * odd
                            blue[k] += b0 * even + b1 * odd
                    else:
                        for k in range(size):
                            weighted = legendre[k] * zonal[degree, start + k]
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
    directions,
    coefficients,
    zonal,
    starts,
    diagonal,
    slope,
    back,
    derivative,
    cotangent,
    to_directions,
    to_coefficients,
    to_zonal,
):
    bands = diagonal.shape[0]
    dtype = directions.dtype
    zero = dtype.type(0)
    work = np.zeros((15, _BLOCK), dtype)
    x, y, z, red, green, blue = work[0], work[1], work[2], work[3], work[4], work[5]
    cosine, sine, fewer_cosine, fewer_sine = work[6], work[7], work[13], work[14]
    gx, gy, gz, even, odd = work[8], work[9], work[10], work[11], work[12]
    all_legendre = np.zeros((bands + 1, bands, _BLOCK), dtype)
    per_band = np.zeros((bands, _BLOCK), dtype)
    for b in range(coefficients.shape[0]):
        for start in range(starts[b], starts[b + 1], _BLOCK):
            size = min(_BLOCK, starts[b + 1] - start)
            if size < _BLOCK:
                work[:6] = 0
            for k in range(size):
                p = start + k
                x[k], y[k], z[k] = directions[p, 0], directions[p, 1], directions[p, 2]
                red[k], green[k], blue[k] = cotangent[p, 0], cotangent[p, 1], cotangent[p, 2]
            for m in range(bands):
                all_legendre[m, m] = diagonal[m]
                for degree in range(m + 1, bands):
                    s, t = slope[degree, m], back[degree, m]
                    now, last, last_but_one = (
                        all_legendre[m, degree],
                        all_legendre[m, degree - 1],
                        all_legendre[m, degree - 2],
                    )
                    if degree == m + 1:
                        for k in range(_BLOCK):
                            now[k] = s * z[k] * last[k]
                    else:
                        for k in range(_BLOCK):
                            now[k] = s * z[k] * last[k] - t * last_but_one[k]
            cosine[:] = 1
            sine[:] = 0
            work[8:13] = 0
            per_band[:] = 0
            for m in range(bands):
                for degree in range(m, bands):
                    centre = degree * degree + degree
                    r0, g0, b0 = (
                        coefficients[b, centre + m, 0],
                        coefficients[b, centre + m, 1],
                        coefficients[b, centre + m, 2],
                    )
                    r1, g1, b1 = (
                        coefficients[b, centre - m, 0],
                        coefficients[b, centre - m, 1],
                        coefficients[b, centre - m, 2],
                    )
                    now, next_order = all_legendre[m, degree], all_legendre[m + 1, degree]
                    band = per_band[degree]
                    rate = derivative[degree, m]
                    if m == 0:
                        r1, g1, b1 = zero, zero, zero
                    # even, odd: what reaches Y_{l,+m} and Y_{l,-m}, before the zonal weight.
                    for k in range(_BLOCK):
                        even[k] = r0 * red[k] + g0 * green[k] + b0 * blue[k]
                        odd[k] = r1 * red[k] + g1 * green[k] + b1 * blue[k]
                    if zonal is not None:
                        for k in range(_BLOCK):
                            band[k] += now[k] * (even[k] * cosine[k] + odd[k] * sine[k])
                        for k in range(size):
                            even[k] *= zonal[degree, start + k]
                            odd[k] *= zonal[degree, start + k]
                    for k in range(_BLOCK):
                        step = m * now[k]
                        gx[k] += step * (even[k] * fewer_cosine[k] + odd[k] * fewer_sine[k])
                        gy[k] += step * (odd[k] * fewer_cosine[k] - even[k] * fewer_sine[k])
                        gz[k] += rate * next_order[k] * (even[k] * cosine[k] + odd[k] * sine[k])
                    s0, s1, s2, s3, s4, s5 = zero, zero, zero, zero, zero, zero
                    if zonal is None:
                        for k in range(_BLOCK):
                            c, s = now[k] * cosine[k], now[k] * sine[k]
                            s0 += c * red[k]
                            s1 += c * green[k]
                            s2 += c * blue[k]
                            s3 += s * red[k]
                            s4 += s * green[k]
                            s5 += s * blue[k]
                    else:
                        for k in range(size):
                            weighted = now[k] * zonal[degree, start + k]
                            c, s = weighted * cosine[k], weighted * sine[k]
                            s0 += c * red[k]
                            s1 += c * green[k]
                            s2 += c * blue[k]
                            s3 += s * red[k]
                            s4 += s * green[k]
                            s5 += s * blue[k]
                    to_coefficients[b, centre + m, 0] += s0
                    to_coefficients[b, centre + m, 1] += s1
                    to_coefficients[b, centre + m, 2] += s2
                    if m > 0:
                        to_coefficients[b, centre - m, 0] += s3
                        to_coefficients[b, centre - m, 1] += s4
                        to_coefficients[b, centre - m, 2] += s5
                for k in range(_BLOCK):
                    c, s = cosine[k], sine[k]
                    fewer_cosine[k], fewer_sine[k] = c, s
                    cosine[k], sine[k] = x[k] * c - y[k] * s, x[k] * s + y[k] * c
            for k in range(size):
                p = start + k
                to_directions[p, 0], to_directions[p, 1], to_directions[p, 2] = gx[k], gy[k], gz[k]
            if to_zonal is not None:
                for degree in range(bands):
                    for k in range(size):
                        to_zonal[degree, start + k] = per_band[degree, k]
