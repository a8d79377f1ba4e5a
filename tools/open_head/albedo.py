"""Random skins and their statistics: diffuse and specular albedo from one coefficient vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from open_head.features import SCLERA, eyeball_colours, mouth_colours, sample_iris
from open_head.geometry import HeadTopology
from open_head.gloss import Gloss
from open_head.regions import smoothstep
from open_head.skin import SkinDetail
from open_head.skin_tone import skin_colour
from open_head.statistics import principal_components

LUMA = np.array([0.2126, 0.7152, 0.0722])
LUMINANCE_MEAN, LUMINANCE_SD = 0.24, 0.088
LUMINANCE_RANGE = (0.03, 0.56)
MELANIN = np.geomspace(0.001, 3.0, 400)
DARKEST, LIGHTEST = np.array([0.052, 0.026, 0.015]), np.array([0.60, 0.42, 0.33])
STRAIGHTENING = 0.5
"""Skin colour bends with melanin: middle tones are more saturated than the straight line between very dark and very light
skin. A linear model cannot bend; this share of the bend is taken out of the samples, the rest becomes a component."""
HAIRS = np.array(
    [[0.012, 0.009, 0.008], [0.030, 0.018, 0.012], [0.075, 0.045, 0.026], [0.20, 0.13, 0.07], [0.16, 0.15, 0.14]]
)
"""Linear albedo of hair: black, dark brown, brown, blond, grey."""
CAUTION = 0.68
"""Factor on all components but the first (tone). They are drawn independently of tone, though colour varies less on darker
skin in absolute terms: at full size random dark skins would come out green or red."""
IMPORTANCE = {"eyebrows": 2.0, "eyes": 2.0, "lips": 1.5}
"""Extra weight of small regions in the principal components."""


@dataclass(frozen=True)
class AlbedoStatistics:
    """Means and bases in standard deviations. diffuse [V, 3], [K, V, 3]; specular [V], [K, V]; share of variance held"""

    diffuse: np.ndarray
    diffuse_basis: np.ndarray
    specular: np.ndarray
    specular_basis: np.ndarray
    held: float


def skin_tone(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A skin colour [3] and its luminance: blood content log-normal, melanin such that the luminance is as drawn.

    A linear model cannot hold a lower bound; a nearly normal luminance keeps its samples within the range.
    """
    blood = float(np.exp(rng.normal(np.log(0.015), 0.24)))
    wanted = np.clip(rng.normal(LUMINANCE_MEAN, LUMINANCE_SD), *LUMINANCE_RANGE)
    ladder = skin_colour(MELANIN, np.full(len(MELANIN), blood))
    luminance = ladder @ LUMA
    melanin = np.exp(np.interp(wanted, luminance[::-1], np.log(MELANIN)[::-1]))
    colour = skin_colour(np.array(melanin), np.array(blood))
    if wanted > luminance[0]:
        colour = colour * (wanted / luminance[0])
    share = (wanted - DARKEST @ LUMA) / ((LIGHTEST - DARKEST) @ LUMA)
    straight = DARKEST + share * (LIGHTEST - DARKEST)
    return colour + STRAIGHTENING * (straight - colour), float(wanted)


def hair_colour(rng: np.random.Generator, luminance: float) -> np.ndarray:
    """[3]; light hair only with light skin, grey with any."""
    light = float(np.clip((luminance - 0.15) / 0.2, 0.0, 1.0))
    weights = np.array([2 - 1.4 * light, 1.0, light, 0.6 * light, 0.25])
    first, second = rng.choice(len(HAIRS), 2, p=weights / weights.sum())
    return HAIRS[first] + 0.4 * rng.random() * (HAIRS[second] - HAIRS[first])


