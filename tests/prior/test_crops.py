"""Aligned crops: the similarity, the same scene seen through it, what is cut from a photo, which pixels count."""

from __future__ import annotations

import math

import pytest
import roma
import torch

from nextface.errors import ConfigError, InputError
from nextface.morphable.model import MorphableModel
from nextface.prior.crops import (
    TEMPLATE,
    WINDOWS,
    Similarity,
    alignment,
    closed,
    cut_out,
    five_points,
    masked,
    seen_in_crop,
    trusted,
)
from nextface.rendering.camera import Camera
from nextface.rendering.render import render
from nextface.scene import Scene


def turned_scene(model: MorphableModel) -> Scene:
    """The toy head under coloured light of four bands, at 96²."""
    light = torch.randn(1, 16, 3, generator=torch.Generator().manual_seed(4)) * 0.4
    light[:, 0] = 3.5
    return Scene(
        shape=torch.zeros(1, len(model.shape_basis)),
        albedo=torch.zeros(1, len(model.diffuse_basis)),
        expression=torch.zeros(1, len(model.expression_basis)),
        rotation=torch.tensor([[0.15, 0.45, -0.1]]),
        translation=torch.tensor([[6.0, -4.0, 620.0]]),
        focal=torch.tensor([220.0]),
        principal=torch.tensor([[50.0, 45.0]]),
        light=light,
        exposure=torch.zeros(1),
        white_balance=torch.zeros(1, 2),
        height=96,
        width=96,
    )


def similarity(angle: float, scale: float, offset: tuple[float, float]) -> Similarity:
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return Similarity(scale * turn[None], torch.tensor([offset]))


@pytest.mark.parametrize("crop", sorted(WINDOWS))
def test_alignment_undoes_a_similarity(crop):
    moved = similarity(0.3, 2.5, (40.0, -12.0))
    found = alignment(moved.apply(torch.tensor([TEMPLATE])), crop, 128)
    x, y, side = WINDOWS[crop]
    expected = (torch.tensor(TEMPLATE) - torch.tensor([x - side / 2, y - side / 2])) * 128 / side
    assert torch.allclose(found.apply(moved.apply(torch.tensor([TEMPLATE])))[0], expected, atol=1e-3)
    assert float(found.scale) == pytest.approx(128 / side / 2.5, rel=1e-4)
    assert float(found.angle) == pytest.approx(-0.3, abs=1e-5)


def test_ffhq_alignment_is_the_published_template():
    """An eye at (192.98, 239.95) of 512 pixels stays there."""
    found = alignment(torch.tensor([TEMPLATE]), "ffhq", 512)
    assert torch.allclose(found.matrix[0], torch.eye(2), atol=1e-5) and found.offset.abs().max() < 1e-2


def test_alignment_is_the_least_squares_one():
    points = torch.tensor([TEMPLATE]) + torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(1)) * 9
    target = torch.tensor(TEMPLATE)
    best = (alignment(points, "ffhq", 512).apply(points)[0] - target).square().sum()
    for change in ((0.01, 1.0, (0.0, 0.0)), (0.0, 1.01, (0.0, 0.0)), (0.0, 1.0, (1.0, 0.0)), (0.0, 1.0, (0.0, -1.0))):
        other = similarity(*change).apply(alignment(points, "ffhq", 512).apply(points))[0]
        assert (other - target).square().sum() > best


def test_inverse():
    crop = similarity(0.7, 0.4, (3.0, 90.0))
    points = torch.rand(1, 6, 2) * 100
    assert torch.allclose(crop.inverse().apply(crop.apply(points)), points, atol=1e-3)


def test_conventions_agree_on_the_five_points():
    points = torch.arange(68.0)[None, :, None].expand(1, 68, 2)
    index = torch.arange(68)
    found = five_points(points, index, "ibug68")
    assert found[0, :, 0].tolist() == [38.5, 44.5, 30.0, 48.0, 54.0]
    shuffled = torch.randperm(68, generator=torch.Generator().manual_seed(0))
    assert torch.equal(five_points(points[:, shuffled], index[shuffled], "fan"), found)


def test_wrong_landmarks_are_named():
    with pytest.raises(InputError, match="'dlib'"):
        five_points(torch.zeros(1, 68, 2), torch.arange(68), "dlib")
    with pytest.raises(InputError, match="291"):
        five_points(torch.zeros(1, 290, 2), torch.arange(290), "mediapipe")
    with pytest.raises(ConfigError, match="'wide'"):
        alignment(torch.tensor([TEMPLATE]), "wide", 128)


def test_a_scene_seen_in_a_crop_projects_and_looks_as_cut(toy: MorphableModel):
    single = turned_scene(toy)
    crop = similarity(0.35, 0.8, (6.0, 4.0))
    close = seen_in_crop(single, crop, 64)
    points = Camera.of(single).project(single.vertices_camera(toy))
    assert torch.allclose(Camera.of(close).project(close.vertices_camera(toy)), crop.apply(points), atol=2e-3)
    # The light turns with the head: normals in the new view frame meet the same radiance.
    photo = render(single, toy).image
    direct = render(close, toy).image
    cut = cut_out(photo.permute(0, 3, 1, 2), crop, 64).permute(0, 2, 3, 1)
    inside = render(close, toy).mask[0]
    core = trusted(inside[None, None].float())[0, 0] > 0
    assert core.sum() > 200
    difference = (direct - cut)[0][core]
    assert difference.square().mean().sqrt() < 0.03 * photo[photo > 0].mean()
    roll = roma.rotvec_to_rotmat(close.rotation) @ roma.rotvec_to_rotmat(single.rotation).mT
    assert torch.allclose(roma.rotmat_to_rotvec(roll), torch.tensor([[0.0, 0.0, -0.35]]), atol=1e-4)


def test_a_smaller_crop_averages(toy):
    """A checkerboard of single pixels comes out grey, not as stripes."""
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    out = cut_out(board[None, None].float(), similarity(0.0, 0.25, (0.0, 0.0)), 16)
    assert (out - 0.5).abs().max() < 1e-3


def test_a_band_inside_the_edge_does_not_count():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 20:40, 30:] = 1.0
    kept = trusted(mask)
    assert kept[0, 0, 22:38, 32:].min() == 1.0, "the border of the crop itself is no edge"
    assert kept.sum() == 16 * 32
    assert masked(torch.ones(1, 3, 64, 64), mask)[0, :, 0, 0].tolist() == [0.0, 0.0, 0.0]


def test_small_holes_are_looked_through():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 8:56, 8:] = 1.0
    whole = mask.clone()
    mask[..., 20:26, 20:40] = 0.0  # as an eye
    mask[..., 40, 40:] = 0.0  # a crack to the border
    assert torch.equal(closed(mask), whole)
    mask[..., 20:40, 20:40] = 0.0
    assert closed(mask)[0, 0, 20:40, 20:40].max() == 0.0, "what hides a part of the face stays unknown"
