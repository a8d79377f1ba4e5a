"""Skin painted in CIELAB: tone from measured hues, blotches of melanin and of blood as directions in that space.

Hues: Xiao et al. 2017. Directions: Stamatas et al. 2004 and Del Bino and Bernerd 2013 describe how lightness, redness and
yellowness move with melanin and with erythema; the sizes here are our choice.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import metrics
from benchmarks.skin import texels_per_millimetre
from benchmarks.unseen.patterns import clustered_spots, process, reaction_diffusion, tiled
from nextface.morphable.model import MorphableModel
from nextface.rendering.bake import bake
from nextface.rendering.normals import vertex_normals
from nextface.textures import LaplacianTexture, SkinMaps

Array = NDArray[np.float32]

RED, RED_SD, YELLOW, YELLOW_SD = 11.0, 2.2, 16.0, 2.2
LIGHTNESS_RANGE = (25.0, 76.0)
_MELANIN = np.array([-5.0, 0.8, 1.6], np.float32)
_BLOOD = np.array([-1.6, 3.4, 0.4], np.float32)
_SHAVEN = np.array([-13.0, -4.0, -8.0], np.float32)
"""Change of L*, a*, b* by one unit of melanin, of blood, and by a dense beard under the skin."""
_HAIRS = np.array(
    [[8.0, 1.0, 1.0], [17.0, 4.0, 5.0], [28.0, 8.0, 12.0], [45.0, 7.0, 20.0], [50.0, 0.0, 3.0]], np.float32
)
_LIPSTICKS = np.array([[34.0, 48.0, 24.0], [28.0, 40.0, 8.0], [50.0, 32.0, 14.0], [22.0, 26.0, 4.0]], np.float32)
_LINES_MM, _PORES_MM = 7.0, 1.6
_PATTERN = 192
_XYZ_WHITE = np.array([0.95047, 1.0, 1.08883], np.float32)
_XYZ_TO_RGB = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]],
    np.float32,
)


def unseen_maps(model: MorphableModel, albedo: Tensor, resolution: int, rng: np.random.Generator) -> SkinMaps:
    """A person's maps, `resolution`². Of `albedo` [1, Ka] only the typology angle and the colours of eyes and mouth are used."""
    angle = float(metrics.typology_angle(model.diffuse(albedo)[0, metrics.face_vertices(model)].mean(0)))
    parts = _parts(model, resolution)
    millimetre = texels_per_millimetre(model, resolution)
    age, male = rng.random(), rng.random() < 0.5

    def clouds(longest: float, shortest: float, fall: float, stretch: float = 1.0) -> Array:
        return process(rng, resolution, longest * millimetre, shortest * millimetre, fall, stretch)

    bend = 5.0 * np.stack([clouds(60.0, 12.0, 1.5), clouds(60.0, 12.0, 1.5)])
    repeats = resolution / (_PATTERN / 8.0 * _PORES_MM * millimetre)
    pores = tiled(reaction_diffusion(rng, _PATTERN), resolution, repeats, bend)

    melanin = rng.uniform(0.15, 0.4) * clouds(70.0, 2.0, 1.0) + rng.uniform(0.0, 0.7) * parts["around_eyes"]
    melanin += rng.uniform(-0.2, 0.6) * parts["upper"] + 0.05 * pores
    blood = rng.uniform(0.25, 0.6) * clouds(50.0, 1.5, 0.8) + rng.uniform(0.2, 1.3) * parts["protruding"]
    blood += rng.uniform(0.0, 0.7) * parts["around_lips"] + rng.uniform(0.2, 1.0) * parts["ears"] - 0.08 * pores
    spotted = parts["plain"] * np.clip(0.4 + parts["protruding"] + 0.3 * clouds(60.0, 20.0, 1.0), 0.0, 1.0)
    if angle > 10.0 and rng.random() < 0.4:
        melanin += rng.uniform(0.8, 2.0) * clustered_spots(rng, spotted, 60, 9.0, 5.0 * millimetre, 0.8 * millimetre)
    melanin += 4.0 * clustered_spots(rng, parts["plain"], int(rng.integers(2, 9)), 1.0, millimetre, 1.2 * millimetre)
    blood += 1.5 * clustered_spots(rng, parts["plain"], int(rng.integers(0, 12)), 1.0, millimetre, 1.6 * millimetre)

    tone = _tone(angle, rng)
    lab = tone + melanin[..., None] * _MELANIN + blood[..., None] * _BLOOD
    lips = np.array([-rng.uniform(2, 9), rng.uniform(4, 13), -rng.uniform(0, 4)], np.float32)
    lab += parts["lips"][..., None] * lips
    lipstick = 0.0 if male or rng.random() < 0.5 else rng.uniform(0.3, 0.9)
    colour = _LIPSTICKS[rng.integers(len(_LIPSTICKS))]
    lab += (lipstick * parts["lips"])[..., None] * (colour - lab)
    paint = 0.0 if male or rng.random() < 0.6 else rng.uniform(0.2, 0.7)
    lab += (paint * parts["around_eyes"] ** 2)[..., None] * np.array([-16.0, *rng.uniform(-4, 6, 2)], np.float32)
    lab += (rng.uniform(0.4, 1.0) * parts["rims"])[..., None] * np.array([-22.0, -2.0, -6.0], np.float32)
    growth = float(male) * max(0.0, rng.uniform(-0.5, 1.0))
    beard = (
        growth * parts["beard"] * np.clip(1.0 + 0.3 * clouds(12.0, 1.2, 0.3) + 0.2 * clouds(40.0, 8.0, 1.0), 0.0, 1.5)
    )
    lab += beard[..., None] * _SHAVEN * min(1.0, max(0.35, (tone[0] - 15.0) / 40.0))
    hair = _HAIRS[min(rng.integers(5) if angle > 25.0 else rng.integers(2), 4)] + rng.normal(0.0, 1.5, 3).astype(
        np.float32
    )
    strands = np.clip(1.0 + 0.2 * clouds(6.0, 0.9, 0.0, 2.5), 0.0, 1.6)
    cover = np.clip(rng.uniform(0.5, 1.0) * parts["eyebrows"] * strands, 0.0, 0.95)
    cover = np.maximum(cover, np.clip(rng.uniform(0.2, 0.95) * parts["scalp"] * strands, 0.0, 0.95))
    lab += cover[..., None] * (np.minimum(hair, tone * np.array([0.8, 1.0, 1.0], np.float32)) - lab)

    own = np.clip(parts["own"], 0.0, 1.0)[..., None]
    diffuse = own * _linear(lab) + (1.0 - own) * _baked(model, model.diffuse(albedo), resolution)
    specular, roughness = _gloss(rng, parts, pores, clouds(45.0, 5.0, 1.0), lipstick, beard + cover)
    slopes = _slopes(_height(parts, clouds, pores, millimetre, age, rng), millimetre) * own
    images = (
        ("diffuse", diffuse.clip(0.003, 0.95)),
        ("specular", specular),
        ("roughness", roughness),
        ("normal", slopes),
    )
    textures = {
        name: LaplacianTexture.from_image(torch.from_numpy(np.ascontiguousarray(image, np.float32))[None])
        for name, image in images
    }
    return SkinMaps(**textures, confidence=torch.ones(1, resolution, resolution, 1))


