"""Skin that the statistical model does not span: freckles, moles, mottling, pores, and a gloss of its own per person."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from nextface.morphable.model import MorphableModel
from nextface.rendering.bake import bake
from nextface.textures import LaplacianTexture, SkinMaps

Array = NDArray[np.float32]

MELANIN = np.array([0.4, 0.63, 1.1], np.float32)
"""Absorption of melanin in red, green and blue relative to one another: λ^-3.48 (Jacques 2013) at 620, 545 and 465 nm."""
HAEMOGLOBIN = np.array([0.12, 1.0, 0.75], np.float32)
"""The same for blood, mostly oxygenated, read off its absorption spectrum at the same wavelengths."""


def person_maps(model: MorphableModel, albedo: Tensor, resolution: int, rng: np.random.Generator) -> SkinMaps:
    """The statistical skin of `albedo` [1, Ka] with one person's own detail on it, at `resolution`²."""
    diffuse = _baked(model, model.diffuse(albedo), resolution)
    specular = _baked(model, model.specular(albedo), resolution)
    roughness = _baked(model, model.roughness_mean[None], resolution)
    skin = _baked(model, (model.regions["skin"] + model.regions["lips"])[None, :, None], resolution)[..., 0]
    skin = np.clip(skin, 0.0, 1.0)
    millimetre = texels_per_millimetre(model, resolution)
    absorbed = _mottling(rng, resolution, millimetre)
    absorbed = absorbed + _spots(rng, skin, millimetre)[..., None] * MELANIN
    diffuse = np.clip(diffuse * np.exp(-absorbed * skin[..., None]), 0.002, 0.95)
    gloss = 1.0 + 0.12 * rng.standard_normal() + 0.10 * _noise(rng, resolution, 12.0 * millimetre)
    specular = np.clip(specular * gloss[..., None], 0.0, 1.0)
    rough = 0.05 * rng.standard_normal() + 0.04 * _noise(rng, resolution, 12.0 * millimetre)
    roughness = np.clip(roughness + (rough * skin)[..., None], 0.15, 0.9)
    slopes = _relief(rng, resolution, millimetre) * skin[..., None]
    textures = {
        name: LaplacianTexture.from_image(torch.from_numpy(np.ascontiguousarray(image, np.float32))[None])
        for name, image in (("diffuse", diffuse), ("specular", specular), ("roughness", roughness), ("normal", slopes))
    }
    return SkinMaps(**textures, confidence=torch.ones(1, resolution, resolution, 1))


def texels_per_millimetre(model: MorphableModel, resolution: int) -> float:
    """Mean scale of the unwrap on the face's skin."""
    corners, flat = model.mean[model.triangles], model.uv[model.uv_triangles]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    sides = flat[:, 1:] - flat[:, :1]
    flat_area = (sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]).abs()
    skin = model.regions["skin"][model.triangles].mean(1) > 0.5
    return float((flat_area[skin].sum() / area[skin].sum()).sqrt()) * resolution


def _baked(model: MorphableModel, attribute: Tensor, resolution: int) -> Array:
    return bake(attribute, model, resolution)[0].numpy()


def _noise(rng: np.random.Generator, resolution: int, width: float) -> Array:
    """Gaussian-filtered noise of unit variance whose features are about `width` texels wide."""
    coarse = max(16, min(resolution, int(resolution * 4.0 / max(width, 4.0))))
    field = gaussian_filter(rng.standard_normal((coarse, coarse)), width * coarse / resolution / 2.0, mode="reflect")
    field = field / max(field.std(), 1e-6)
    grown = torch.nn.functional.interpolate(
        torch.from_numpy(field.astype(np.float32))[None, None], (resolution, resolution), mode="bicubic"
    )
    return grown[0, 0].numpy()


def _mottling(rng: np.random.Generator, resolution: int, millimetre: float) -> Array:
    """Low-contrast blotches of blood and melanin at three sizes, as log absorption. [T, T, 3]"""
    total = np.zeros((resolution, resolution, 3), np.float32)
    for width, strength in ((3.0, 0.015), (8.0, 0.025), (25.0, 0.045)):
        for pigment in (MELANIN, HAEMOGLOBIN):
            total += strength * _noise(rng, resolution, width * millimetre)[..., None] * pigment
    return total


def _spots(rng: np.random.Generator, skin: Array, millimetre: float) -> Array:
    """Freckles and a few moles, as optical depth. [T, T]"""
    depth = np.zeros_like(skin)
    rows, columns = np.nonzero(skin > 0.9)
    freckled = rng.random() < 0.4
    kinds = [
        (int(rng.integers(150, 500)) if freckled else 10, (0.5, 1.2), (0.15, 0.5)),
        (int(rng.integers(2, 9)), (0.8, 2.0), (0.8, 1.6)),
    ]
    for count, sizes, strengths in kinds:
        for place in rng.integers(0, len(rows), count):
            radius = rng.uniform(*sizes) * millimetre
            reach = int(np.ceil(2.5 * radius))
            window = (
                slice(max(0, rows[place] - reach), rows[place] + reach + 1),
                slice(max(0, columns[place] - reach), columns[place] + reach + 1),
            )
            y, x = np.mgrid[window]
            squared = (y - rows[place]) ** 2 + (x - columns[place]) ** 2
            depth[window] += rng.uniform(*strengths) * np.exp(
                -((squared[: depth[window].shape[0], : depth[window].shape[1]] / radius**2) ** 2)
            )
    return depth


def _relief(rng: np.random.Generator, resolution: int, millimetre: float) -> Array:
    """Slopes of pores and of shallow bumps. [T, T, 2]"""
    slopes = np.zeros((resolution, resolution, 2), np.float32)
    for width, strength in ((1.0, 0.04), (5.0, 0.025)):
        height = _noise(rng, resolution, width * millimetre)
        gradient = np.stack([-np.gradient(height, axis=1), np.gradient(height, axis=0)], -1)
        slopes += strength * gradient / max(float(gradient.std()), 1e-6)
    return slopes
