"""One photo's share of a reconstruction, with what several files need computed once."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from torch import Tensor

from nextface.morphable.model import MorphableModel
from nextface.rendering.normals import vertex_normals
from nextface.rendering.render import Rendering, render, to_view
from nextface.rendering.skin import statistical_maps
from nextface.rendering.transport import Transport
from nextface.scene import Scene


def with_maps(scene: Scene, model: MorphableModel, resolution: int) -> Scene:
    """The same scene with maps: the statistical skin baked to UV where no maps have been fitted. Flat normals, confidence 0."""
    if scene.maps is not None:
        return scene
    return replace(scene, maps=statistical_maps(scene, model, resolution))


class PhotoResult:
    """index: of the photo; scene: of one image, with maps; self_shadowing: draw the shadows that the head casts on itself."""

    def __init__(self, index: int, scene: Scene, model: MorphableModel, self_shadowing: bool = True) -> None:
        self.index = index
        self.scene = scene
        self.model = model
        self.self_shadowing = self_shadowing

    @cached_property
    def transport(self) -> Transport | None:
        """How the head shadows itself, None where it is drawn without shadows."""
        return Transport.of_head(self.scene, self.model) if self.self_shadowing else None

    @cached_property
    def vertices_model(self) -> Tensor:
        """Model axes, mm. [V, 3]"""
        return self.scene.vertices_model(self.model)[0]

    @cached_property
    def normals_model(self) -> Tensor:
        """Unit vectors, model axes. [V, 3]"""
        return vertex_normals(self.vertices_model[None], self.model.triangles)[0]

    @cached_property
    def vertices_camera(self) -> Tensor:
        """Camera axes, mm. [V, 3]"""
        return self.scene.vertices_camera(self.model)[0]

    @cached_property
    def normals_camera(self) -> Tensor:
        """Unit vectors, camera axes. [V, 3]"""
        return to_view(self.normals_model @ self.scene.head_rotation()[0].T)

    @cached_property
    def rendering(self) -> Rendering:
        """The reconstruction as the photo's camera sees it."""
        return render(self.scene, self.model, transport=self.transport)