def _tone(angle: float, rng: np.random.Generator) -> Array:
    """L*, a*, b* of plain skin with that typology angle."""
    yellow = np.clip(rng.normal(YELLOW, YELLOW_SD), 9.0, 22.0)
    lightness = np.clip(50.0 + yellow * np.tan(np.radians(np.clip(angle, -62.0, 62.0))), *LIGHTNESS_RANGE)
    red = np.clip(rng.normal(RED, RED_SD), 6.0, 16.0)
    # Dark skin has less room for colour.
    return np.array([lightness, *(np.array([red, yellow]) * np.clip(0.35 + lightness / 70.0, 0.7, 1.0))], np.float32)


def _linear(lab: Array) -> Array:
    """CIELAB (D65) to linear Rec.709, not below 0. [..., 3]"""
    y = (lab[..., 0] + 16.0) / 116.0
    curve = np.stack([y + lab[..., 1] / 500.0, y, y - lab[..., 2] / 200.0], -1)
    xyz = np.where(curve > 6.0 / 29.0, curve**3, (curve - 4.0 / 29.0) * 3.0 * (6.0 / 29.0) ** 2) * _XYZ_WHITE
    return np.maximum(xyz @ _XYZ_TO_RGB.T, 0.0)


def _parts(model: MorphableModel, resolution: int) -> dict[str, Array]:
    """Regions and what lies around them, by diffusion over the mesh. [T, T] each, 0..1"""
    region, rest = model.regions, model.mean
    normals = vertex_normals(rest[None], model.triangles)[0]
    mouth = rest[region["lips"] > 0.5].mean(0)
    # How far a place stands out of its surroundings, along its normal.
    out = ((rest - _diffused(model, rest, 120)) * normals).sum(1)
    below = mouth[1] + 16.0 - rest[:, 1] - 0.35 * rest[:, 0].abs().clamp(min=20.0) + 7.0
    beard = (below / 14.0).clamp(0.0, 1.0) * (rest[:, 2] / 40.0).clamp(0.0, 1.0) * (1.0 - region["lips"])
    columns = {
        "own": region["skin"] + region["lips"] + region["ears"] + region["neck"] + region["scalp"] + region["eyebrows"],
        "plain": region["skin"] * (normals[:, 2] > 0.1),
        "lips": region["lips"],
        "eyebrows": region["eyebrows"],
        "scalp": region["scalp"],
        "ears": region["ears"],
        "eyes": region["eyes"],
        "around_eyes": _spread(model, region["eyes"], 25) * (1.0 - region["eyes"]),
        "rims": _spread(model, region["eyes"], 4) ** 2 * (1.0 - region["eyes"]),
        "around_lips": _spread(model, region["lips"], 25),
        "protruding": ((out - 0.5) / 6.0).clamp(0.0, 1.0) * region["skin"],
        "upper": ((rest[:, 1] - 30.0) / 40.0).clamp(0.0, 1.0),
        "beard": beard * region["skin"],
        "forehead": ((rest[:, 1] - 42.0) / 12.0).clamp(0.0, 1.0)
        * ((normals[:, 2] - 0.3) / 0.4).clamp(0.0, 1.0)
        * region["skin"],
    }
    baked = _baked(model, torch.stack(list(columns.values()), 1)[None].float(), resolution)
    return {name: np.ascontiguousarray(baked[..., number]).clip(0.0, 1.0) for number, name in enumerate(columns)}


