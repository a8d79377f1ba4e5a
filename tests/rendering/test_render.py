from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from drawing import SIZE, FrozenRasterizer, doubled, toy_scene
from torch import Tensor
from torch.nn.functional import normalize

from nextface.rendering.antialias import MeshEdges, antialias
from nextface.rendering.camera import Camera
from nextface.rendering.cpu import CpuRasterizer
from nextface.rendering.fragments import fragments
from nextface.rendering.render import render
from nextface.textures import LaplacianTexture

PARAMETERS = (
    "shape",
    "albedo",
    "expression",
    "rotation",
    "translation",
    "focal",
    "principal",
    "light",
    "exposure",
    "white_balance",
)


def directional_error(value, start: Tensor, seed: int, step: float = 1e-6) -> float:
    """Relative difference of autograd's and the central difference's derivative along a random direction."""
    direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    direction = direction / direction.norm()
    leaf = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    with torch.no_grad():
        difference = (value(start + step * direction) - value(start - step * direction)) / (2 * step)
    exact = (gradient * direction).sum()
    assert difference.abs() > 1e-9
    return float((exact - difference).abs() / difference.abs())


@pytest.fixture(scope="module")
def frozen(toy):
    """Model, scene with maps, scene without, a rasterizer that holds their visibility, a random cotangent."""
    model = doubled(toy)
    scene = toy_scene(model, batch=2, maps=True)
    pixels = CpuRasterizer().visible_triangles(scene.vertices_camera(model), model.triangles, Camera.of(scene))
    cotangent = torch.randn(2, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return model, scene, FrozenRasterizer(pixels), cotangent


@pytest.mark.grad
@pytest.mark.parametrize("name", PARAMETERS)
def test_gradient_of_every_parameter(frozen, name: str):
    model, scene, rasterizer, cotangent = frozen
    start = getattr(scene, name)

    def value(parameter: Tensor) -> Tensor:
        drawn = render(replace(scene, **{name: parameter}), model, rasterizer, maps=False)
        return (drawn.image * cotangent).sum()

    assert directional_error(value, start, seed=PARAMETERS.index(name)) < 1e-4


@pytest.mark.grad
@pytest.mark.parametrize("name", ["diffuse", "specular", "roughness", "normal"])
@pytest.mark.parametrize("level", [0, 2])
def test_gradient_of_every_map(frozen, name: str, level: int):
    model, scene, rasterizer, cotangent = frozen
    texture = getattr(scene.maps, name)

    def value(texels: Tensor) -> Tensor:
        levels = [*texture.levels[:level], texels, *texture.levels[level + 1 :]]
        maps = replace(scene.maps, **{name: LaplacianTexture(levels)})
        return (render(replace(scene, maps=maps), model, rasterizer).image * cotangent).sum()

    assert directional_error(value, texture.levels[level], seed=level) < 1e-4


def test_rendering_is_complete_and_zero_outside(toy):
    scene = toy_scene(toy, batch=2, maps=True)
    drawn = render(scene, toy)
    assert drawn.mask.shape == (2, SIZE, SIZE) and drawn.mask.float().mean() > 0.15
    for name, channels in {
        "image": 3,
        "diffuse": 3,
        "specular": 1,
        "roughness": 1,
        "normal": 3,
        "illumination": 3,
    }.items():
        image = getattr(drawn, name)
        assert image.shape == (2, SIZE, SIZE, channels)
        assert torch.isfinite(image).all()
        assert (image[~drawn.mask] == 0).all()
    torch.testing.assert_close(drawn.normal[drawn.mask].norm(dim=-1), torch.ones(int(drawn.mask.sum())))


def test_a_head_out_of_view_gives_an_empty_picture(toy):
    scene = replace(toy_scene(toy, maps=True), translation=torch.tensor([[9000.0, 0.0, 600.0]]))
    drawn = render(scene, toy)
    assert not drawn.mask.any() and (drawn.image == 0).all()


def test_same_input_gives_the_same_bytes(toy):
    def gradient() -> Tensor:
        scene = toy_scene(toy, batch=2, maps=True)
        level = scene.maps.diffuse.levels[-1].requires_grad_()
        scene.shape.requires_grad_()
        image = render(scene, toy).image
        image.square().sum().backward()
        return torch.cat([image.detach().ravel(), level.grad.ravel(), scene.shape.grad.ravel()])

    assert torch.equal(gradient(), gradient())


def test_batch_equals_one_by_one(toy):
    scene = toy_scene(toy, batch=3)
    together = render(scene, toy).image
    for index in range(3):
        single = replace(scene, **{name: getattr(scene, name)[index : index + 1] for name in PARAMETERS})
        torch.testing.assert_close(render(single, toy).image[0], together[index], atol=1e-5, rtol=1e-5)


def test_white_furnace(toy):
    """White skin without specular under a constant light of 1 shines at 1 everywhere."""
    scene = toy_scene(toy, maps=True)
    scene.maps.diffuse = LaplacianTexture.constant(torch.ones(1, 3), 64)
    scene.maps.specular = LaplacianTexture.constant(torch.zeros(1, 1), 64)
    constant = torch.zeros(1, 81, 3)
    constant[:, 0] = math.sqrt(4 * math.pi)
    drawn = render(scene, toy, radiance=constant)
    assert (drawn.image[drawn.mask] - 1).abs().max() < 1e-4
    assert (drawn.illumination[drawn.mask] - 1).abs().max() < 1e-4


def test_light_from_the_right_brightens_the_right(toy):
    scene = replace(toy_scene(toy), rotation=torch.zeros(1, 3))
    light = torch.zeros(1, 9, 3)
    light[:, 0], light[:, 3] = 2.0, 1.0  # band 1: y, z, x
    drawn = render(scene, toy, radiance=light).illumination[0].mean(-1)
    assert drawn[:, SIZE // 2 :].sum() > 1.2 * drawn[:, : SIZE // 2].sum()


def test_other_size_draws_the_same_picture(toy):
    scene = toy_scene(toy)
    large = replace(scene, height=4 * SIZE, width=4 * SIZE, focal=scene.focal * 4, principal=scene.principal * 4)
    small, big = render(scene, toy).image, render(large, toy).image
    reduced = torch.nn.functional.avg_pool2d(big.permute(0, 3, 1, 2), 4).permute(0, 2, 3, 1)
    both = (render(scene, toy).mask) & (reduced.amin(-1) > 0.02)
    assert (small - reduced)[both].abs().median() < 0.01


def two_squares(shift: float) -> tuple[Tensor, Tensor, Camera]:
    """A near square whose right edge lies at x = 8 + shift in front of a far one that fills a 16 × 16 image."""
    near, far = 100.0, 200.0
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    front = torch.cat([corners * torch.tensor([8.0, 16.0]), torch.ones(4, 1)], 1).double()
    front[1:3, 0] += shift
    back = torch.cat([corners * 16.0, torch.ones(4, 1)], 1).double()
    camera = Camera(torch.ones(1, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64), 16, 16)
    return (
        torch.cat([front * near, back * far])[None],
        torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]]),
        camera,
    )


