"""A scene drawn as images, for export and for looking."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nextface.morphable.model import MorphableModel
from nextface.rendering.camera import Camera
from nextface.rendering.cpu import CpuRasterizer
from nextface.rendering.fragments import fragments
from nextface.rendering.normals import vertex_normals
from nextface.rendering.raster import Rasterizer
from nextface.rendering.sh import irradiance
from nextface.rendering.shading import shade_diffuse
from nextface.scene import Scene

CAMERA_TO_VIEW = (1.0, -1.0, -1.0)


@dataclass(frozen=True)
class Rendering:
    """Images of a scene, linear, top row first; zero outside the mask. `[B, H, W, C]`

    mask:         covered pixels. bool [B, H, W]
    image:        the picture, linear Rec.709 as the photo's exposure records it. C = 3
    diffuse:      diffuse albedo. C = 3
    specular:     Fresnel weight w. C = 1
    roughness:    perceptual roughness r. C = 1
    normal:       unit shading normal in the view frame (x right, y up, z to the viewer). C = 3
    illumination: diffuse shading of a white skin, E/π. C = 3
    """

    mask: Tensor
    image: Tensor
    diffuse: Tensor
    specular: Tensor
    roughness: Tensor
    normal: Tensor
    illumination: Tensor


def to_view(vectors_camera: Tensor) -> Tensor:
    """Camera axes (x right, y down, z forward) to view axes (x right, y up, z to the viewer), or back. `[..., 3]`."""
    return vectors_camera * vectors_camera.new_tensor(CAMERA_TO_VIEW)


def render(
    scene: Scene,
    model: MorphableModel,
    rasterizer: Rasterizer | None = None,
    *,
    radiance: Tensor | None = None,
    maps: bool = True,
) -> Rendering:
    """Draw a scene at `scene.height` × `scene.width`.

    radiance: another light than the scene's own, SH coefficients in the view frame. [B, L, 3]
    maps:     use the scene's skin maps where it has them; False draws the statistical skin.
    """
    camera = Camera.of(scene)
    vertices = scene.vertices_camera(model)
    pixels = (rasterizer or CpuRasterizer()).visible_triangles(vertices, model.triangles, camera)
    covered = fragments(vertices, model.triangles, pixels, camera)
    normal = normalize(covered.interpolate(vertex_normals(to_view(vertices), model.triangles)), dim=-1)
    albedo = scene.albedo.expand(scene.batch, -1)
    diffuse = covered.interpolate(model.diffuse(albedo)).clamp(0.0, 1.0)
    specular = covered.interpolate(model.specular(albedo)).clamp(0.0, 1.0)
    roughness = covered.interpolate(model.roughness_mean[None])
    light = scene.radiance() if radiance is None else radiance
    incoming = irradiance(normal, light, pixels.image).clamp_min(0.0)
    return Rendering(
        mask=pixels.unpack(torch.ones_like(roughness))[..., 0] > 0,
        image=pixels.unpack(shade_diffuse(diffuse, incoming)),
        diffuse=pixels.unpack(diffuse),
        specular=pixels.unpack(specular),
        roughness=pixels.unpack(roughness),
        normal=pixels.unpack(normal),
        illumination=pixels.unpack(incoming / math.pi),
    )
