"""Real orthonormal spherical harmonics.

Y_lm sits at index l² + l + m, without the Condon–Shortley phase: Y = √2·(−1)^m·Re|Im of scipy's `sph_harm_y(l, |m|)`.
The polar axis is z, to the viewer.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


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
    """All basis functions of l < bands. directions: unit, [P, 3] -> [P, bands²]. Differentiable.

    Y_lm = P_lm(z)·{Re | Im}(x + iy)^|m| with the stable normalised recurrence in l (Sloan 2013, "Efficient spherical
    harmonic evaluation").
    """
    diagonal, slope, back, _ = basis_tables(bands)
    x, y, z = directions.unbind(-1)
    columns: list[Tensor] = [directions] * bands**2
    cosine, sine = torch.ones_like(x), torch.zeros_like(x)
    for m in range(bands):
        before, legendre = torch.zeros_like(z), torch.full_like(z, diagonal[m])
        for degree in range(m, bands):
            if degree > m:
                before, legendre = (
                    legendre,
                    float(slope[degree, m]) * z * legendre - float(back[degree, m]) * before,
                )
            centre = degree * degree + degree
            columns[centre + m] = legendre * cosine
            if m > 0:
                columns[centre - m] = legendre * sine
        cosine, sine = x * cosine - y * sine, x * sine + y * cosine
    return torch.stack(columns, -1)


def band_of(bands: int) -> list[int]:
    """The band l of every coefficient, `bands²` of them."""
    return [degree for degree in range(bands) for _ in range(2 * degree + 1)]
