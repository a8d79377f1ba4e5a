"""Derived data: computed once, never trusted blindly, never in the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nextface.morphable.cache import cache_folder, cached, content_key, with_landmarks
from nextface.morphable.model import MorphableModel


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEXTFACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"a": np.arange(4), "b": np.eye(2, dtype=np.float32)}


def test_computed_once(folder: Path):
    compute = Counter()
    first, second = (cached("kind-1", "key", compute) for _ in range(2))
    assert compute.calls == 1
    assert all((first[name] == second[name]).all() and first[name].dtype == second[name].dtype for name in first)
    assert [path.name for path in folder.iterdir()] == ["kind-1-key.npz"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"not an archive at all"])
def test_damaged_file_is_computed_again(folder: Path, content: bytes):
    compute = Counter()
    cached("kind-1", "key", compute)
    (folder / "kind-1-key.npz").write_bytes(content)
    assert (cached("kind-1", "key", compute)["a"] == np.arange(4)).all()
    assert compute.calls == 2
    cached("kind-1", "key", compute)
    assert compute.calls == 2


def test_pickles_are_not_opened(folder: Path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    folder.mkdir()
    np.savez(folder / "kind-1-key.npz", a=np.array([Trap()], dtype=object))
    compute = Counter()
    cached("kind-1", "key", compute)
    assert compute.calls == 1


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEXTFACE_CACHE", str(tmp_path / "file"))
    compute = Counter()
    assert (cached("kind-1", "key", compute)["a"] == np.arange(4)).all()


def test_key_tells_content_apart():
    keys = {
        content_key(np.zeros(3)),
        content_key(np.zeros(3, dtype=np.float32)),
        content_key(np.zeros((3, 1))),
        content_key(np.ones(3)),
        content_key("ab", "c"),
        content_key("a", "bc"),
    }
    assert len(keys) == 6
    assert content_key(np.arange(6.0)[::2]) == content_key(np.array([0.0, 2.0, 4.0]))


def test_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("NEXTFACE_CACHE", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "nextface"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "nextface" / "cache"


def test_landmarks_are_placed_once_per_model_and_convention(folder: Path, toy: MorphableModel):
    bare = replace(toy, landmarks={})
    calls = []

    def place(model: MorphableModel):
        calls.append(model.name)
        return toy.landmarks["mediapipe"]

    first, second = (with_landmarks(bare, "fan", place) for _ in range(2))
    assert len(calls) == 1
    assert bare.landmarks == {} and set(first.landmarks) == {"fan"}
    for name in toy.landmarks["mediapipe"].__dataclass_fields__:
        expected = getattr(toy.landmarks["mediapipe"], name)
        assert torch.equal(getattr(first.landmarks["fan"], name), expected)
        assert torch.equal(getattr(second.landmarks["fan"], name), expected)
        assert getattr(second.landmarks["fan"], name).dtype == expected.dtype
    with_landmarks(bare, "ibug68", place)
    with_landmarks(replace(bare, mean=bare.mean * 1.01), "fan", place)
    assert len(calls) == 3


def test_own_landmarks_are_taken(folder: Path, toy: MorphableModel):
    assert with_landmarks(toy, "mediapipe", lambda _: pytest.fail("placed again")) is toy
