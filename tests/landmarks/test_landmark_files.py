"""Landmark files: JSON, NPY and pts give the same points; everything else is refused with the remedy."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nextface.errors import InputError
from nextface.landmarks.files import read_landmarks


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(1).uniform(100, 300, (68, 2)).round(2)


def written(tmp_path, points):
    pts = "version: 1\nn_points: 68\n{\n" + "\n".join(f"{x + 0.5} {y + 0.5}" for x, y in points) + "\n}\n"
    contents = {
        "list.json": json.dumps(points.tolist()),
        "object.json": json.dumps({"points": points.tolist()}),
        "named.json": "\ufeff" + json.dumps({"landmarks": [{"x": x, "y": y, "z": 0} for x, y in points.tolist()]}),
        "face.pts": pts,
    }
    for name, text in contents.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    np.save(tmp_path / "a.npy", points)
    np.save(tmp_path / "b.npy", np.concatenate([points, np.zeros((68, 1))], 1)[None])
    return [tmp_path / name for name in [*contents, "a.npy", "b.npy"]]


def test_all_formats_agree(tmp_path, points):
    for path in written(tmp_path, points):
        landmarks = read_landmarks(path)
        assert landmarks.convention == "ibug68"
        np.testing.assert_allclose(landmarks.points.numpy(), points, atol=1e-4)
        assert landmarks.index.tolist() == list(range(68)) and (landmarks.confidence == 1).all()


@pytest.mark.parametrize(("count", "convention"), [(478, "mediapipe"), (468, "mediapipe"), (68, "ibug68")])
def test_count_tells_the_convention(tmp_path, count, convention):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).uniform(0, 500, (count, 2)))
    assert read_landmarks(tmp_path / "a.npy").convention == convention


def test_stated_convention_and_missing_points(tmp_path, points):
    holed = [None if number % 2 else point for number, point in enumerate(points.tolist())]
    (tmp_path / "a.json").write_text(json.dumps({"convention": "fan", "points": holed}), encoding="utf-8")
    landmarks = read_landmarks(tmp_path / "a.json")
    assert landmarks.convention == "fan"
    assert landmarks.index.tolist() == list(range(0, 68, 2))
    np.testing.assert_allclose(landmarks.points.numpy(), points[::2], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{]", "not a landmark file"),
        ("a.json", "5", "not a list"),
        ("a.json", '{"face": []}', "neither 'points' nor 'landmarks'"),
        ("a.json", "[[1, 2], [3, 4]]", "holds 2 points"),
        ("a.json", '{"convention": "dlib", "points": ' + json.dumps([[1, 2]] * 68) + "}", "68 points of 'dlib'"),
        ("a.json", json.dumps([[0.5, 0.25 + 0.001 * k] for k in range(68)]), "pixels of the full frame, not 0..1"),
        ("a.json", json.dumps([None] * 68), "only 0 of its points"),
        ("a.json", json.dumps(["x"] * 68), "not a landmark file"),
        ("a.npy", "hello", "not a landmark file"),
        ("a.pts", "version: 1", "no { block }"),
        ("a.pts", "{\n1 2\nx y\n}", "not a landmark file"),
        ("a.txt", "1 2", "read from .json, .npy or .pts"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_landmarks(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and message in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 3


def test_missing_file_and_wrong_shape(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_landmarks(tmp_path / "none.json")
    np.save(tmp_path / "flat.npy", np.zeros(136))
    with pytest.raises(InputError, match=r"shape \(136,\)"):
        read_landmarks(tmp_path / "flat.npy")


def test_a_pickle_is_never_opened(tmp_path):
    """An NPY of objects is a pickle that could run code."""

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.save(tmp_path / "a.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not a landmark file"):
        read_landmarks(tmp_path / "a.npy")
    assert not (tmp_path / "sprung").exists()
