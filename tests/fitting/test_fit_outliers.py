"""Which pixels count: hair, hands and clipped highlights do not, skin of any tone does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from synthetic_photo import Portrait
from torch import Tensor

from nextface.color import srgb_to_linear
from nextface.fitting.maps import fit_maps
from nextface.fitting.outliers import fit_trust, inlier_weight, map_trust, skin_image, unclipped
from nextface.fitting.progress import Progress
from nextface.fitting.statistical import fit_statistical
from nextface.morphable.model import MorphableModel
from nextface.rendering.camera import Camera
from nextface.rendering.cpu import CpuRasterizer
from nextface.rendering.fragments import fragments
from nextface.rendering.raster import VisiblePixels
from nextface.rendering.render import render

HAIR = torch.tensor([0.02, 0.011, 0.006])


@pytest.fixture(scope="module")
def pixels(portrait: Portrait, head: MorphableModel) -> VisiblePixels:
    truth = portrait.truth
    return CpuRasterizer().visible_triangles(truth.vertices_camera(head), head.triangles, Camera.of(truth))


@pytest.fixture(scope="module")
def skin(portrait: Portrait, head: MorphableModel, pixels: VisiblePixels) -> Tensor:
    """Plain skin of the face, [B, H, W] bool."""
    vertices = portrait.truth.vertices_camera(head)
    seen = fragments(vertices, head.triangles, pixels, Camera.of(portrait.truth))
    plain = head.regions["skin"] * (1.0 - head.regions["ears"]) * (head.mean[:, 2] > 40.0)
    return pixels.unpack(seen.interpolate(plain[None, :, None]))[..., 0] > 0.95


def box(portrait: Portrait, x: float, y: float, width: float, height: float) -> Tensor:
    """A rectangle in units of the landmarks' box. [B, H, W] bool"""
    points = portrait.observation.points[0]
    low, high = points.amin(0), points.amax(0)
    left, top = (low + (high - low) * torch.tensor([x, y])).tolist()
    right, bottom = (low + (high - low) * torch.tensor([x + width, y + height])).tolist()
    mask = torch.zeros(portrait.observation.image.shape[:3], dtype=torch.bool)
    mask[:, round(top) : round(bottom), round(left) : round(right)] = True
    return mask


def inner(mask: Tensor) -> Tensor:
    """The mask without a border of two pixels."""
    shrunk = -torch.nn.functional.max_pool2d(-mask.float()[:, None], 5, 1, 2)
    return shrunk[:, 0] > 0.5


@pytest.mark.parametrize("exposure", [1.0, 0.12], ids=["light skin", "dark skin"])
def test_hair_over_the_forehead_is_not_skin(exposure: float, portrait: Portrait, pixels: VisiblePixels, skin: Tensor):
    fringe = box(portrait, 0.1, -0.05, 0.8, 0.22)
    image = portrait.observation.image * exposure
    image = torch.where(fringe[..., None], HAIR * exposure, image)
    likelihood = skin_image(pixels, image, replace(portrait.observation, image=image))
    assert float(likelihood[inner(fringe) & skin].max()) < 0.3
    cheeks = skin & box(portrait, 0.2, 0.4, 0.7, 0.3)
    assert float(likelihood[cheeks].median()) > 0.9
    assert float((likelihood[cheeks] > 0.5).float().mean()) > 0.9


def test_an_untouched_face_counts_nearly_whole(portrait: Portrait, pixels: VisiblePixels, skin: Tensor):
    likelihood = skin_image(pixels, portrait.observation.image, portrait.observation)
    assert float((likelihood[skin] > 0.5).float().mean()) > 0.8


def test_skin_is_judged_on_smaller_copies_too(portrait: Portrait, head: MorphableModel):
    """The coarse levels of the fit look at area averages of the crop."""
    observation = portrait.observation
    small = torch.nn.functional.interpolate(observation.image.permute(0, 3, 1, 2), (48, 48), mode="area")
    camera = Camera.of(portrait.truth).scaled(torch.tensor([0.5]), 48, 48)
    covered = CpuRasterizer().visible_triangles(portrait.truth.vertices_camera(head), head.triangles, camera)
    likelihood = skin_image(covered, small.permute(0, 2, 3, 1), observation, torch.tensor([0.5]))
    assert likelihood.shape == (1, 48, 48)
    nose = (observation.points.mean(1)[0] / 2).long()
    assert float(likelihood[0, nose[1], nose[0]]) > 0.8