def beard_mask(vertices: np.ndarray, regions: Mapping[str, np.ndarray]) -> np.ndarray:
    """Where a beard would grow: below the nose and along the jaw. [V] in 0..1"""
    x, y, z = vertices.T
    mouth = vertices[regions["lips"] > 0.5].mean(0)
    dx, dy = x / 36, (y - mouth[1] - 8) / 26
    jaw = smoothstep(np.hypot(dx, dy), 0.75, 1.3) * smoothstep(-(y - mouth[1]) - 0.35 * np.abs(x), -26.0, 2.0)
    lip = smoothstep(-np.hypot(x / 27, (y - mouth[1] - 10) / 9), -1.15, -0.6)
    chin = smoothstep(-np.hypot(x / 22, (y - mouth[1] + 30) / 20), -1.3, -0.6)
    area = np.max([jaw, lip, chin], axis=0) * smoothstep(z, 0.0, 35.0)
    return area * regions["skin"] * (1 - smoothstep(regions["lips"], 0.0, 0.3))


def draw_skins(
    topology: HeadTopology,
    vertices: np.ndarray,
    regions: Mapping[str, np.ndarray],
    detail: SkinDetail,
    brows: np.ndarray,
    gloss: Gloss,
    count: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse [count, V, 3] and specular [count, V] albedo of random, mirror-symmetric skins."""
    rng = np.random.default_rng(seed)
    eyes = np.flatnonzero(topology.of("eye-left", "eye-right"))
    polar = topology.eye_polar[eyes]
    inside, lining = mouth_colours(topology, vertices, regions["mouth_interior"])
    beard = beard_mask(vertices, regions)
    diffuse = np.empty((count, len(vertices), 3), np.float32)
    specular = np.empty((count, len(vertices)), np.float32)
    for k in range(count):
        tone, luminance = skin_tone(rng)
        dark = float(np.clip((0.2 - luminance) / 0.12, 0.0, 1.0))
        shares = rng.dirichlet([0.25] * len(detail.dark)) * np.where(detail.dark, dark, 1 - dark)
        shares /= shares.sum()
        skin = tone * np.exp(rng.uniform(0.4, 1.0) * np.einsum("s,svc->vc", shares, detail.log_ratio))
        flush = np.exp(regions["lips"][:, None] * rng.normal(0.0, 0.12) * np.array([0.3, -1.0, -0.6]))
        skin = skin * flush
        hair = hair_colour(rng, luminance)
        style = rng.dirichlet([0.3] * len(brows))
        cover = np.clip(rng.uniform(0.7, 1.5) * (style @ brows), 0.0, 0.95)
        cropped = regions["scalp"] * rng.uniform(0.0, 0.9)
        shadow = beard * max(0.0, rng.normal(0.0, 0.28))
        cover = np.max([cover, cropped, np.clip(shadow, 0.0, 0.7)], axis=0)[:, None]
        colour = skin * (1 - cover) + np.minimum(hair, 0.9 * tone) * cover
        white = SCLERA * rng.uniform(0.88, 1.06) * np.array([1.0, rng.uniform(0.95, 1.0), rng.uniform(0.9, 1.0)])
        colour[eyes] = eyeball_colours(polar, sample_iris(rng, luminance), white)
        colour[inside] = lining * rng.uniform(0.85, 1.15)
        diffuse[k] = colour
        specular[k] = gloss.sample(rng, cover[:, 0])
    return diffuse, specular


def albedo_statistics(
    diffuse: np.ndarray, specular: np.ndarray, regions: Mapping[str, np.ndarray], components: int
) -> AlbedoStatistics:
    """Joint principal components. Small regions and, less, the specular weight count by their importance."""
    weight = np.ones(diffuse.shape[1])
    for name, importance in IMPORTANCE.items():
        weight += (importance - 1.0) * regions[name]
    scale = np.concatenate([np.repeat(weight, 3), 0.25 * weight]).astype(np.float32)
    samples = np.concatenate([diffuse.reshape(len(diffuse), -1), specular], 1) * scale
    mean, basis, held = principal_components(samples, components)
    mean, basis = mean / scale, basis / scale
    basis[1:] *= CAUTION
    split = 3 * diffuse.shape[1]
    shape = (components, diffuse.shape[1])
    return AlbedoStatistics(
        mean[:split].reshape(-1, 3), basis[:, :split].reshape(*shape, 3), mean[split:], basis[:, split:], held
    )
