"""From stored pixel values to linear Rec.709: sRGB's curve, and the matrix profiles that photos embed (ICC.1:2010)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

XYZ_D50_TO_REC709 = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)
"""Linear Rec.709 of XYZ relative to D50, Bradford-adapted (Lindbloom), the inverse of sRGB's ICC colorants."""


@dataclass(frozen=True)
class ColourSpace:
    """How stored values become linear Rec.709.

    curves: linear value of every stored integer per channel, [3, 256 | 65536] float32; None when values are linear floats
    matrix: linear device RGB to linear Rec.709, [3, 3] float32; None for identity
    """

    curves: np.ndarray | None
    matrix: np.ndarray | None

    def linear(self, stored: np.ndarray) -> np.ndarray:
        """Stored values `[..., 3]` to linear Rec.709 float32; colours outside Rec.709 are clipped at 0."""
        if self.curves is None:
            linear = np.nan_to_num(stored.astype(np.float32), nan=0.0, posinf=65504.0, neginf=0.0)
        else:
            linear = np.stack([self.curves[channel][stored[..., channel]] for channel in range(3)], -1)
        if self.matrix is not None:
            linear = linear @ self.matrix.T
        return np.maximum(linear, 0.0)


def srgb_decode(encoded: np.ndarray) -> np.ndarray:
    """sRGB (IEC 61966-2-1) to linear, any shape."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4)


def srgb_encode(linear: np.ndarray) -> np.ndarray:
    """Linear to sRGB (IEC 61966-2-1), any shape; clipped to 0..1."""
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


def srgb_space(dtype: np.dtype) -> ColourSpace:
    """sRGB for unsigned integers of this type."""
    count = np.iinfo(dtype).max + 1
    curve = srgb_decode(np.arange(count) / (count - 1)).astype(np.float32)
    return ColourSpace(np.stack([curve] * 3), None)


LINEAR = ColourSpace(None, None)


def profile_space(profile: bytes, dtype: np.dtype) -> ColourSpace | None:
    """The colour space of an ICC profile made of curves and a matrix (RGB) or of one curve (grey).

    None when the profile is of another kind (look-up tables, CMYK) or broken.
    """
    try:
        tags = _tags(profile)
        count = np.iinfo(dtype).max + 1
        steps = np.arange(count) / (count - 1)
        if profile[16:20] == b"GRAY":
            curve = _curve(tags[b"kTRC"], steps)
            return ColourSpace(np.stack([curve] * 3).astype(np.float32), None)
        if profile[16:20] != b"RGB " or b"A2B0" in tags:
            return None
        curves = np.stack([_curve(tags[name], steps) for name in (b"rTRC", b"gTRC", b"bTRC")])
        colorants = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], -1)
    except (KeyError, ValueError, IndexError, struct.error):
        return None
    matrix = XYZ_D50_TO_REC709 @ colorants
    if np.abs(matrix - np.eye(3)).max() < 2e-3:
        return ColourSpace(curves.astype(np.float32), None)
    return ColourSpace(curves.astype(np.float32), matrix.astype(np.float32))


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    if count > 200:
        raise ValueError(count)
    tags = {}
    for number in range(count):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * number)
        tags[name] = profile[offset : offset + size]
    return tags


def _xyz(tag: bytes) -> np.ndarray:
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536.0


def _curve(tag: bytes, steps: np.ndarray) -> np.ndarray:
    """A `curv` or `para` tone curve at `steps` in 0..1 (ICC.1:2010, 10.5 and 10.15)."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return steps
        values = np.frombuffer(tag, ">u2", count, 12).astype(np.float64)
        if count == 1:
            return steps ** (values[0] / 256.0)
        return np.interp(steps, np.linspace(0.0, 1.0, count), values / 65535.0)
    if tag[:4] != b"para":
        raise ValueError(tag[:4])
    (kind,) = struct.unpack_from(">H", tag, 8)
    sizes = (1, 3, 4, 5, 7)
    given = [value / 65536.0 for value in struct.unpack_from(f">{sizes[kind]}i", tag, 12)]
    if kind == 0:
        return steps ** given[0]
    g, a, b = given[:3]
    if kind in (1, 2):
        c = given[3] if kind == 2 else 0.0
        return np.where(steps >= -b / a, np.maximum(a * steps + b, 0.0) ** g, 0.0) + c
    c, d = given[3:5]
    e, f = given[5:7] if kind == 4 else (0.0, 0.0)
    return np.where(steps >= d, np.maximum(a * steps + b, 0.0) ** g + e, c * steps + f)
