"""Results from a saved scene alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nextface import export
from nextface.errors import InputError
from nextface.export import saved


@pytest.fixture
def scene_path(reconstruction, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "nextface.morphable.load_model", lambda folder, trim_pca=False: reconstruction.model, raising=False
    )
    notes = saved.notes(reconstruction.photo, reconstruction.config, reconstruction.model)
    for number, stage in ((1, "pose"), (3, "maps")):
        path = tmp_path / "checkpoints" / f"stage{number}_output.safetensors"
        path.parent.mkdir(exist_ok=True)
        record = {"losses": reconstruction.losses[stage], "seconds": reconstruction.timings[stage]}
        reconstruction.scene.save(path, stage=stage, fingerprint="abc", **record, **notes)
    return path


def test_a_saved_scene_gives_the_reconstruction_back(reconstruction, scene_path):
    again = saved.load(scene_path)
    torch.testing.assert_close(again.photo.image, reconstruction.photo.image, rtol=0, atol=0)
    torch.testing.assert_close(again.photo.landmarks.points, reconstruction.photo.landmarks.points, rtol=0, atol=0)
    assert again.photo.crop == reconstruction.photo.crop and again.photo.principal == reconstruction.photo.principal
    assert again.config == reconstruction.config
    assert again.losses == reconstruction.losses and again.timings == reconstruction.timings
    for name, tensor in reconstruction.scene.state().items():
        torch.testing.assert_close(again.scene.state()[name], tensor, rtol=0, atol=0)


def test_export_from_a_saved_scene_writes_the_same_files(scene_path, folder, tmp_path):
    names = {"maps", "glb", "strip", "curves"}
    written = export.export_scene(scene_path, tmp_path / "again", names)
    assert len(written) == 9
    for path in written:
        assert path.read_bytes() == (folder / path.relative_to(tmp_path / "again")).read_bytes(), path.name


def test_losses_of_another_run_beside_the_scene_are_left_out(reconstruction, scene_path):
    other = scene_path.with_name("stage1_output.safetensors")
    reconstruction.scene.save(other, stage="pose", fingerprint="other", losses=[5.0], seconds=1.0)
    assert list(saved.load(scene_path).losses) == ["maps"]


def test_a_moved_photo_is_asked_for_and_accepted(reconstruction, scene_path, tmp_path):
    original = reconstruction.photo.source.path
    moved = tmp_path / "moved.png"
    original.rename(moved)
    try:
        with pytest.raises(InputError, match=r"someone & co\.png.*--input"):
            saved.load(scene_path)
        assert saved.load(scene_path, moved).photo.name == "moved.png"
    finally:
        moved.rename(original)


def test_another_photo_is_refused(scene_path, tmp_path):
    from PIL import Image

    Image.new("RGB", (100, 90)).save(tmp_path / "other.png")
    with pytest.raises(InputError, match=r"other\.png: 100 x 90 pixels, but .* 440 x 320"):
        saved.load(scene_path, tmp_path / "other.png")


def test_a_scene_without_its_record_says_so(reconstruction, tmp_path):
    reconstruction.scene.save(tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match=r"bare\.safetensors.*no usable record"):
        saved.load(tmp_path / "bare.safetensors")


def test_a_file_that_is_no_scene(tmp_path):
    (tmp_path / "photo.safetensors").write_bytes(b"not a scene")
    with pytest.raises(InputError, match=r"photo\.safetensors: not a saved scene"):
        saved.load(tmp_path / "photo.safetensors")


@pytest.mark.parametrize("change", ["fewer components", "other vertices"])
def test_another_model_is_refused(reconstruction, scene_path, monkeypatch, change):
    model = reconstruction.model
    other = model.trimmed(2) if change == "fewer components" else replace(model, mean=model.mean * 1.01)
    monkeypatch.setattr("nextface.morphable.load_model", lambda folder, trim_pca=False: other)
    with pytest.raises(InputError, match=r"stage3_output.*another model than 'toy head'.*run the reconstruction again"):
        saved.load(scene_path)
