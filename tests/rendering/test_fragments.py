from __future__ import annotations

import pytest
import torch
from drawing import doubled, toy_scene
from torch.autograd import gradcheck

from nextface.rendering.camera import Camera
from nextface.rendering.cpu import CpuRasterizer
from nextface.rendering.fragments import (
    barycentrics,
    barycentrics_torch,
    fragments,
    interpolate,
    interpolate_torch,
)
from nextface.rendering.raster import VisiblePixels


@pytest.fixture(scope="module")
def seen(toy):
    model = doubled(toy)
    scene = toy_scene(model, batch=2)
    camera, vertices = Camera.of(scene), scene.vertices_camera(model)
    return model, camera, vertices, CpuRasterizer().visible_triangles(vertices, model.triangles, camera)


def thinned(pixels: VisiblePixels, every: int) -> VisiblePixels:
    parts = (pixels.image, pixels.row, pixels.column, pixels.triangle, pixels.neighbours)
    return VisiblePixels(*(part[::every] for part in parts), pixels.batch, pixels.height, pixels.width)


def test_interpolated_position_projects_to_its_pixel_centre(seen):
    model, camera, vertices, pixels = seen
    covered = fragments(vertices, model.triangles, pixels, camera)
    assert covered.barycentric.sum(1).allclose(torch.ones(len(covered), dtype=torch.float64))
    points = covered.interpolate(vertices)
    focal, principal = camera.focal[pixels.image, None], camera.principal[pixels.image]
    screen = focal * points[:, :2] / points[:, 2:] + principal
    centre = torch.stack([pixels.column, pixels.row], 1) + 0.5
    torch.testing.assert_close(screen, centre.double(), atol=1e-9, rtol=0)


def test_weights_of_covered_pixels_are_inside_up_to_the_snapping(seen):
    model, camera, vertices, pixels = seen
    weights = fragments(vertices, model.triangles, pixels, camera).barycentric
    assert weights.min() > -0.05


def test_single_precision_is_enough(seen):
    model, camera, vertices, pixels = seen
    single = Camera(camera.focal.float(), camera.principal.float(), camera.height, camera.width)
    exact = fragments(vertices, model.triangles, pixels, camera).barycentric
    rounded = fragments(vertices.float(), model.triangles, pixels, single).barycentric
    assert (rounded - exact).abs().median() < 1e-5
    assert (rounded - exact).abs().quantile(0.99) < 1e-3


def test_barycentrics_gradcheck(seen):
    model, camera, vertices, pixels = seen
    some = thinned(pixels, 97)
    corners = model.triangles[some.triangle]
    used = corners.unique()
    local = torch.searchsorted(used, corners)

    def run(points, focal, principal):
        return barycentrics(points, local, some, Camera(focal, principal, camera.height, camera.width))

    inputs = (vertices[:, used], camera.focal.clone(), camera.principal.clone())
    assert gradcheck(run, [part.detach().requires_grad_() for part in inputs])


@pytest.mark.parametrize("shared", [True, False])
def test_interpolate_gradcheck_and_twin(shared):
    random = torch.Generator().manual_seed(0)
    attributes = torch.randn(1 if shared else 2, 7, 4, generator=random, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(9, 3, generator=random, dtype=torch.float64, requires_grad=True)
    corners = torch.randint(0, 7, (9, 3), generator=random)
    image = torch.tensor([0] * 4 + [1] * 5)
    fast, slow = (
        interpolate(attributes, image, corners, weights),
        interpolate_torch(attributes, image, corners, weights),
    )
    torch.testing.assert_close(fast, slow)
    assert gradcheck(lambda a, w: interpolate(a, image, corners, w), (attributes, weights))


def test_barycentrics_twin(seen):
    model, camera, vertices, pixels = seen
    corners = model.triangles[pixels.triangle]
    inputs = [part.detach().clone().requires_grad_() for part in (vertices, camera.focal, camera.principal)]
    view = Camera(inputs[1], inputs[2], camera.height, camera.width)
    fast, slow = barycentrics(inputs[0], corners, pixels, view), barycentrics_torch(inputs[0], corners, pixels, view)
    torch.testing.assert_close(fast, slow)
    cotangent = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1), dtype=fast.dtype)
    for ours, twin in zip(*(torch.autograd.grad(out, inputs, cotangent) for out in (fast, slow)), strict=True):
        torch.testing.assert_close(ours, twin, rtol=1e-6, atol=1e-6 * twin.abs().max().item())
