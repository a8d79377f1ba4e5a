"""Every parameter's gradient under self-shadowing, against finite differences, while the transport is held fixed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from drawing import SIZE, FrozenRasterizer, doubled, toy_scene
from test_render import PARAMETERS, directional_error
from torch import Tensor

from nextface.rendering.camera import Camera
from nextface.rendering.cpu import CpuRasterizer
from nextface.rendering.render import render
from nextface.rendering.transport import Shadow, ShownTransport, Transport
from nextface.textures import LaplacianTexture


@dataclass(frozen=True)
class HeldTransport(Transport):
    """With every vertex in shadow, and the open share of the specular lobes as it was for one viewer: no gradient passes through
    it. [B, V, 1]"""

    share: Tensor

    def cast(self, seen, vertices_camera, rotation, radiance, roughness):  # type: ignore[no-untyped-def]
        everywhere = torch.ones(self.normals.shape[:2], dtype=torch.bool)
        index = torch.arange(everywhere.shape[1])
        values = seen.interpolate(ShownTransport(everywhere, index, self, self.share).shares(radiance, rotation))
        return Shadow(values[:, :3], values[:, 3:])


@pytest.fixture(scope="module")
def shaded(toy):
    """Model, scene with maps, its frozen visibility, a made-up transport with deep shadows, a random cotangent; double."""
    model = doubled(toy)
    scene = toy_scene(model, batch=2, maps=True)
    pixels = CpuRasterizer().visible_triangles(scene.vertices_camera(model), model.triangles, Camera.of(scene))
    random = torch.Generator().manual_seed(8)
    lost, whole, normals, share = (
        torch.rand(2, len(model.mean), count, generator=random, dtype=torch.float64)
        for count in (scene.light.shape[1], scene.light.shape[1], 3, 1)
    )
    constant = (torch.arange(lost.shape[2]) == 0).double()
    change, whole = 0.05 * (lost - 0.5) - 0.4 * constant, 0.05 * (whole - 0.5) + constant
    transport = HeldTransport(change, whole, lost, normals, share)
    cotangent = torch.randn(2, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return model, scene, FrozenRasterizer(pixels), transport, cotangent


@pytest.mark.grad
@pytest.mark.parametrize("name", PARAMETERS)
def test_gradient_of_every_parameter(shaded, name: str):
    model, scene, rasterizer, transport, cotangent = shaded

    def value(parameter: Tensor) -> Tensor:
        drawn = render(replace(scene, **{name: parameter}), model, rasterizer, transport=transport, maps=False)
        return (drawn.image * cotangent).sum()

    assert directional_error(value, getattr(scene, name), seed=PARAMETERS.index(name)) < 1e-4


@pytest.mark.grad
@pytest.mark.parametrize("name", ["diffuse", "specular", "roughness", "normal"])
def test_gradient_of_every_map(shaded, name: str):
    model, scene, rasterizer, transport, cotangent = shaded
    texture = getattr(scene.maps, name)

    def value(texels: Tensor) -> Tensor:
        maps = replace(scene.maps, **{name: LaplacianTexture([*texture.levels[:-1], texels])})
        return (render(replace(scene, maps=maps), model, rasterizer, transport=transport).image * cotangent).sum()

    assert directional_error(value, texture.levels[-1], seed=3) < 1e-4
