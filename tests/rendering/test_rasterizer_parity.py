"""Every rasterizer against one obvious reference, and against one another through the shared shading."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import nvdiffrast_double
import pytest
import torch
from drawing import toy_scene
from torch import Tensor

from nextface import gpu
from nextface.errors import MissingPackageError
from nextface.morphable.model import MorphableModel
from nextface.rendering import cuda
from nextface.rendering.backend import rasterizer_for
from nextface.rendering.camera import Camera
from nextface.rendering.cpu import NEAR, CpuRasterizer
from nextface.rendering.cuda import NvdiffrastRasterizer
from nextface.rendering.raster import Rasterizer, VisiblePixels
from nextface.rendering.render import render
from nextface.scene import Scene

SNAP = {"cpu": 1.0 / 256.0, "nvdiffrast stand-in": 1.0 / 16.0, "cuda": 1.0 / 16.0}
"""Pixels to which each rasterizer rounds the corners."""


@dataclass(frozen=True)
class BackEnd:
    """A rasterizer, the device that it draws on and the pixels by which a corner may be off."""

    rasterizer: Rasterizer
    device: str
    slack: float

    def visible(self, vertices: Tensor, triangles: Tensor, camera: Camera) -> VisiblePixels:
        moved = replace(camera, focal=camera.focal.to(self.device), principal=camera.principal.to(self.device))
        pixels = self.rasterizer.visible_triangles(vertices.to(self.device), triangles.to(self.device), moved)
        parts = {name: getattr(pixels, name) for name in ("image", "row", "column", "triangle", "neighbours")}
        assert all(part.device.type == self.device and part.dtype == torch.int64 for part in parts.values())
        return replace(pixels, **{name: part.cpu() for name, part in parts.items()})


@pytest.fixture(params=list(SNAP))
def back_end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> BackEnd:
    slack = 0.75 * SNAP[request.param]
    if request.param == "cpu":
        return BackEnd(CpuRasterizer(), "cpu", slack)
    if request.param == "cuda":
        if gpu.missing():
            pytest.skip(gpu.missing())
        return BackEnd(NvdiffrastRasterizer(torch.device("cuda", 0)), "cuda", slack)
    nvdiffrast_double.install(monkeypatch)
    return BackEnd(NvdiffrastRasterizer(torch.device("cpu")), "cpu", slack)


def accepted(vertices: Tensor, triangles: Tensor, camera: Camera, slack: float) -> tuple[Tensor, Tensor]:
    """The reference: every triangle against every pixel centre in double precision. One image.

    Which triangles a rasterizer may report when its corners are off by `slack` pixels, [T, H·W], and whether it may report
    none, [H·W]: those that come within `slack` of the centre and are not surely behind another one that surely covers it.
    """
    vertices = vertices.double()
    camera = replace(camera, focal=camera.focal.double(), principal=camera.principal.double())
    corner = camera.project(vertices[None])[0][triangles]
    inverse = 1.0 / vertices[triangles][..., 2]
    drawn = (vertices[triangles][..., 2] >= NEAR).all(1)
    row, column = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
    centre = torch.stack([column + 0.5, row + 0.5], -1).flatten(0, 1).double()
    edge = corner.roll(-1, 1) - corner
    offset = centre[None, None] - corner[:, :, None]
    cross = edge[:, :, None, 0] * offset[..., 1] - edge[:, :, None, 1] * offset[..., 0]
    area = (edge[:, 0, 0] * edge[:, 1, 1] - edge[:, 0, 1] * edge[:, 1, 0])[:, None]
    distance = (cross * area.sign()[:, None] / edge.norm(dim=-1)[..., None]).amin(1)
    # 1/z is linear on the screen: its value at the centre, and what it changes over the slack.
    share = cross.roll(-1, 1) / torch.where(area == 0, 1.0, area)[:, None]
    depth = (share * inverse[..., None]).sum(1)
    rise, other = inverse[:, 1] - inverse[:, 0], inverse[:, 2] - inverse[:, 0]
    slope_x = (rise * -edge[:, 2, 1] - other * edge[:, 0, 1]) / area[:, 0]
    slope_y = (other * edge[:, 0, 0] - rise * -edge[:, 2, 0]) / area[:, 0]
    doubt = 2.0 * slack * (slope_x**2 + slope_y**2).sqrt()[:, None] + 1e-6 * depth.abs()
    within = drawn[:, None] & (area != 0)
    surely = within & (distance > slack)
    nearest_sure = torch.where(surely, depth - doubt, -torch.inf).amax(0)
    return within & (distance > -slack) & (depth + doubt >= nearest_sure), ~surely.any(0)


def check(pixels: VisiblePixels, vertices: Tensor, triangles: Tensor, camera: Camera, slack: float) -> float:
    """Share of the covered pixels for which the reference accepts a single answer; fails on one that it does not accept."""
    images = pixels.unpack(pixels.triangle[:, None], background=-1)[..., 0].flatten(1)
    single = total = 0
    for number, answer in enumerate(images):
        only = replace(camera, focal=camera.focal[number, None], principal=camera.principal[number, None])
        allowed, empty = accepted(vertices[number], triangles, only, slack)
        covered = answer >= 0
        assert bool(empty[~covered].all()), "a pixel inside a triangle is empty"
        assert bool(allowed[answer[covered], torch.nonzero(covered)[:, 0]].all()), (
            "another triangle is in front or covers"
        )
        single += int(((allowed.sum(0) == 1) & ~empty & covered).sum())
        total += int(covered.sum())
    return single / total


def packed_by_hand(visible: Tensor) -> dict[tuple[int, int, int], int]:
    """Covered pixels of [B, H, W] in (image, row, column) order with their numbers."""
    return {tuple(place): number for number, place in enumerate(torch.nonzero(visible >= 0).tolist())}


def scattered(count: int, seed: int, size: int) -> tuple[Tensor, Tensor, Camera]:
    """Random triangles, facing both ways, partly outside the picture; the principal point lies outside it too."""
    random = torch.Generator().manual_seed(seed)
    z = 300.0 + 200.0 * torch.rand(1, 3 * count, 1, generator=random)
    pixel = size * (1.6 * torch.rand(1, 3 * count, 2, generator=random) - 0.3)
    camera = Camera(torch.tensor([410.0]), torch.tensor([[-37.3, 1.7 * size]]), size, size + 5)
    xy = (pixel - camera.principal[:, None]) * z / camera.focal[:, None, None]
    return torch.cat([xy, z], -1), torch.arange(3 * count).reshape(-1, 3), camera


def test_random_triangles(back_end: BackEnd):
    vertices, triangles, camera = scattered(40, 1, 37)
    pixels = back_end.visible(vertices, triangles, camera)
    assert check(pixels, vertices, triangles, camera, back_end.slack) > 0.8


def test_heads(back_end: BackEnd, toy: MorphableModel):
    scene = toy_scene(toy, batch=2)
    vertices = scene.vertices_camera(toy)
    pixels = back_end.visible(vertices, toy.triangles, Camera.of(scene))
    assert len(pixels) > 1500
    assert check(pixels, vertices, toy.triangles, Camera.of(scene), back_end.slack) > 0.5


def test_packing(back_end: BackEnd):
    vertices, triangles, camera = scattered(12, 2, 30)
    shifted = vertices + torch.tensor([20.0, 5.0, 0.0])
    camera = replace(camera, focal=camera.focal.repeat(2), principal=camera.principal.repeat(2, 1))
    pixels = back_end.visible(torch.cat([vertices, shifted]), triangles, camera)
    visible = pixels.unpack(pixels.triangle[:, None], background=-1)[..., 0]
    order = packed_by_hand(visible)
    assert list(order) == list(zip(*(part.tolist() for part in (pixels.image, pixels.row, pixels.column)), strict=True))
    for (image, row, column), number in order.items():
        around = ((row, column - 1), (row, column + 1), (row - 1, column), (row + 1, column))
        assert pixels.neighbours[number].tolist() == [order.get((image, *place), -1) for place in around]


def test_near_triangles_are_dropped_in_their_own_image_alone(back_end: BackEnd):
    vertices, triangles, camera = scattered(1, 4, 24)
    vertices[0, :, :2] = torch.tensor([[0.0, 0.0], [30.0, 0.0], [0.0, 30.0]])
    camera = replace(camera, focal=torch.full((4,), 24.0), principal=torch.zeros(4, 2))
    far, near, behind, lost = (vertices.clone() for _ in range(4))
    for place, z in zip((far, near, behind, lost), (NEAR, 0.99 * NEAR, -5.0, torch.nan), strict=True):
        place[0, 1, 2] = z
        place[0, 0, :2] = -30.0
    pixels = back_end.visible(torch.cat([far, near, behind, lost]), triangles, camera)
    assert len(pixels) > 0 and pixels.image.unique().tolist() == [0]


def test_empty_picture(back_end: BackEnd):
    vertices, triangles, camera = scattered(3, 5, 16)
    pixels = back_end.visible(vertices + torch.tensor([1e4, 0.0, 0.0]), triangles, camera)
    assert len(pixels) == 0 and pixels.neighbours.shape == (0, 4)


def test_frames(back_end: BackEnd):
    vertices, triangles, camera = scattered(20, 6, 24)
    frame = torch.zeros(1, camera.height, camera.width, dtype=torch.bool)
    frame[:, :9, :14] = True
    whole = back_end.visible(vertices, triangles, camera)
    framed = back_end.visible(vertices, triangles, replace(camera, frame=frame.to(back_end.device)))
    inside = (whole.row < 9) & (whole.column < 14)
    assert (
        framed.row.tolist() == whole.row[inside].tolist()
        and framed.triangle.tolist() == whole.triangle[inside].tolist()
    )
    assert framed.neighbours.max() == len(framed) - 1


def shaded(
    scene: Scene, model: MorphableModel, back_end: BackEnd, cotangent: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Image and the gradients of its product with a cotangent."""
    leaves = {name: getattr(scene.to(back_end.device), name) for name in ("shape", "rotation", "light", "focal")}
    leaves = {name: leaf.detach().clone().requires_grad_(True) for name, leaf in leaves.items()}
    drawn = render(replace(scene.to(back_end.device), **leaves), model.to(back_end.device), back_end.rasterizer)
    (drawn.image * cotangent.to(back_end.device)).sum().backward()
    return drawn.image.detach().cpu(), {name: leaf.grad.cpu() for name, leaf in leaves.items() if leaf.grad is not None}


