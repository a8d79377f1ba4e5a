"""Maps seen in aligned crops and crops brought back: what is linear, exact and hidden."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from known_prior import SIZE, with_face_points
from synthetic_photo import known_scene
from torch import Tensor

from nextface.errors import InputError
from nextface.morphable.model import MorphableModel
from nextface.prior.crops import TEMPLATE, TEMPLATE_SIZE, WINDOWS, YAWS, model_points
from nextface.prior.views import CropViews, map_resolution
from nextface.rendering.bake import bake
from nextface.rendering.camera import Camera
from nextface.rendering.jit import plain_torch
from nextface.rendering.normals import vertex_normals
from nextface.scene import Scene


@pytest.fixture(scope="module")
def scene(head: MorphableModel) -> Scene:
    return known_scene(head, seed=3, yaw=25.0)


@pytest.fixture(scope="module")
def views(scene: Scene, head: MorphableModel) -> CropViews:
    return CropViews.of(scene, head, "tight", 64)


@pytest.fixture(scope="module")
def toy_views(toy: MorphableModel) -> CropViews:
    model = with_face_points(toy)
    return CropViews.of(known_scene(model, seed=1), model, "tight", SIZE)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_maps_are_about_as_fine_as_crops():
    assert [map_resolution(size) for size in (16, 32, 96, 128, 512)] == [32, 64, 256, 256, 1024]


def test_a_constant_map_is_a_constant_crop(views: CropViews):
    crops = views.crops(torch.full((views.resolution, views.resolution, 2), 0.37))
    assert crops.shape == (3, 2, 64, 64)
    assert torch.allclose(crops[views.covered.expand_as(crops) > 0], torch.tensor(0.37), atol=1e-6)
    away = torch.nn.functional.max_pool2d(views.covered, 3, 1, 1) == 0
    assert float(crops[away.expand_as(crops)].abs().max()) == 0.0


def test_crops_are_means(views: CropViews):
    """Weights are not negative and sum to 1: no crop leaves the range of its map."""
    maps = torch.rand(views.resolution, views.resolution, 1, generator=torch.Generator().manual_seed(1))
    crops = views.crops(maps)[views.covered > 0]
    assert float(views.resampler.matrix.data.min()) >= 0.0
    assert float(crops.min()) >= float(maps.min())
    assert float(crops.max()) <= float(maps.max())


def test_the_transpose_is_the_adjoint(views: CropViews):
    maps, crops = noise(views.resolution, views.resolution, 3).double(), noise(3, 3, 64, 64, seed=1).double()
    there, back = views.crops(maps), views.adjoint(crops)
    assert float((there * crops).sum()) == pytest.approx(float((maps * back).sum()), rel=1e-9)
    leaf = maps.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((views.crops(leaf) * crops).sum(), leaf)
    torch.testing.assert_close(gradient, back)


def test_the_products_of_other_devices_are_the_same(views: CropViews):
    maps, crops = noise(views.resolution, views.resolution, 3), noise(3, 3, 64, 64, seed=1)
    expected = views.crops(maps), views.adjoint(crops)
    with plain_torch():
        torch.testing.assert_close((views.crops(maps), views.adjoint(crops)), expected)


def test_smooth_maps_come_back(views: CropViews):
    where = torch.linspace(0.0, 6.0, views.resolution)
    maps = torch.stack([where.sin()[:, None].expand(-1, len(where)), where.cos()[None].expand(len(where), -1)], -1)
    found, weight = views.maps(views.crops(maps), views.steady * views.facing.clamp_min(0.0) ** 2)
    sure = weight[..., 0] > 0.3
    assert float(sure.float().mean()) > 0.15
    assert float((found - maps)[sure].abs().max()) < 0.12
    assert float((found - maps)[sure].abs().mean()) < 0.01


def test_maps_are_weighted_means_and_unknown_texels_are_zero(views: CropViews):
    weight = views.covered * views.facing.clamp_min(0.0)
    found, share = views.maps(torch.full((3, 2, 64, 64), 0.6), weight)
    known = share[..., 0] > 0.0
    assert torch.allclose(found[known], torch.tensor(0.6), atol=1e-4)
    assert float(found[~known].abs().max()) == 0.0
    assert float(share.max()) <= 1.0 + 1e-5
    only_front, front_share = views.maps(
        torch.ones(3, 1, 64, 64), weight * torch.tensor([1.0, 0, 0])[:, None, None, None]
    )
    assert int((front_share > 0).sum()) < int((share > 0).sum())
    assert only_front.shape == (views.resolution, views.resolution, 1)


def test_what_the_head_hides_reaches_no_crop(head: MorphableModel, views: CropViews):
    """The back of the scalp, which faces away from all three cameras, and the cheek behind the nose. YAWS: the last view is from +x."""
    away = (vertex_normals(head.mean[None], head.triangles)[0, :, 2] < -0.8) * head.regions["scalp"]
    marks = bake(away[None, :, None], head, views.resolution)[0]
    assert float(marks.mean()) > 0.02
    assert float((views.crops(marks) * views.steady * (views.facing > 0.3)).max()) < 0.1
    cheek = bake((head.mean[:, 0] > 15.0).float()[None, :, None], head, views.resolution)[0]
    amount = (views.crops(cheek) * views.covered).sum((1, 2, 3)) / views.covered.sum((1, 2, 3))
    assert float(amount[2]) > 3.0 * float(amount[1])


def test_pixels_across_an_edge_are_not_steady(views: CropViews):
    """Hidden and visible parts meet along lines: a few pixels mix them, and none within the smooth cheek or forehead."""
    mixed = views.covered * (1.0 - views.steady)
    assert 0.001 < float(mixed.mean()) < 0.05
    assert float(mixed[0, 0, 8:14, 24:40].max()) == 0.0


def test_crops_are_aligned_by_the_points_of_the_training(scene: Scene, head: MorphableModel):
    from nextface.prior.views import crop_scenes

    seen = crop_scenes(scene, head, "tight", 64, YAWS)
    points = model_points(head, seen.vertices_camera(head), Camera.of(seen))
    x, y, side = WINDOWS["tight"]
    wanted = (torch.tensor(TEMPLATE) - torch.tensor([x, y]) + side / 2.0) * 64.0 / side
    assert TEMPLATE_SIZE == 512.0
    assert float((points[0] - wanted).norm(dim=-1).max()) < 4.0
    assert torch.allclose(points.mean(1), wanted.mean(0).expand(3, 2), atol=1e-2)


def test_normals_and_slopes_are_inverse(views: CropViews):
    bends = 0.3 * noise(3, 2, 64, 64) * views.covered
    normals = views.normals(bends)
    inside = views.covered[:, 0] > 0
    assert torch.allclose(normals.norm(dim=1)[inside], torch.ones(()), atol=1e-5)
    torch.testing.assert_close(views.slopes(normals), bends, atol=1e-3, rtol=1e-3)
    flat = views.normals(torch.zeros_like(bends))
    assert float(flat[0, 2, 8:14, 28:36].mean()) > 0.8  # the forehead looks out of the face


def test_the_pose_in_the_photo_does_not_matter(scene: Scene, head: MorphableModel, views: CropViews):
    turned = replace(scene, rotation=-scene.rotation, translation=scene.translation * 1.3, focal=scene.focal * 0.9)
    other = CropViews.of(turned, head, "tight", 64)
    assert torch.equal(other.facing, views.facing)
    assert (other.resampler.matrix != views.resampler.matrix).nnz == 0


def test_a_model_without_the_points_is_refused(toy: MorphableModel):
    with pytest.raises(InputError, match="33"):
        CropViews.of(known_scene(toy, seed=1), toy, "tight", SIZE)
    with pytest.raises(InputError, match="no landmarks"):
        bare = replace(toy, landmarks={})
        CropViews.of(known_scene(bare, seed=1), bare, "tight", SIZE)


def test_other_conventions_serve_where_the_first_does_not(toy_views: CropViews):
    assert float(toy_views.covered.mean()) > 0.4