@pytest.mark.parametrize("shift", [-0.4, -0.2, 0.2, 0.4])
def test_antialias_is_the_exact_coverage_of_a_vertical_edge(shift: float):
    vertices, triangles, camera = two_squares(shift)
    vertices.requires_grad_()
    pixels = CpuRasterizer().visible_triangles(vertices, triangles, camera)
    covered = fragments(vertices, triangles, pixels, camera)
    colours = (pixels.triangle < 2).double()[:, None]
    image = pixels.unpack(antialias(colours, covered, vertices, camera, MeshEdges.of(triangles)))[0, ..., 0]
    torch.testing.assert_close(image.sum(1), torch.full((16,), 8.0 + shift, dtype=torch.float64))
    image.sum().backward()
    by_x = vertices.grad[0, 1:3, 0].sum() * 100.0  # both corners move the edge by one pixel
    assert float(by_x) == pytest.approx(16.0, rel=1e-6)


def test_antialias_leaves_smooth_surfaces_and_the_outer_contour_alone(toy):
    model = doubled(toy)
    convex = replace(model, mean=normalize(model.mean, dim=-1) * 90.0)
    scene = toy_scene(convex)
    scene = replace(scene, shape=0 * scene.shape, expression=0 * scene.expression)
    camera, vertices = Camera.of(scene), scene.vertices_camera(convex)
    pixels = CpuRasterizer().visible_triangles(vertices, convex.triangles, camera)
    covered = fragments(vertices, convex.triangles, pixels, camera)
    colours = torch.rand(len(pixels), 3, dtype=torch.float64)
    found = antialias(colours, covered, vertices, camera, MeshEdges.of(convex.triangles))
    assert ((found != colours).any(1)).float().mean() < 0.03