def test_images_and_gradients(back_end: BackEnd, toy: MorphableModel):
    """Where both see the same triangle, up to the neighbours across a silhouette, all that follows is shared."""
    scene = toy_scene(toy, batch=2)
    reference = BackEnd(CpuRasterizer(), "cpu", 0.0)
    seen = []
    for each in (reference, back_end):
        pixels = each.visible(scene.vertices_camera(toy), toy.triangles, Camera.of(scene))
        seen.append(pixels.unpack(pixels.triangle[:, None], background=-1)[..., 0])
    covered, same = (seen[0] >= 0) & (seen[1] >= 0), (seen[0] == seen[1]) & (seen[0] >= 0)
    assert int(((seen[0] >= 0) ^ (seen[1] >= 0)).sum()) < 0.02 * int(covered.sum())
    assert int(same.sum()) > 0.9 * int(covered.sum())
    cotangent = (
        torch.randn(2, scene.height, scene.width, 3, generator=torch.Generator().manual_seed(8)) * same[..., None]
    )
    image, gradients = shaded(scene, toy, reference, cotangent)
    again, others = shaded(scene, toy, back_end, cotangent)
    assert float((again - image)[covered].square().mean().sqrt()) < 2e-3 * float(image[covered].square().mean().sqrt())
    assert set(gradients) == {"shape", "rotation", "light", "focal"}
    for name, gradient in gradients.items():
        assert float((others[name] - gradient).norm()) < 0.01 * float(gradient.norm()), name


