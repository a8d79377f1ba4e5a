"""The skin maps that the statistical model implies."""

from __future__ import annotations

import torch

from nextface.morphable.model import MorphableModel
from nextface.rendering.bake import bake
from nextface.scene import Scene
from nextface.textures import LaplacianTexture, SkinMaps


def statistical_maps(scene: Scene, model: MorphableModel, resolution: int) -> SkinMaps:
    """Per-vertex albedos baked to UV, flat normals, confidence 0. One row per identity."""
    count = scene.albedo.shape[0]
    roughness = model.roughness_mean[None].expand(count, -1, -1)
    skin = torch.cat([model.diffuse(scene.albedo), model.specular(scene.albedo), roughness], -1).clamp(0.0, 1.0)
    baked = bake(skin, model, resolution)
    return SkinMaps(
        diffuse=LaplacianTexture.from_image(baked[..., :3]),
        specular=LaplacianTexture.from_image(baked[..., 3:4]),
        roughness=LaplacianTexture.from_image(baked[..., 4:5]),
        normal=LaplacianTexture.constant(baked.new_zeros(count, 2), resolution),
        confidence=baked.new_zeros(count, resolution, resolution, 1),
    )
