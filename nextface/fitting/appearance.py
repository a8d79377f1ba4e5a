"""The head as the statistical stage draws it: statistical albedos, packed pixels, gradients to every parameter."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nextface.morphable.model import MorphableModel
from nextface.rendering.antialias import MeshEdges, antialias
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import Fragments, fragments
from nextface.rendering.normals import vertex_normals
from nextface.rendering.raster import Rasterizer
from nextface.rendering.render import to_view
from nextface.rendering.sh import irradiance
from nextface.rendering.shading import shade_diffuse, shade_specular
from nextface.scene import Scene

_DARKEST = 1e-3


class Painter:
    """Draws a model; keeps what depends on the mesh alone."""

    def __init__(self, model: MorphableModel, rasterizer: Rasterizer) -> None:
        self.model = model
        self.rasterizer = rasterizer
        self._edges = MeshEdges.of(model.triangles)

    def draw(self, scene: Scene, camera: Camera, vertices: Tensor) -> tuple[Tensor, Fragments, Tensor]:
        """Draw the statistical head. Shape and pose have gradients through shading and silhouettes, not through albedo that
        slides over the photo: brows, hairline and beard of the statistical skin are not this person's.

        camera: the scene's, or the same on a coarser grid; vertices: of the scene in camera space, [B, V, 3].
        returns: radiance, linear RGB [P, 3]; the fragments; unit normals in the view frame [P, 3]
        """
        model = self.model
        pixels = self.rasterizer.visible_triangles(vertices, model.triangles, camera)
        seen = fragments(vertices, model.triangles, pixels, camera)
        normals = to_view(vertex_normals(vertices, model.triangles))
        albedo = model.diffuse(scene.albedo).expand(scene.batch, -1, -1)
        specular = model.specular(scene.albedo).expand(scene.batch, -1, -1)
        roughness = model.roughness_mean.expand(scene.batch, -1, -1)
        normal = normalize(seen.interpolate(normals), dim=-1)
        held = replace(seen, barycentric=seen.barycentric.detach())
        skin = held.interpolate(torch.cat([albedo, specular, roughness], -1))
        diffuse, weight, rough = skin[:, :3].clamp_min(_DARKEST), skin[:, 3:4].clamp(0.0, 1.0), skin[:, 4:5]
        radiance = scene.radiance()
        to_viewer = -to_view(normalize(camera.rays(pixels.image, pixels.row, pixels.column), dim=-1))
        colour = shade_diffuse(diffuse, irradiance(normal, radiance, pixels.image).clamp_min(0.0))
        colour = colour + shade_specular(normal, to_viewer, weight, rough, radiance, pixels.image)
        return antialias(colour, seen, vertices, camera, self._edges), seen, normal
