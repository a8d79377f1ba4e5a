"""The search for silhouettes that cross pixel pairs: compiled and in plain torch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from drawing import toy_scene
from torch import Tensor

from nextface.morphable.model import MorphableModel
from nextface.rendering.antialias import MeshEdges, _crossings, antialias
from nextface.rendering.camera import Camera
from nextface.rendering.cpu import CpuRasterizer
from nextface.rendering.fragments import Fragments, fragments
from nextface.rendering.jit import plain_torch


@pytest.fixture(scope="module", params=["heads", "shards"])
def drawn(request: pytest.FixtureRequest, toy: MorphableModel) -> tuple[Fragments, Tensor, Camera, MeshEdges]:
    """Two turned heads, whose noses stand before their cheeks; two heaps of loose triangles, partly outside the picture."""
    if request.param == "heads":
        scene = toy_scene(toy, batch=2)
        scene = replace(scene, rotation=torch.tensor([[0.2, 0.9, 0.1], [-0.3, -1.1, 0.0]]))
        vertices, triangles, camera = scene.vertices_camera(toy), toy.triangles, Camera.of(scene)
    else:
        random = torch.Generator().manual_seed(2)
        places = torch.rand(2, 120, 3, generator=random) * torch.tensor([60.0, 60.0, 60.0])
        vertices = places + torch.tensor([-30.0, -30.0, 100.0])
        triangles = torch.arange(120).reshape(-1, 3)
        camera = Camera(torch.tensor([90.0, 80.0]), torch.tensor([[20.3, 21.2], [15.0, 30.0]]), 40, 45)
    pixels = CpuRasterizer().visible_triangles(vertices, triangles, camera)
    return fragments(vertices, triangles, pixels, camera), vertices, camera, MeshEdges.of(triangles)


def test_twin_finds_the_same_crossings(drawn: tuple[Fragments, Tensor, Camera, MeshEdges]):
    compiled = torch.stack(_crossings(*drawn), 1)
    with plain_torch():
        plain = torch.stack(_crossings(*drawn), 1)
    assert len(compiled) > 10 and {0, 1} == set(compiled[:, 3].tolist())
    assert sorted(compiled.tolist()) == sorted(plain.tolist())


def test_twin_has_the_same_values_and_gradients(drawn: tuple[Fragments, Tensor, Camera, MeshEdges]):
    covered, vertices, camera, edges = drawn
    random = torch.Generator().manual_seed(5)
    colours, cotangent = (torch.rand(len(covered), 3, generator=random) for _ in range(2))

    def run() -> list[Tensor]:
        leaves = [part.clone().requires_grad_(True) for part in (colours, vertices, camera.focal, camera.principal)]
        view = replace(camera, focal=leaves[2], principal=leaves[3])
        blended = antialias(leaves[0], covered, leaves[1], view, edges)
        return [blended.detach(), *torch.autograd.grad((blended * cotangent).sum(), leaves)]

    compiled = run()
    with plain_torch():
        plain = run()
    assert not torch.equal(compiled[0], colours)
    for one, other in zip(compiled, plain, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_nothing_to_cross(toy: MorphableModel):
    """A flat square has no silhouette within its picture."""
    vertices = torch.tensor([[[-9.0, -9.0, 10.0], [9.0, -9.0, 10.0], [9.0, 9.0, 10.0], [-9.0, 9.0, 10.0]]])
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3]])
    camera = Camera(torch.tensor([10.0]), torch.full((1, 2), 5.0), 10, 10)
    pixels = CpuRasterizer().visible_triangles(vertices, triangles, camera)
    arguments = (fragments(vertices, triangles, pixels, camera), vertices, camera, MeshEdges.of(triangles))
    with plain_torch():
        assert all(len(part) == 0 for part in _crossings(*arguments))
