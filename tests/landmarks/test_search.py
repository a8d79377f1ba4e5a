"""Faces are found at native resolution, wherever they are, and the points land where they should."""

from __future__ import annotations

import logging
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from nextface.config import OptimConfig
from nextface.errors import ConfigError, NoFaceError
from nextface.landmarks import detect, detector, read_photo
from nextface.landmarks.search import Window, _back, _cut, _levels
from nextface.photo import load_image

INTEROCULAR = (33, 263)
FACE_CENTRE = np.array([225.0, 125.0])


def placed(portrait, size, scale, centre, turn=0.0):
    """The portrait's face pasted into a grey canvas (width, height) at `centre`; also the map of its pixels [2, 3]."""
    angle = np.deg2rad(turn)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.concatenate([linear, (np.array(centre) - linear @ FACE_CENTRE)[:, None]], 1)
    warp = matrix.copy()
    warp[:, 2] += linear @ (0.5, 0.5) - 0.5
    canvas = np.full((size[1], size[0], 3), 150, np.uint8)
    mode = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR
    cv2.warpAffine(portrait, warp, size, canvas, flags=mode, borderMode=cv2.BORDER_TRANSPARENT)
    return canvas, matrix


def error(canvas, matrix, portrait_points):
    """Mean distance to the portrait's own points, in units of the outer eye corners' distance; faces found."""
    faces = detector("mediapipe").faces(canvas)
    assert faces, "no face found"
    expected = portrait_points @ matrix[:, :2].T + matrix[:, 2]
    eyes = np.linalg.norm(expected[INTEROCULAR[0]] - expected[INTEROCULAR[1]])
    return np.linalg.norm(faces[0].points.numpy() - expected, axis=1).mean() / eyes


def test_portrait(portrait, portrait_points):
    """Known places in the picture: the irises, the mouth's middle (read off by eye to 2 pixels)."""
    np.testing.assert_allclose(portrait_points[468], (203.5, 103.0), atol=2.5)
    np.testing.assert_allclose(portrait_points[473], (246.5, 103.0), atol=2.5)
    assert 178 < portrait_points[0, 0] < 250 and 135 < portrait_points[0, 1] < 150


@pytest.mark.parametrize(
    ("centre", "limit"),
    [((3000, 2000), 0.01), ((1234, 3210), 0.01), ((60, 1500), 0.02)],
    ids=["middle", "corner", "border"],
)
def test_face_of_100_pixels_in_24_megapixels(portrait, portrait_points, centre, limit):
    canvas, matrix = placed(portrait, (6000, 4000), 1.0, centre)
    assert error(canvas, matrix, portrait_points) < limit


@pytest.mark.parametrize("scale", [0.25, 7.0, 25.0])
def test_any_size(portrait, portrait_points, scale):
    side = round(max(64, 110 * scale))
    canvas, matrix = placed(portrait, (side, side), scale, (side / 2, side / 2))
    assert error(canvas, matrix, portrait_points) < 0.04


@pytest.mark.parametrize("turn", [-40, 60, 90, 180])
def test_turned_faces(portrait, portrait_points, turn):
    canvas, matrix = placed(portrait, (512, 512), 1.0, (256, 256), turn)
    assert error(canvas, matrix, portrait_points) < 0.02


def test_cut_by_the_border(portrait, portrait_points):
    canvas, matrix = placed(portrait, (512, 512), 1.0, (485, 200))
    assert error(canvas, matrix, portrait_points) < 0.06


def test_largest_of_several(portrait, tmp_path, caplog):
    canvas, _ = placed(portrait, (1200, 600), 1.0, (250, 300))
    second, matrix = placed(portrait, (1200, 600), 2.0, (800, 300))
    canvas[:, 500:] = second[:, 500:]
    Image.fromarray(canvas).save(tmp_path / "two.png")
    with caplog.at_level(logging.WARNING):
        photo = read_photo(tmp_path / "two.png", OptimConfig())
    assert photo.faces == 2 and "two.png: 2 faces; the largest is fitted" in caplog.text
    centre = photo.crop.to_full(photo.landmarks.points.mean(0))
    np.testing.assert_allclose(centre.numpy(), matrix[:, :2] @ FACE_CENTRE + matrix[:, 2], atol=30)


def test_no_face(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (300, 400, 3), np.uint8)).save(tmp_path / "noise.png")
    with pytest.raises(NoFaceError, match=r"noise\.png: no face was found; .*--landmarks FILE") as caught:
        detect(load_image(tmp_path / "noise.png"))
    assert caught.value.exit_code == 3


def test_file_overrides_detection(tmp_path):
    Image.new("RGB", (400, 300)).save(tmp_path / "black.png")
    points = np.random.default_rng(0).uniform(100, 200, (68, 2))
    np.save(tmp_path / "points.npy", points)
    photo = read_photo(tmp_path / "black.png", OptimConfig(), tmp_path / "points.npy")
    np.testing.assert_allclose(photo.crop.to_full(photo.landmarks.points).numpy(), points, atol=1e-3)


def test_dark_and_noisy(portrait, portrait_points):
    noise = np.random.default_rng(0).normal(0, 2, portrait.shape)
    dark = np.clip(portrait * 0.15 + noise, 0, 255).astype(np.uint8)
    assert error(dark, np.eye(2, 3), portrait_points) < 0.05


def test_repeatable(portrait):
    first, second = (detector("mediapipe").faces(portrait)[0] for _ in range(2))
    assert (first.points == second.points).all() and (first.confidence == second.confidence).all()
    assert 0 < first.confidence.min() and first.confidence.max() <= 1


def test_windows_map_back(portrait):
    """A window's pixels are the frame's at the place that the map says, for shrunk and turned windows."""
    y, x = np.mgrid[0:600, 0:800]
    ramp = np.stack([x * 255 / 800, y * 255 / 600, 0 * x], -1).astype(np.float32)
    for window in (Window(400, 300, 200, 0.0), Window(300, 250, 300, 30.0), Window(400, 300, 500, -90.0)):
        patch, matrix = _cut(ramp, window, 100)
        frame = _back(np.array([[30.5, 60.5]]), matrix)[0]
        np.testing.assert_allclose(patch[60, 30, :2] * (800 / 255, 600 / 255), frame - 0.5, atol=0.6)


def test_levels_cover_the_frame():
    for windows in _levels(6000, 4000, 0.06)[1:-1]:
        seen = np.zeros((40, 60), bool)
        for window in windows:
            low_x, low_y = window.x - window.side / 2, window.y - window.side / 2
            seen[
                max(0, int(low_y // 100)) : int(-(-(low_y + window.side) // 100)),
                max(0, int(low_x // 100)) : int(-(-(low_x + window.side) // 100)),
            ] = True
        assert seen.all()


def test_nothing_on_the_terminal(portrait, capfd):
    detector("mediapipe").faces(portrait)
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_unknown_detector():
    with pytest.raises(ConfigError, match="one of mediapipe, fan"):
        detector("dlib")
