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
from nextface.rendering.render import to_view, viewing_directions
from nextface.rendering.shading import shade
from nextface.rendering.transport import COARSE_DIRECTIONS, Shadow, ShownTransport, Transport, viewers
from nextface.scene import Scene

_DARKEST = 1e-3
_MOVED = 0.5
"""mm that a vertex may move before the self-shadowing is computed again."""


class Painter:
    """Draws a model; keeps what depends on the mesh alone, and the self-shadowing of the last shape that it was told of."""

    def __init__(self, model: MorphableModel, rasterizer: Rasterizer) -> None:
        self.model = model
        self.rasterizer = rasterizer
        self._edges = MeshEdges.of(model.triangles)
        self._shaded = Tensor()
        self._transport: Transport | None = None
        self._shown: ShownTransport | None = None

    def update_shadows(self, scene: Scene) -> None:
        """Draw with the self-shadowing of the scene's shape from now on. It is constant in shape and viewpoint until the next
        call, and follows the light and the head's rotation."""
        with torch.no_grad():
            model = self.model
            vertices = scene.vertices_model(model)
            if self._transport is None:
                self._shaded = vertices
                self._transport = Transport.of_head(scene, model, COARSE_DIRECTIONS)
            moved = (vertices - self._shaded).abs().amax((1, 2)) > _MOVED
            if bool(moved.any()):
                self._shaded = torch.where(moved[:, None, None], vertices, self._shaded)
                self._transport = self._transport.renewed(moved, Transport.of_head(scene, model, COARSE_DIRECTIONS))
            toward = viewers(scene.vertices_camera(model), scene.head_rotation())
            self._shown = ShownTransport.of(self._transport, toward, model.roughness_mean[None])

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
        radiance = scene.radiance()
        attributes = [albedo, specular, roughness]
        if self._shown is not None:
            attributes.append(self._shown.shares(radiance, scene.head_rotation()))
        held = replace(seen, barycentric=seen.barycentric.detach())
        skin = held.interpolate(torch.cat(attributes, -1))
        diffuse, weight, rough = skin[:, :3].clamp_min(_DARKEST), skin[:, 3:4].clamp(0.0, 1.0), skin[:, 4:5]
        shadow = None if self._shown is None else Shadow(skin[:, 5:8], skin[:, 8:])
        to_viewer = viewing_directions(pixels, camera)
        colour = shade(normal, to_viewer, diffuse, weight, rough, radiance, pixels.image, shadow)
        return antialias(colour, seen, vertices, camera, self._edges), seen, normal
