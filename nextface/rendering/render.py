"""A scene drawn as images, for export and for looking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nextface.constants import constant
from nextface.morphable.model import MorphableModel
from nextface.rendering.antialias import MeshEdges, antialias
from nextface.rendering.backend import rasterizer_for
from nextface.rendering.camera import CAMERA_TO_VIEW, Camera
from nextface.rendering.fragments import fragments
from nextface.rendering.normals import vertex_normals
from nextface.rendering.raster import Rasterizer, VisiblePixels
from nextface.rendering.shading import incoming, shade
from nextface.rendering.tangents import pixel_frames
from nextface.rendering.texture import TextureLookup
from nextface.rendering.transport import Transport
from nextface.scene import Scene


@dataclass(frozen=True)
class Rendering:
    """Images of a scene, linear, top row first; zero outside the mask. `[B, H, W, C]`

    mask:         covered pixels. bool [B, H, W]
    image:        the picture, linear Rec.709 as the photo's exposure records it. C = 3
    diffuse:      diffuse albedo. C = 3
    specular:     Fresnel weight w. C = 1
    roughness:    perceptual roughness r. C = 1
    normal:       unit shading normal in the view frame (x right, y up, z to the viewer). C = 3
    illumination: diffuse shading of a white skin, shadows included, E/π. C = 3
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
    return vectors_camera * constant(CAMERA_TO_VIEW, vectors_camera)


def viewing_directions(pixels: VisiblePixels, camera: Camera) -> Tensor:
    """Unit directions from the surface to the camera, view frame. `[P, 3]`."""
    return normalize(-to_view(camera.rays(pixels.image, pixels.row, pixels.column)), dim=-1)


def render(
    scene: Scene,
    model: MorphableModel,
    rasterizer: Rasterizer | None = None,
    *,
    radiance: Tensor | None = None,
    transport: Transport | None = None,
    maps: bool = True,
) -> Rendering:
    """Draw a scene at `scene.height` × `scene.width`.

    radiance: another light than the scene's own, SH coefficients in the view frame. [B, L, 3]
    transport: the head's self-shadowing, none if left out
    maps:     use the scene's skin maps where it has them; False draws the statistical skin.
    """
    light = scene.radiance() if radiance is None else radiance
    return render_under([light], scene, model, rasterizer, transport=transport, maps=maps)[0]


def render_under(
    lights: Sequence[Tensor],
    scene: Scene,
    model: MorphableModel,
    rasterizer: Rasterizer | None = None,
    *,
    transport: Transport | None = None,
    maps: bool = True,
) -> list[Rendering]:
    """`render` under each of several lights; what does not depend on the light is computed once. lights: [B, L, 3] each"""
    camera = Camera.of(scene)
    vertices = scene.vertices_camera(model)
    pixels = (rasterizer or rasterizer_for(vertices.device)).visible_triangles(vertices, model.triangles, camera)
    covered = fragments(vertices, model.triangles, pixels, camera)
    vertices_view = to_view(vertices)
    normals = vertex_normals(vertices_view, model.triangles)
    if maps and scene.maps is not None:
        lookup = TextureLookup.build(covered, model, scene.maps.diffuse.resolution, camera, vertices)
        skin = {name: lookup.lookup(texture) for name, texture in scene.maps.textures().items()}
        normal = pixel_frames(covered, vertices_view, normals, model).bend(skin["normal"])
        diffuse, specular, roughness = skin["diffuse"], skin["specular"], skin["roughness"]
    else:
        normal = normalize(covered.interpolate(normals), dim=-1)
        albedo = scene.albedo.expand(scene.batch, -1)
        diffuse, specular = covered.interpolate(model.diffuse(albedo)), covered.interpolate(model.specular(albedo))
        roughness = covered.interpolate(model.roughness_mean[None])
    diffuse, specular, roughness = diffuse.clamp(0.0, 1.0), specular.clamp(0.0, 1.0), roughness.clamp(0.05, 1.0)
    to_viewer = viewing_directions(pixels, camera)
    rotation = scene.head_rotation()
    rough = model.roughness_mean[None]
    mask = pixels.unpack(torch.ones_like(roughness))[..., 0] > 0
    surface = {"diffuse": diffuse, "specular": specular, "roughness": roughness, "normal": normal}
    images = {name: pixels.unpack(part) for name, part in surface.items()}
    drawings = []
    for light in lights:
        shadow = None if transport is None else transport.cast(covered, vertices, rotation, light, rough)
        colours = shade(normal, to_viewer, diffuse, specular, roughness, light, pixels.image, shadow)
        colours = antialias(colours, covered, vertices, camera, MeshEdges.of(model.triangles))
        illumination = pixels.unpack(incoming(normal, light, pixels.image, shadow) / math.pi)
        drawings.append(Rendering(mask, pixels.unpack(colours), illumination=illumination, **images))
    return drawings