def test_batches_beyond_the_numbers_that_float32_holds_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch):
    nvdiffrast_double.install(monkeypatch)
    vertices, triangles, camera = scattered(6, 7, 16)
    several = torch.cat([vertices + 3.0 * number for number in range(5)])
    cameras = replace(camera, focal=camera.focal.repeat(5), principal=camera.principal.repeat(5, 1))
    whole = NvdiffrastRasterizer(torch.device("cpu")).visible_triangles(several, triangles, cameras)
    monkeypatch.setattr(cuda, "_EXACT", 2 * len(triangles) + 1)
    rasterizer = NvdiffrastRasterizer(torch.device("cpu"))
    parts = rasterizer.visible_triangles(several, triangles, cameras)
    assert rasterizer._context.calls == 3
    assert torch.equal(parts.triangle, whole.triangle) and torch.equal(parts.neighbours, whole.neighbours)


def test_depths_use_the_whole_buffer_whatever_the_distance():
    z = torch.tensor(
        [
            [[0.0, 0.0, 590.0], [5.0, 0.0, 600.0], [0.0, 5.0, 610.0]],
            [[0.0, 0.0, 59.0], [1.0, 0.0, 1e5], [0.0, 1.0, 0.5]],
        ]
    )
    camera = Camera(torch.tensor([500.0, 500.0]), torch.full((2, 2), 32.0), 64, 64)
    positions, usable = cuda.clip_positions(z, camera)
    assert usable.tolist() == [[True] * 3, [True, True, False]]
    assert torch.allclose(positions[0, :, 2].abs(), torch.tensor([0.9, 0.0153, 0.9]), atol=1e-3)
    assert bool((positions[..., 3] * usable == usable).all()) and bool(positions.isfinite().all())


def test_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "nvdiffrast", None)
    monkeypatch.delitem(sys.modules, "nvdiffrast.torch", raising=False)
    with pytest.raises(MissingPackageError, match=r"nvdiffrast.*--no-build-isolation git\+https"):
        NvdiffrastRasterizer(torch.device("cuda", 0))


def test_back_end_of_a_device(monkeypatch: pytest.MonkeyPatch):
    assert isinstance(rasterizer_for(torch.device("cpu")), CpuRasterizer)
    nvdiffrast_double.install(monkeypatch)
    rasterizer_for.cache_clear()
    try:
        device = torch.device("cuda", 0)
        assert isinstance(rasterizer_for(device), NvdiffrastRasterizer)
        assert rasterizer_for(device) is rasterizer_for(device), "a context holds buffers and is kept"
    finally:
        rasterizer_for.cache_clear()
