"""Random patterns on a map: Gaussian processes, reaction and diffusion, clustered spots. All periodic unless said."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

Array = NDArray[np.float32]

_STEPS = 1500
_DIFFUSION = (0.16, 0.08)
_FEED_KILL = ((0.0545, 0.062), (0.037, 0.060), (0.029, 0.057), (0.046, 0.0630))
"""Labyrinths, winding stripes, mazes with dots, worms (Pearson 1993)."""


def process(
    rng: np.random.Generator, side: int, longest: float, shortest: float, fall: float, stretch: float = 1.0
) -> Array:
    """A Gaussian process of unit variance with a power-law spectrum between two wavelengths in texels. [side, side]

    fall: the amplitude falls as 1 / frequency^fall; stretch: how much longer the waves are along u than along v
    """
    v, u = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    frequency = np.hypot(v, u * stretch)
    inside = np.exp(-((frequency * shortest) ** 4)) * (1.0 - np.exp(-((frequency * longest) ** 4)))
    amplitude = inside * np.maximum(frequency, 1e-6) ** -fall
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * amplitude, (side, side))
    return (field / field.std()).astype(np.float32)


def reaction_diffusion(rng: np.random.Generator, side: int) -> Array:
    """A pattern of Gray and Scott's two substances, zero mean and unit variance. [side, side]"""
    feed, kill = _FEED_KILL[rng.integers(len(_FEED_KILL))]
    u, v = np.ones((side, side), np.float32), np.zeros((side, side), np.float32)
    for row, column in rng.integers(0, side, (max(8, side * side // 300), 2)):
        rows, columns = (np.arange(row, row + 4) % side)[:, None], np.arange(column, column + 4) % side
        u[rows, columns], v[rows, columns] = 0.5, 0.3
    for _ in range(_STEPS):
        reaction = u * v * v
        u += _DIFFUSION[0] * _laplacian(u) - reaction + feed * (1.0 - u)
        v += _DIFFUSION[1] * _laplacian(v) + reaction - (feed + kill) * v
    return ((v - v.mean()) / max(float(v.std()), 1e-6)).astype(np.float32)


def _laplacian(field: Array) -> Array:
    return np.roll(field, 1, 0) + np.roll(field, -1, 0) + np.roll(field, 1, 1) + np.roll(field, -1, 1) - 4.0 * field


def tiled(pattern: Array, side: int, repeats: float, bend: Array) -> Array:
    """A pattern repeated over a map and bent, so that the repeats do not show. bend: texels of the pattern, [2, side, side]"""
    step = np.arange(side, dtype=np.float32) * (len(pattern) * repeats / side)
    rows, columns = np.meshgrid(step, step, indexing="ij")
    return map_coordinates(pattern, [rows + bend[0], columns + bend[1]], order=1, mode="grid-wrap")


def clustered_spots(
    rng: np.random.Generator, density: Array, parents: int, children: float, spread: float, radius: float
) -> Array:
    """Spots in clusters (Thomas 1949), log-normal in size, darkest in the middle. 0..1, not periodic, [T, T]

    density: where clusters lie, [T, T]; children: mean spots per cluster; spread, radius: texels
    """
    side = len(density)
    total = np.zeros((side, side), np.float32)
    places = np.flatnonzero(density.ravel() > 0.3)
    if not len(places):
        return total
    for parent in rng.choice(places, parents):
        row, column = divmod(int(parent), side)
        for y, x in rng.normal((row, column), spread, (rng.poisson(children), 2)):
            size = radius * np.exp(0.45 * rng.standard_normal())
            top, left = int(y - 3 * size), int(x - 3 * size)
            bottom, right = int(y + 3 * size) + 2, int(x + 3 * size) + 2
            if top < 0 or left < 0 or bottom > side or right > side:
                continue
            away = np.hypot(*np.mgrid[top - y : bottom - y, left - x : right - x]) / size
            spot = rng.uniform(0.4, 1.0) / (1.0 + np.exp(4.0 * (away - 1.0)))
            window = total[top:bottom, left:right]
            total[top:bottom, left:right] = window + spot - window * spot
    return total * density