def _spread(model: MorphableModel, mask: Tensor, rounds: int) -> Tensor:
    """A mask diffused over the mesh, 1 at its highest."""
    spread = _diffused(model, mask[:, None].float(), rounds)[:, 0]
    return (spread / spread[mask > 0.5].mean()).clamp(0.0, 1.0) ** 0.7


def _diffused(model: MorphableModel, values: Tensor, rounds: int) -> Tensor:
    """Means over neighbours, again and again. [V, C]"""
    start = model.triangles[:, [0, 1, 2]].flatten()
    end = model.triangles[:, [1, 2, 0]].flatten()
    count = torch.zeros(len(values)).index_add(0, start, torch.ones(len(start))).clamp_min(1.0)[:, None]
    for _ in range(rounds):
        values = 0.5 * values + 0.5 * torch.zeros_like(values).index_add(0, start, values[end]) / count
    return values


def _gloss(
    rng: np.random.Generator, parts: dict[str, Array], pores: Array, clouds: Array, lipstick: float, hairs: Array
) -> tuple[Array, Array]:
    """Specular weight and roughness, [T, T, 1] each. A film of sebum raises the one and lowers the other."""
    film = rng.normal(0.0, 0.5) + rng.uniform(0.3, 1.2) * parts["protruding"] + 0.4 * parts["forehead"] + 0.35 * clouds
    film = (
        film + 0.1 * pores - 0.8 * np.clip(hairs, 0.0, 1.0) + (0.8 + lipstick * rng.uniform(-1.0, 1.0)) * parts["lips"]
    )
    specular = 0.38 + 0.5 / (1.0 + np.exp(-film))
    roughness = 0.66 - 0.28 / (1.0 + np.exp(-film + 0.5)) + 0.02 * pores
    wet = parts["eyes"]
    specular, roughness = specular + wet * (1.0 - specular), roughness + wet * (0.15 - roughness)
    return specular[..., None].clip(0.0, 1.0), roughness[..., None].clip(0.12, 1.0)


def _height(
    parts: dict[str, Array], clouds, pores: Array, millimetre: float, age: float, rng: np.random.Generator
) -> Array:  # type: ignore[no-untyped-def]
    """Relief of the skin, mm: pores, bumps, and creases that run across the forehead and around eyes and mouth. [T, T]"""
    height = -0.012 * rng.uniform(0.6, 1.6) * np.abs(pores) + 0.05 * rng.uniform(0.5, 1.5) * clouds(16.0, 2.5, 1.0)
    creases = -(np.abs(clouds(2.5 * _LINES_MM, 0.8 * _LINES_MM, 0.5, 5.0)) ** 0.7)
    height += 0.45 * age * rng.uniform(0.3, 1.4) * parts["forehead"] * creases
    around = np.maximum(parts["around_eyes"], 0.6 * parts["around_lips"])
    fine = -(np.abs(clouds(9.0, 2.5, 0.5, 1.6)) ** 0.7)
    return height + 0.22 * (0.2 + age) * rng.uniform(0.3, 1.2) * around * fine


def _slopes(height: Array, millimetre: float) -> Array:
    """Green up: rows of a map run downwards. [T, T, 2]"""
    down, right = np.gradient(height * millimetre)
    return np.clip(np.stack([-right, down], -1), -0.8, 0.8)


def _baked(model: MorphableModel, attribute: Tensor, resolution: int) -> Array:
    return bake(attribute, model, resolution)[0].numpy()