def test_a_patch_that_does_not_fit_is_left_out(pixels: VisiblePixels, skin: Tensor, portrait: Portrait):
    """Residuals: noise all over, and a hand's worth of difference over one cheek."""
    noise = 0.02 * torch.randn(len(pixels), 3, generator=torch.Generator().manual_seed(0))
    hand = pixels.pack(box(portrait, 0.05, 0.5, 0.4, 0.4))
    residual = noise + 0.25 * hand[:, None]
    weight = inlier_weight(residual, pixels.pack(skin.float()), pixels)
    inside = pixels.pack(inner(box(portrait, 0.05, 0.5, 0.4, 0.4)))
    apart = pixels.pack(~box(portrait, -0.05, 0.4, 0.6, 0.6) & skin)
    assert float(weight[inside].max()) < 0.1
    assert float(weight[apart].min()) > 0.8


def test_noise_alone_costs_no_pixel(pixels: VisiblePixels, skin: Tensor):
    """Single pixels may be far off: only patches are outliers."""
    noise = 0.05 * torch.randn(len(pixels), 3, generator=torch.Generator().manual_seed(0))
    noise[::97] *= 4.0
    weight = inlier_weight(noise, pixels.pack(skin.float()), pixels)
    assert float((weight > 0.7).float().mean()) > 0.97


def test_clipped_pixels_do_not_count():
    encoded = torch.tensor(
        [[0.5, 0.5, 0.5], [0.99, 0.6, 0.5], [0.97, 0.97, 0.97], [0.005, 0.005, 0.005], [0.005, 0.02, 0.005]]
    )
    assert unclipped(srgb_to_linear(encoded)).tolist() == [True, False, True, False, True]


def test_regions_that_are_no_skin_are_not_believed(head: MorphableModel):
    fit, maps = fit_trust(head)[:, 0], map_trust(head)[:, 0]
    regions = head.regions
    assert float(fit[regions["skin"] > 0.99].min()) > 0.9
    for name in ("scalp", "mouth_interior"):
        assert float(fit[regions[name] > 0.99].max()) < 0.1, name
    assert float(maps[regions["scalp"] > 0.99].max()) < 0.1
    assert float(maps[regions["skin"] > 0.99].min()) > 0.9
    for trust in (fit, maps):
        assert float(trust.min()) >= 0.0
        assert float(trust.max()) <= 1.0


def test_a_hand_before_the_face_does_not_spoil_the_fit(
    posed, portrait: Portrait, head: MorphableModel, quick, skin: Tensor
):
    """A flat blue glove over a cheek: face, light and tone stay near those of the uncovered photo, and no texel is believed to
    have been seen through it."""
    glove = box(portrait, 0.02, 0.45, 0.38, 0.4)
    image = torch.where(glove[..., None], torch.tensor([0.05, 0.08, 0.35]), portrait.observation.image)
    observation = replace(portrait.observation, image=image)
    found = fit_statistical(posed.after, observation, head, quick, Progress("s", 1))
    drawn = render(found, head)
    elsewhere = skin & drawn.mask & ~box(portrait, -0.08, 0.35, 0.58, 0.6)
    ratio = (drawn.image[elsewhere] + 0.01) / (portrait.observation.image[elsewhere] + 0.01)
    assert float(ratio.log().abs().mean()) < 0.15
    under = skin & drawn.mask & inner(glove)
    blue = drawn.image[under][:, 2] / drawn.image[under][:, 0]
    assert float(blue.max()) < 1.0, "the glove's colour went into the skin"
    mapped = fit_maps(found, observation, head, quick, Progress("m", 1))
    plain = fit_maps(found, portrait.observation, head, quick, Progress("m", 1))
    assert mapped.maps is not None and plain.maps is not None
    fully = [float((scene.maps.confidence > 0.9).float().sum()) for scene in (mapped, plain)]
    assert fully[0] < 0.95 * fully[1]
    repainted = render(mapped, head).image[under]
    assert float((repainted[:, 2] / repainted[:, 0]).max()) < 1.0


def test_holes_in_the_photo_do_not_count(posed, portrait: Portrait, head: MorphableModel, quick):
    """Pixels outside the frame or transparent are ignored whatever they hold."""
    hole = box(portrait, 0.0, 0.6, 0.5, 0.3)
    scenes = []
    for content in (0.0, 0.7):
        observation = replace(
            portrait.observation,
            image=torch.where(hole[..., None], content, portrait.observation.image),
            valid=portrait.observation.valid & ~hole,
        )
        scenes.append(fit_maps(posed.after, observation, head, replace(quick, iter_step3=3), Progress("m", 1)))
    first, second = (scene.maps.diffuse.full() for scene in scenes)
    assert float((first - second).abs().mean()) < 1e-3
    assert float((first - second).abs().max()) < 0.06
