"""Real orthonormal spherical harmonics.

Y_lm sits at index l² + l + m, without the Condon–Shortley phase: Y = √2·(−1)^m·Re|Im of scipy's `sph_harm_y(l, |m|)`.
The polar axis is z, to the viewer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


@lru_cache
def basis_tables(bands: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Constants of the normalised recurrence, all indexed (l, m) but the first, which is indexed m.

    P_mm = diagonal[m]; P_lm = slope·z·P_{l−1,m} − back·P_{l−2,m}; dP_lm/dz = derivative·P_{l,m+1}. P_lm holds the
    orthonormal factor, √2 for m > 0, and is divided by sin^m θ, which (x + iy)^m supplies.
    """
    diagonal = np.empty(bands)
    slope, back, derivative = (np.zeros((bands, bands)) for _ in range(3))
    product = 1.0 / math.sqrt(4.0 * math.pi)
    for m in range(bands):
        if m > 0:
            product *= math.sqrt((2 * m + 1) / (2 * m))
        diagonal[m] = product * (math.sqrt(2.0) if m > 0 else 1.0)
        for degree in range(m, bands):
            derivative[degree, m] = math.sqrt((degree - m) * (degree + m + 1)) * (math.sqrt(0.5) if m == 0 else 1.0)
            if degree > m:
                slope[degree, m] = math.sqrt((4 * degree**2 - 1) / (degree**2 - m**2))
                previous = degree - 1
                back[degree, m] = slope[degree, m] * math.sqrt((previous**2 - m**2) / (4 * previous**2 - 1))
    return diagonal, slope, back, derivative


def sh_basis(directions: Tensor, bands: int) -> Tensor:
    """All basis functions of l < bands. directions: unit, [P, 3] -> [P, bands²]. Differentiable once.

    Y_lm = P_lm(z)·{Re | Im}(x + iy)^|m| with the stable normalised recurrence in l (Sloan 2013, "Efficient spherical
    harmonic evaluation"), run for all m at once.
    """
    return _Basis.apply(directions, bands)


def band_of(bands: int) -> list[int]:
    """The band l of every coefficient, `bands²` of them."""
    return [degree for degree in range(bands) for _ in range(2 * degree + 1)]


@lru_cache
def band_numbers(bands: int, device: torch.device) -> Tensor:
    """`band_of` as a tensor, kept on its device."""
    return torch.tensor(band_of(bands), device=device)


@dataclass(frozen=True)
class _Layout:
    """Where the factors of each coefficient (l, m) stand, and constants.

    Monic Legendre values Q_lm = P_lm / scale_lm stand in a grid, row l, column m of `bands`; Q_mm = 1 and
    Q_lm = z·Q_{l−1,m} − back_lm·Q_{l−2,m}. The powers (x + iy)^m stand as pairs of real and imaginary parts.

    first:     1 where l = m. [bands, bands]
    back:      [bands, bands]
    legendre:  place of Q_l|m|. [L]
    scale:     [L]
    power:     place of the real (m ≥ 0) or imaginary (m < 0) part of the |m|-th power. [L]
    following: place of Q_l,|m|+1, and `slope` its factor in dP_l|m|/dz, 0 where |m| = l. [L] each
    order:     sums m·(coefficient's share) into the place of the part of the power |m| − 1. [L, 2·bands]
    """

    first: Tensor
    back: Tensor
    legendre: Tensor
    scale: Tensor
    power: Tensor
    following: Tensor
    slope: Tensor
    order: Tensor


@lru_cache
def _layout(bands: int, dtype: torch.dtype, device: torch.device) -> _Layout:
    diagonal, slope, back, derivative = basis_tables(bands)
    scale = np.ones((bands, bands))
    monic_back = np.zeros((bands, bands))
    for m in range(bands):
        scale[m, m] = diagonal[m]
        for degree in range(m + 1, bands):
            scale[degree, m] = slope[degree, m] * scale[degree - 1, m]
            if degree > m + 1:
                monic_back[degree, m] = back[degree, m] * scale[degree - 2, m] / scale[degree, m]
    degrees = np.array(band_of(bands))
    orders = np.arange(bands * bands) - degrees * (degrees + 1)
    m, imaginary = np.abs(orders), orders < 0
    inner = m < degrees
    above = np.where(inner, m + 1, m)
    order = np.zeros((bands * bands, 2 * bands))
    rows = np.flatnonzero(m > 0)
    order[rows, 2 * (m[rows] - 1) + imaginary[rows]] = m[rows]

    def real(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device, dtype)

    def whole(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(device)

    return _Layout(
        first=real(np.eye(bands)),
        back=real(monic_back),
        legendre=whole(degrees * bands + m),
        scale=real(scale[degrees, m]),
        power=whole(2 * m + imaginary),
        following=whole(degrees * bands + above),
        slope=real(np.where(inner, derivative[degrees, m] * scale[degrees, above], 0.0)),
        order=real(order),
    )


class _Basis(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, directions: Tensor, bands: int) -> Tensor:  # type: ignore[override]
        layout = _layout(bands, directions.dtype, directions.device)
        x, y, z = directions.unbind(-1)
        turn = torch.complex(x, y)[:, None]
        powers = torch.cat([torch.ones_like(turn), turn], 1)
        while powers.shape[1] < bands:
            powers = torch.cat([powers, powers[:, 1:] * powers[:, -1:]], 1)
        powers = powers[:, :bands].contiguous()
        legendre = directions.new_empty(len(directions), bands, bands)
        legendre[:, 0] = layout.first[0]
        for degree in range(1, bands):
            row = torch.addcmul(layout.first[degree], z[:, None], legendre[:, degree - 1], out=legendre[:, degree])
            if degree > 1:
                row.addcmul_(layout.back[degree], legendre[:, degree - 2], value=-1.0)
        ctx.bands = bands  # type: ignore[attr-defined]
        ctx.save_for_backward(legendre, powers)  # type: ignore[attr-defined]
        values, parts = _gathered(layout, legendre, powers)
        return values * parts

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, cotangent: Tensor):  # type: ignore[override, no-untyped-def]
        legendre, powers = ctx.saved_tensors  # type: ignore[attr-defined]
        layout = _layout(ctx.bands, legendre.dtype, legendre.device)  # type: ignore[attr-defined]
        values, parts = _gathered(layout, legendre, powers)
        slopes = legendre.flatten(1).index_select(1, layout.following) * layout.slope
        to_z = (cotangent * parts * slopes).sum(1, keepdim=True)
        # With w = (x + iy)^m: ∂Re w/∂x + i·∂Re w/∂y = m·conj(x + iy)^(m−1), and i times that for Im w.
        shares = torch.view_as_complex(((cotangent * values) @ layout.order).unflatten(1, (-1, 2)))
        to_xy = torch.view_as_real((shares * powers.conj()).sum(1))
        return torch.cat([to_xy, to_z], 1), None


def _gathered(layout: _Layout, legendre: Tensor, powers: Tensor) -> tuple[Tensor, Tensor]:
    """P_l|m| and the real or imaginary part of (x + iy)^|m| of every coefficient. [P, L] each"""
    values = legendre.flatten(1).index_select(1, layout.legendre) * layout.scale
    return values, torch.view_as_real(powers).flatten(1).index_select(1, layout.power)
