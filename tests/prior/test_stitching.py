"""Crops of known maps become these maps again: in their tone, without seams, and whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from known_prior import SIZE, with_face_points
from synthetic_photo import known_scene
from torch import Tensor
from torch.nn.functional import max_pool2d

from nextface.morphable.model import MorphableModel
from nextface.prior.stitching import Stitched, stitch
from nextface.prior.views import CropViews
from nextface.rendering.bake import bake

TONE = torch.tensor([0.5, 0.3, 0.2, 0.7, 0.4, 0.0, 0.0])
OTHER = torch.tensor([0.2, 0.1, 0.05, 0.5, 0.6, 0.1, -0.1])


@pytest.fixture(scope="module")
def model(toy: MorphableModel) -> MorphableModel:
    return with_face_points(toy)


@pytest.fixture(scope="module")
def views(model: MorphableModel) -> CropViews:
    return CropViews.of(known_scene(model, seed=1), model, "tight", 2 * SIZE)


def flat(values: Tensor, views: CropViews) -> Tensor:
    return values.expand(views.resolution, views.resolution, -1).clone()


def wavy(views: CropViews) -> Tensor:
    """Smooth maps about TONE."""
    where = torch.linspace(0.0, 9.0, views.resolution)
    waves = torch.sin(where)[:, None, None] * torch.cos(where + 0.5)[None, :, None]
    return flat(TONE, views) * (1.0 + 0.2 * waves)


def apart(model: MorphableModel, views: CropViews) -> Tensor:
    """Texels of eyes and mouth, with a margin. [R, R] bool"""
    region = (model.regions["eyes"] + model.regions["mouth_interior"])[None, :, None]
    baked = bake(region, model, views.resolution)[..., 0]
    return max_pool2d((baked > 0.0).float()[None], 5, 1, 2)[0, 0] > 0.0


def off(stitched: Stitched, truth: Tensor, channels: slice) -> float:
    """Root mean square error where the crops show the skin."""
    shown = stitched.shown[..., 0] > 0.99
    return float((stitched.maps - truth)[..., channels][shown].square().mean().sqrt())


def test_maps_come_back_from_their_crops(model: MorphableModel, views: CropViews):
    truth, other = wavy(views), flat(OTHER, views)
    found = stitch(views.crops(truth), views, model, other)
    assert float((found.shown > 0.99).float().mean()) > 0.1
    assert off(found, truth, slice(0, 5)) < 0.01
    assert off(Stitched(other, found.shown), truth, slice(0, 5)) > 0.1


def test_tones_of_views_that_differ_leave_no_seam(model: MorphableModel, views: CropViews):
    """Three views of one flat skin, each in a tone of its own: the result is flat, in the tone between."""
    crops = views.crops(flat(TONE, views))
    crops[:, :3] *= torch.tensor([1.0, 1.2, 1.0 / 1.2])[:, None, None, None]
    crops[:, 3:5] += torch.tensor([0.0, 0.05, -0.05])[:, None, None, None]
    found = stitch(crops, views, model, flat(TONE, views))
    skin = ~apart(model, views)
    values = found.maps[..., :5][skin]
    assert float((values.amax(0) - values.amin(0)).max()) < 0.01
    torch.testing.assert_close(values.mean(0), TONE[:5], atol=0.02, rtol=0.0)


def test_what_no_view_shows_is_known_skin_in_the_tone_beside_it(model: MorphableModel, views: CropViews):
    known = wavy(views)
    gain = torch.tensor([1.3, 1.2, 1.1])
    truth = torch.cat([known[..., :3] * gain, known[..., 3:]], -1)
    found = stitch(views.crops(truth), views, model, known)
    hidden, eyes = found.shown[..., 0] == 0.0, apart(model, views)
    ratio = (found.maps[..., :3] / known[..., :3])[hidden & ~eyes]
    torch.testing.assert_close(ratio, gain.expand_as(ratio), atol=0.04, rtol=0.0)


def test_eyes_do_not_take_the_tone_of_skin(model: MorphableModel, views: CropViews):
    """Said to be eyes here: the back of the head."""
    behind = (model.mean[:, 2] < -40.0).float()
    argus = replace(model, regions={**model.regions, "eyes": behind, "skin": 1.0 - behind})
    known = wavy(views)
    found = stitch(views.crops(1.3 * known), views, argus, known)
    back = bake(behind[None, :, None], model, views.resolution)[0, ..., 0]
    ratio = (found.maps / known)[..., :3]
    torch.testing.assert_close(ratio[back > 0.999], torch.ones_like(ratio[back > 0.999]), atol=1e-3, rtol=0.0)
    assert float(ratio[back == 0.0].mean()) == pytest.approx(1.3, abs=0.02)


def test_slopes_keep_relief_and_lose_what_the_mesh_says(model: MorphableModel, views: CropViews):
    found = stitch(views.crops(flat(OTHER, views)), views, model, flat(OTHER, views))
    assert float(found.maps[..., 5:].abs().max()) < 1e-5
    relief = torch.zeros(views.resolution, views.resolution, 2)
    relief[::8, :, 0], relief[4::8, :, 0] = 0.3, -0.3
    tilted = torch.cat([flat(TONE[:5], views), relief + 0.2], -1)
    found = stitch(views.crops(tilted), views, model, flat(TONE, views))
    slopes = found.maps[..., 5:][found.shown[..., 0] > 0.99]
    assert float(slopes.mean(0).abs().max()) < 0.01
    assert float((slopes * relief[found.shown[..., 0] > 0.99]).mean(0)[0]) > 0.003
