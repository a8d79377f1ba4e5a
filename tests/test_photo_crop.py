"""The crop holds the head, averages areas in linear light, and maps exactly onto the frame and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nextface.config import OptimConfig
from nextface.errors import InputError
from nextface.landmarks.points import Landmarks
from nextface.photo import SourcePhoto, crop_to_face
from nextface.photo.colour_space import srgb_space


def source_of(stored, alpha=None, focal=None) -> SourcePhoto:
    return SourcePhoto(Path("a.png"), stored, alpha, srgb_space(stored.dtype), focal)


def face_at(x, y, size, turn=0.0) -> Landmarks:
    """A 68-point "face": a jaw arc and a brow arc around (x, y), turned by `turn` radians."""
    arc = np.linspace(np.pi, 0.0, 17)
    jaw = np.stack([np.cos(arc), np.sin(arc)], -1)
    rest = np.stack([np.linspace(-0.8, 0.8, 51), np.full(51, -0.5)], -1)
    points = np.concatenate([jaw, rest]) * size / 2
    points[27] = (0.0, -0.25 * size)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = points @ rotation.T + (x, y)
    return Landmarks("ibug68", torch.arange(68), torch.tensor(points, dtype=torch.float32), torch.ones(68))


@pytest.fixture
def frame() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.integers(0, 255, (700, 900, 3), np.uint8)


def test_native_crop_is_a_cut(frame):
    photo = crop_to_face(source_of(frame), face_at(450, 350, 60), 256)
    crop = photo.crop
    assert crop.scale == 1.0 and photo.image.shape == (crop.height, crop.width, 3)
    top, left = int(crop.top), int(crop.left)
    expected = source_of(frame).pixels[top : top + crop.height, left : left + crop.width]
    torch.testing.assert_close(photo.image, torch.from_numpy(expected), atol=1e-6, rtol=0)
    assert photo.valid.all() and photo.image.dtype == torch.float32


def test_longest_side_is_max_resolution_and_area_is_averaged(frame):
    photo = crop_to_face(source_of(frame), face_at(450, 350, 300), 100)
    assert max(photo.image.shape[:2]) == 100
    crop = photo.crop
    linear = source_of(frame).pixels.astype(np.float64)
    corners = crop.to_full(np.array([[40.0, 30.0], [41.0, 31.0]]))
    (x0, y0), (x1, y1) = corners
    total = np.zeros(3)
    for row in range(int(y0), int(np.ceil(y1))):
        for column in range(int(x0), int(np.ceil(x1))):
            share = (min(y1, row + 1) - max(y0, row)) * (min(x1, column + 1) - max(x0, column))
            total += share * linear[row, column]
    np.testing.assert_allclose(photo.image[30, 40].numpy(), total / ((x1 - x0) * (y1 - y0)), atol=1e-5)


def test_mean_light_is_kept(frame):
    photo = crop_to_face(source_of(frame), face_at(450, 350, 300), 90)
    crop = photo.crop
    (left, top), (right, bottom) = crop.to_full(np.array([[0.0, 0.0], [crop.width, crop.height]]))
    inside = source_of(frame).pixels[round(top) : round(bottom), round(left) : round(right)]
    np.testing.assert_allclose(photo.image.numpy().mean((0, 1)), inside.mean((0, 1)), rtol=0.01)


def test_maps_both_ways_and_camera(frame):
    photo = crop_to_face(source_of(frame, focal=1000.0), face_at(700, 200, 240), 128)
    points = torch.rand(20, 2) * 900
    torch.testing.assert_close(photo.crop.to_full(photo.crop.to_crop(points)), points, atol=1e-3, rtol=0)
    assert photo.focal == pytest.approx(1000.0 * photo.crop.scale)
    centre = photo.crop.to_full(np.array(photo.principal))
    np.testing.assert_allclose(centre, [450.0, 350.0], atol=1e-6)
    torch.testing.assert_close(
        photo.crop.to_full(photo.landmarks.points), face_at(700, 200, 240).points, atol=1e-3, rtol=0
    )


def test_a_blob_stays_where_it_is(frame):
    """A bright square drawn in the frame lies in the crop where `to_crop` says."""
    dark = np.zeros_like(frame)
    dark[300:310, 500:510] = 255
    photo = crop_to_face(source_of(dark), face_at(480, 330, 260), 128)
    weights = photo.image[..., 0]
    rows, columns = torch.meshgrid(torch.arange(weights.shape[0]), torch.arange(weights.shape[1]), indexing="ij")
    place = torch.stack([(weights * (columns + 0.5)).sum(), (weights * (rows + 0.5)).sum()]) / weights.sum()
    torch.testing.assert_close(place, photo.crop.to_crop(torch.tensor([505.0, 305.0])), atol=0.06, rtol=0)


@pytest.mark.parametrize("turn", [0.0, 0.6, np.pi / 2, np.pi])
def test_crop_holds_the_head_however_it_is_turned(turn):
    frame = np.zeros((800, 800, 3), np.uint8)
    photo = crop_to_face(source_of(frame), face_at(400, 400, 150, turn), 4096)
    up = np.array([np.sin(turn), -np.cos(turn)])
    crown, neck = np.array([400, 400]) + up * 150, np.array([400, 400]) - up * 110
    for point in (crown, neck):
        x, y = photo.crop.to_crop(point)
        assert -1 <= x <= photo.width + 1 and -1 <= y <= photo.height + 1
    assert max(photo.width, photo.height) < 150 * 2.3


def test_border_and_alpha(frame):
    alpha = np.full(frame.shape[:2], 255, np.uint8)
    alpha[:, 880:] = 0
    photo = crop_to_face(source_of(frame, alpha), face_at(860, 20, 120), 64)
    crop = photo.crop
    (_, top), (right, _) = crop.to_full(np.array([[0.0, 0.0], [crop.width, crop.height]]))
    assert top >= 0 and right <= 900.5
    edge = crop.to_crop(np.array([880.0, 0.0]))[0]
    assert photo.valid[:, : int(edge) - 1].all() and not photo.valid[:, int(edge) + 1 :].any()
    assert torch.isfinite(photo.image).all()


def test_transparent_pixels_do_not_bleed():
    frame = np.full((300, 300, 3), 200, np.uint8)
    alpha = np.full((300, 300), 255, np.uint8)
    alpha[:, ::2], frame[:, ::2] = 0, 0
    photo = crop_to_face(source_of(frame, alpha), face_at(150, 150, 100), 60)
    expected = float(srgb_space(np.dtype(np.uint8)).curves[0][200])
    torch.testing.assert_close(photo.image[photo.valid], torch.full_like(photo.image[photo.valid], expected))


def test_landmarks_outside_the_frame(frame):
    with pytest.raises(InputError, match=r"a\.png: the landmarks lie outside the 900 x 700 frame"):
        crop_to_face(source_of(frame), face_at(3000, 2000, 100), 256)


def test_known_focal(frame):
    """Command line before EXIF before the ini; the stock value says nothing. Pixels of the frame scaled to maxResolution."""
    with_exif = crop_to_face(source_of(frame, focal=1500.0), face_at(450, 350, 300), 100)
    without = crop_to_face(source_of(frame), face_at(450, 350, 300), 100)
    scale = with_exif.crop.scale
    stock, ini = OptimConfig(max_resolution=100), OptimConfig(max_resolution=100, cam_focal_length=200.0)
    line = stock.with_texts({"camFocalLength": "150"}, command_line=True)
    assert with_exif.known_focal(stock) == with_exif.known_focal(ini) == pytest.approx(1500.0 * scale)
    assert without.known_focal(stock) is None
    assert without.known_focal(ini) == pytest.approx(200.0 * 9.0 * scale)
    assert with_exif.known_focal(line) == without.known_focal(line) == pytest.approx(150.0 * 9.0 * scale)
