"""What the maps stage draws: a head whose shape, pose, light and shadows stay while its skin changes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nextface.fitting.fill import seen_from
from nextface.morphable.model import MorphableModel
from nextface.rendering.backend import rasterizer_for
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import Fragments, fragments
from nextface.rendering.normals import vertex_normals
from nextface.rendering.render import to_view, viewing_directions
from nextface.rendering.shading import incoming, shade
from nextface.rendering.tangents import PixelFrames, pixel_frames
from nextface.rendering.texture import TextureLookup
from nextface.rendering.transport import Shadow, Transport
from nextface.scene import Scene

CHANNELS = {"diffuse": slice(0, 3), "specular": slice(3, 4), "roughness": slice(4, 5), "normal": slice(5, 7)}
"""Of the stacked maps."""
_SEEN = 0.5
"""Sum of pixels' weights from which a texel is seen in full."""


@dataclass(frozen=True)
class Surface:
    """The covered pixels of a scene and all that reaches them; vectors in the view frame.

    to_viewer: unit. [P, 3]; radiance: the light as the photo records it. [B, L, 3]; shadow: None without self-shadowing
    """

    seen: Fragments
    lookup: TextureLookup
    frames: PixelFrames
    to_viewer: Tensor
    radiance: Tensor
    shadow: Shadow | None

    @classmethod
    def of(cls, scene: Scene, model: MorphableModel, resolution: int, self_shadowing: bool) -> Surface:
        """resolution: of the maps"""
        with torch.no_grad():
            camera, radiance = Camera.of(scene), scene.radiance()
            vertices = scene.vertices_camera(model)
            pixels = rasterizer_for(vertices.device).visible_triangles(vertices, model.triangles, camera)
            seen = fragments(vertices, model.triangles, pixels, camera)
            view = to_view(vertices)
            shadow = None
            if self_shadowing:
                transport = Transport.of_head(scene, model)
                rough = model.roughness_mean[None]
                shadow = transport.cast(seen, vertices, scene.head_rotation(), radiance, rough)
            return cls(
                seen=seen,
                lookup=TextureLookup.build(seen, model, resolution, camera, vertices),
                frames=pixel_frames(seen, view, vertex_normals(view, model.triangles), model),
                to_viewer=viewing_directions(pixels, camera),
                radiance=radiance,
                shadow=shadow,
            )

    def facing(self) -> Tensor:
        """n·v of the mesh. [P]"""
        return (self.frames.normal * self.to_viewer).sum(-1)

    def shown(self, weight: Tensor, resolution: int | None = None) -> Tensor:
        """How far the photos showed each texel, 0…1. `[P] -> [B, T, T, 1]`

        weight: how far each pixel counts; resolution: T, the maps' if left out; coarser than the pixels see is not possible
        """
        lookup = self.lookup if resolution is None else replace(self.lookup, resolution=resolution)
        return seen_from(lookup.seen(weight * self.facing().clamp_min(0.0)), _SEEN)

    def incoming(self) -> Tensor:
        """Irradiance on the mesh, shadows included. [P, 3]"""
        return incoming(self.frames.normal, self.radiance, self.seen.pixels.image, self.shadow)

    def shade(self, values: Tensor) -> Tensor:
        """Radiance of the looked-up skin. values: [P, 7] by `CHANNELS` -> [P, 3]"""
        normal = self.frames.bend(values[:, CHANNELS["normal"]])
        diffuse = values[:, CHANNELS["diffuse"]].clamp_min(0.0)
        weight = values[:, CHANNELS["specular"]].clamp(0.0, 1.0)
        roughness = values[:, CHANNELS["roughness"]]
        image = self.seen.pixels.image
        return shade(normal, self.to_viewer, diffuse, weight, roughness, self.radiance, image, self.shadow)
