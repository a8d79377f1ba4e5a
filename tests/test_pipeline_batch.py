"""Several photos at once: as one by one, each failing alone, each taken up again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from synthetic_photo import detected, known_scene, portrait_of, save_photo
from test_pipeline import CONFIG

import nextface
from nextface import Reconstruction, Scene, pipeline
from nextface.config import OptimConfig
from nextface.errors import InputError
from nextface.fitting import driver
from nextface.landmarks.points import Landmarks
from nextface.morphable.model import MorphableModel
from nextface.photo import Photo, crop_to_face, load_image
from nextface.pipeline import reconstruct, reconstruct_file, reconstruct_files

QUICK = replace(CONFIG, iter_step1=12, iter_step2=4, iter_step3=2, batch_size=2, self_shadowing=False)


@pytest.fixture(scope="module")
def folder_of_photos(
    head: MorphableModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Landmarks]]:
    """Two people in photos of unlike size, and what a detector finds in each."""
    folder = tmp_path_factory.mktemp("people")
    found = {}
    for name, options in (("a.png", {"seed": 3, "size": 160}), ("b.png", {"seed": 5, "size": 130, "yaw": -18.0})):
        portrait = portrait_of(known_scene(head, **options), head)  # type: ignore[arg-type]
        save_photo(folder / name, portrait.observation.image[0])
        found[name] = detected(portrait, head)
    return folder, found


@pytest.fixture
def detector(folder_of_photos, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos of the folder have the known landmarks; others have no face."""
    folder, found = folder_of_photos

    def read(path: Path | str, config: OptimConfig, landmarks_file: Path | None = None) -> Photo:
        path = Path(path)
        if path.name not in found:
            raise InputError(f"{path}: no face was found")
        return crop_to_face(load_image(path), found[path.name], config.max_resolution)

    monkeypatch.setattr(pipeline, "read_photo", read)
    monkeypatch.setattr(pipeline, "write", lambda *_: [])
    return folder


def assert_same_scene(one: Scene, other: Scene, model: MorphableModel) -> None:
    """To within what docs/fitting.md promises after few iterations."""
    assert (one.height, one.width) == (other.height, other.width)
    distance = (one.vertices_camera(model) - other.vertices_camera(model)).norm(dim=-1)
    assert float(distance.max()) < 0.01
    for name, tensor in one.state().items():
        assert torch.allclose(tensor, other.state()[name], rtol=1e-3, atol=1e-3), name


def test_several_photos_come_out_as_one_by_one(detector: Path, head: MorphableModel):
    paths = [detector / "a.png", detector / "b.png", detector / "a.png"]
    many = nextface.reconstruct_many(paths, QUICK, model=head)
    assert [result.photo.name for result in many] == ["a.png", "b.png", "a.png"]
    for path, result in zip(paths, many, strict=True):
        alone = reconstruct(path, QUICK, model=head)
        assert_same_scene(result.scene, alone.scene, head)
        assert len(result.losses["statistical"]) == QUICK.iter_step2
        assert result.report == alone.report
        assert set(result.timings) == set(alone.timings)
    assert nextface.reconstruct_many([], QUICK) == []


def test_a_bad_photo_of_a_batch_fails_alone(detector: Path, head: MorphableModel, tmp_path: Path):
    save_photo(detector / "wall.png", torch.full((40, 40, 3), 0.3))
    paths = [detector / "a.png", detector / "wall.png", detector / "b.png"]
    outcomes = reconstruct_files(paths, tmp_path, QUICK, model=head, show_progress=False)
    assert isinstance(outcomes[1], InputError)
    for number in (0, 2):
        result = outcomes[number]
        assert isinstance(result, Reconstruction)
        assert (tmp_path / paths[number].name / "checkpoints" / "finished").exists()
        saved, header = Scene.load(tmp_path / paths[number].name / "checkpoints" / "stage3_output.safetensors")
        assert saved.batch == 1 and (saved.height, saved.width) == (result.photo.height, result.photo.width)
        assert header["losses"] == result.losses["maps"]
    assert all(isinstance(outcome, InputError) for outcome in reconstruct_files(paths[1:2], tmp_path, QUICK))


def test_a_batch_that_fails_as_a_whole_is_fitted_one_by_one(
    detector: Path, head: MorphableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plans = driver.STAGES

    def narrow(scene: Scene, *rest) -> Scene:  # type: ignore[no-untyped-def]
        if scene.batch > 1:
            raise MemoryError("too many")
        return plans[1].fit(scene, *rest)

    monkeypatch.setattr(driver, "STAGES", (plans[0], replace(plans[1], fit=narrow), plans[2]))
    paths = [detector / "a.png", detector / "b.png"]
    outcomes = reconstruct_files(paths, tmp_path, QUICK, model=head, show_progress=False)
    assert all(isinstance(outcome, Reconstruction) for outcome in outcomes)


def test_a_killed_batch_is_taken_up_photo_by_photo(
    detector: Path, head: MorphableModel, tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
):
    paths = [detector / "a.png", detector / "b.png"]
    plans = driver.STAGES

    def stopped(*_):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(driver, "STAGES", (*plans[:2], replace(plans[2], fit=stopped)))
        reconstruct_files(paths, tmp_path, QUICK, model=head, show_progress=False)
    runs.clear()
    alone = reconstruct_file(paths[1], tmp_path, replace(QUICK, batch_size=1), model=head, show_progress=False)
    assert runs == ["maps"], "another batchSize is no other run"
    together = reconstruct_files(paths, tmp_path, QUICK, model=head, show_progress=False)
    assert runs == ["maps", "pose", "statistical", "maps"], "one went on, the finished one began anew"
    assert isinstance(together[1], Reconstruction)
    assert_same_scene(together[1].scene, alone.scene, head)
