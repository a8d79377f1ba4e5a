"""From a photo and its landmarks to a reconstruction: what comes back, what is refused, and what is taken up again."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from synthetic_photo import Portrait, degrees_apart, detected, known_scene, landmark_rows, portrait_of, save_photo
from test_scene import Bomb

import nextface
from nextface import Reconstruction, Scene
from nextface.config import OptimConfig
from nextface.errors import InputError, ModelError, OutputError
from nextface.fitting import driver
from nextface.landmarks import annotate, read_photo
from nextface.morphable import load_model
from nextface.morphable.model import LandmarkEmbedding, MorphableModel
from nextface.photo import Photo
from nextface.pipeline import observation_of, reconstruct, reconstruct_file
from nextface.rendering.render import render

CONFIG = OptimConfig(
    device="cpu",
    bands=5,
    texture_resolution=256,
    max_resolution=96,
    iter_step1=30,
    iter_step2=12,
    iter_step3=4,
    debug_frequency=0,
)


def shoot(folder: Path, model: MorphableModel, convention: str = "mediapipe", **scene) -> tuple[Path, Path, Portrait]:  # type: ignore[no-untyped-def]
    """A photo file, its landmark file and the truth."""
    portrait = portrait_of(known_scene(model, **{"seed": 3, "size": 160, **scene}), model, convention)
    photo = save_photo(folder / "someone.png", portrait.observation.image[0])
    landmarks = folder / "someone.json"
    content = {"convention": convention, "points": landmark_rows(detected(portrait, model))}
    landmarks.write_text(json.dumps(content))
    return photo, landmarks, portrait


@pytest.fixture(scope="module")
def shot(head: MorphableModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Portrait]:
    return shoot(tmp_path_factory.mktemp("photo"), head)


@pytest.fixture(scope="module")
def photo(shot: tuple[Path, Path, Portrait]) -> Photo:
    return read_photo(shot[0], CONFIG, shot[1])


@pytest.fixture(scope="module")
def result(photo: Photo, head: MorphableModel) -> Reconstruction:
    return nextface.reconstruct(photo, CONFIG, model=head)


def seen_in_crop(truth: Scene, photo: Photo) -> Scene:
    crop = photo.crop
    corner = torch.tensor([[crop.left, crop.top]])
    return replace(
        truth,
        focal=truth.focal * crop.scale,
        principal=(truth.principal - corner) * crop.scale,
        height=crop.height,
        width=crop.width,
    )


def test_a_reconstruction_s_fields(result: Reconstruction, photo: Photo, head: MorphableModel):
    assert result.photo is photo
    assert result.config is CONFIG
    assert result.model.name == head.name
    assert set(result.losses) == {"pose", "statistical", "maps"}
    assert len(result.losses["statistical"]) == CONFIG.iter_step2
    assert all(math.isfinite(loss) for losses in result.losses.values() for loss in losses)
    assert set(result.timings) >= {"pose", "statistical", "maps"}
    assert result.report == {"faces": 1}
    json.dumps(result.report)


def test_a_reconstruction_s_scene_has_the_documented_shapes(result: Reconstruction, photo: Photo, head: MorphableModel):
    scene = result.scene
    expected = {
        "shape": (1, head.shape_basis.shape[0]),
        "albedo": (1, head.diffuse_basis.shape[0]),
        "expression": (1, head.expression_basis.shape[0]),
        "rotation": (1, 3),
        "translation": (1, 3),
        "focal": (1,),
        "principal": (1, 2),
        "light": (1, 25, 3),
        "exposure": (1,),
        "white_balance": (1, 2),
    }
    assert {name: tuple(getattr(scene, name).shape) for name in expected} == expected
    assert (scene.height, scene.width) == (photo.height, photo.width)
    assert max(scene.height, scene.width) <= CONFIG.max_resolution
    assert scene.maps is not None
    assert scene.maps.diffuse.resolution == CONFIG.texture_resolution
    assert all(tensor.dtype == torch.float32 for tensor in scene.state().values())


def test_the_head_lies_over_the_photo_s(result: Reconstruction, shot, head: MorphableModel):
    truth = seen_in_crop(shot[2].truth, result.photo)
    assert float(degrees_apart(truth, result.scene)) < 4.0
    both = render(truth, head).mask, render(result.scene, head).mask
    overlap = (both[0] & both[1]).sum() / (both[0] | both[1]).sum()
    assert float(overlap) > 0.85


def test_settings_left_out_are_nextface_s_defaults(photo: Photo, head: MorphableModel):
    found = reconstruct(photo, model=head, skip={1, 2, 3})
    assert found.config == OptimConfig()
    assert found.scene.bands == 9


def test_a_photo_without_a_face_is_refused(tmp_path: Path):
    path = save_photo(tmp_path / "wall.png", torch.full((80, 80, 3), 0.3))
    with pytest.raises(InputError, match="no face was found"):
        reconstruct(path, CONFIG)


def test_a_missing_model_is_said(photo: Photo, tmp_path: Path):
    with pytest.raises(ModelError, match="open_head.h5"):
        reconstruct(photo, replace(CONFIG, path=str(tmp_path)))


def test_starting_from_a_checkpoint(result: Reconstruction, photo: Photo, head: MorphableModel, tmp_path: Path):
    path = tmp_path / "scene.safetensors"
    result.scene.save(path)
    again = reconstruct(photo, CONFIG, model=head, checkpoint=path, skip={1, 2, 3})
    assert again.scene.state().keys() == result.scene.state().keys()
    assert all(torch.equal(tensor, result.scene.state()[name]) for name, tensor in again.scene.state().items())


@pytest.mark.parametrize("name", ["shape", "albedo", "expression", "light"])
def test_a_checkpoint_of_another_model_is_refused(
    name: str, result: Reconstruction, photo: Photo, head: MorphableModel, tmp_path: Path
):
    path = tmp_path / "other.safetensors"
    cut = getattr(result.scene, name)[:, :4].contiguous()
    replace(result.scene, maps=None, **{name: cut}).save(path)
    with pytest.raises(InputError, match=f"other.safetensors: 4 {name} coefficients") as caught:
        reconstruct(photo, CONFIG, model=head, checkpoint=path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_a_model_of_the_same_size_is_refused(
    result: Reconstruction, photo: Photo, head: MorphableModel, tmp_path: Path
):
    from nextface.export import notes

    path = tmp_path / "other.safetensors"
    result.scene.save(path, **notes(photo, CONFIG, replace(head, mean=head.mean + 1.0)))
    with pytest.raises(InputError, match="another model"):
        reconstruct(photo, CONFIG, model=head, checkpoint=path)
    result.scene.save(path, **notes(photo, CONFIG, head))
    reconstruct(photo, CONFIG, model=head, checkpoint=path, skip={1, 2, 3})


def test_a_checkpoint_of_another_crop_is_refused(
    result: Reconstruction, photo: Photo, head: MorphableModel, tmp_path: Path
):
    path = tmp_path / "other.safetensors"
    replace(result.scene, maps=None, height=50, width=40).save(path)
    with pytest.raises(InputError, match="crop of 40 x 50 pixels"):
        reconstruct(photo, CONFIG, model=head, checkpoint=path)


def test_a_hostile_pickle_as_checkpoint_is_never_unpickled(photo: Photo, head: MorphableModel, tmp_path: Path):
    mark = tmp_path / "exploded"
    path = tmp_path / "stage3_output.pickle"
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(InputError, match="stage3_output.pickle: not a saved scene"):
        reconstruct(photo, CONFIG, model=head, checkpoint=path)
    assert not mark.exists()


def test_the_focal_length_comes_from_the_first_source_that_knows_it(photo: Photo, head: MorphableModel):
    diagonal = math.hypot(photo.crop.full_width, photo.crop.full_height) * photo.crop.scale
    unknown = observation_of(photo, head, CONFIG)
    assert float(unknown.focal) == pytest.approx(50.0 / 43.27 * diagonal, rel=1e-4)
    exif = observation_of(replace(photo, focal=333.0), head, CONFIG)
    assert float(exif.focal) == pytest.approx(333.0)
    assert 0.0 < float(exif.focal_sd) < float(unknown.focal_sd)
    fixed = observation_of(photo, head, replace(CONFIG, optimize_focal_length=False))
    assert float(fixed.focal_sd) == 0.0


def test_a_fixed_focal_length_survives_the_whole_run(photo: Photo, head: MorphableModel):
    config = replace(CONFIG, optimize_focal_length=False, iter_step2=4, iter_step3=0)
    found = reconstruct(replace(photo, focal=250.0), config, model=head)
    assert float(found.scene.focal) == pytest.approx(250.0, rel=1e-5)


@pytest.fixture
def interrupted(
    shot, head: MorphableModel, tmp_path: Path, runs: list[str]
) -> Callable[..., tuple[Reconstruction, list[str]]]:
    """A run killed in its maps stage; the function runs it again with changes and says which stages that took."""
    path, landmarks, _ = shot
    plans = driver.STAGES

    def stopped(*_):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(driver, "STAGES", (*plans[:2], replace(plans[2], fit=stopped)))
        reconstruct_file(path, tmp_path, CONFIG, landmarks_file=landmarks, model=head, show_progress=False)

    def again(photo: Path = path, config: OptimConfig = CONFIG, model: MorphableModel = head):  # type: ignore[no-untyped-def]
        runs.clear()
        found = reconstruct_file(photo, tmp_path, config, landmarks_file=landmarks, model=model, show_progress=False)
        return found, list(runs)

    return again


def test_a_killed_run_is_taken_up(interrupted, result: Reconstruction, tmp_path: Path):
    found, stages = interrupted()
    assert stages == ["maps"]
    for name, tensor in found.scene.state().items():
        assert tensor.numpy().tobytes() == result.scene.state()[name].numpy().tobytes(), name
    folder = tmp_path / "someone.png" / "checkpoints"
    assert {item.name for item in folder.iterdir()} == {
        "stage1_output.safetensors", "stage2_output.safetensors", "stage3_output.safetensors", "finished",
    }  # fmt: skip


def test_a_finished_run_starts_afresh(interrupted):
    interrupted()
    _, stages = interrupted()
    assert stages == ["pose", "statistical", "maps"]


def test_another_setting_does_not_resume(interrupted):
    _, stages = interrupted(config=replace(CONFIG, weight_shape_reg=0.002))
    assert stages == ["pose", "statistical", "maps"]


def test_how_much_is_logged_does_not_matter(interrupted):
    _, stages = interrupted(config=replace(CONFIG, verbose=True))
    assert stages == ["maps"]


def test_another_photo_of_the_same_name_does_not_resume(interrupted, shot, tmp_path: Path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    changed = save_photo(folder / "someone.png", 0.8 * shot[2].observation.image[0])
    _, stages = interrupted(photo=changed)
    assert stages == ["pose", "statistical", "maps"]


def test_another_model_does_not_resume(interrupted, head: MorphableModel):
    """As when a licensed model is dropped into the folder after a run was killed."""
    _, stages = interrupted(model=head.trimmed(10))
    assert stages == ["pose", "statistical", "maps"]


def test_an_output_folder_that_cannot_be_made_is_said(shot, head: MorphableModel, tmp_path: Path):
    path, landmarks, _ = shot
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be created"):
        reconstruct_file(path, tmp_path / "file", CONFIG, landmarks_file=landmarks, model=head)


def nearest_embedding(model: MorphableModel, head: MorphableModel, convention: str) -> LandmarkEmbedding:
    """The open head's landmarks on a model sampled from it: the triangle at the nearest vertex, that corner."""
    embedding = head.landmarks[convention]
    places = (head.mean[head.triangles[embedding.triangle]] * embedding.barycentric[..., None]).sum(2)
    nearest = torch.cdist(places.flatten(0, 1), model.mean).argmin(1)
    first = torch.zeros(len(model.mean), dtype=torch.int64)
    corner = torch.zeros(len(model.mean), dtype=torch.int64)
    for number in range(3):
        first[model.triangles[:, number]] = torch.arange(len(model.triangles))
        corner[model.triangles[:, number]] = number
    barycentric = torch.nn.functional.one_hot(corner[nearest], 3).float()
    return LandmarkEmbedding(
        embedding.index,
        first[nearest].view_as(embedding.triangle),
        barycentric.view_as(embedding.barycentric),
        embedding.count,
        embedding.weight,
    )


@pytest.mark.parametrize("size", ["small", "full"])
def test_a_fit_of_the_licensed_models_from_their_files(
    size: str, head: MorphableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    """`path` names a folder with the Basel Face Model and AlbedoMM: read, annotated once, fitted through all stages."""
    folder = request.getfixturevalue("small_basel" if size == "small" else "basel_folder")
    bare = load_model(folder)
    model = replace(bare, landmarks={"mediapipe": nearest_embedding(bare, head, "mediapipe")})
    annotated: list[str] = []

    def stand_in(of: MorphableModel, *_) -> LandmarkEmbedding:  # type: ignore[no-untyped-def]
        annotated.append(of.name)
        return model.landmarks["mediapipe"]

    monkeypatch.setattr(annotate, "annotate", stand_in)
    photo, landmarks, portrait = shoot(tmp_path, model, yaw=15.0, strength=0.5)
    config = replace(CONFIG, path=str(folder), iter_step2=6, iter_step3=3)
    crop = read_photo(photo, config, landmarks)
    found = reconstruct(crop, config)
    assert "Basel" in found.model.name
    assert annotated == [bare.name]
    assert found.scene.shape.shape[1] == len(bare.shape_basis)
    assert found.scene.is_finite() and found.scene.maps is not None
    assert found.report == {"faces": 1}
    assert float(degrees_apart(seen_in_crop(portrait.truth, crop), found.scene)) < 4.0
    assert found.losses["statistical"][-1] < found.losses["statistical"][0]
    reconstruct(crop, replace(config, iter_step1=1), skip={2, 3})
    assert annotated == [bare.name], "annotated a second time instead of being kept"


def test_the_68_points_of_a_file_slide_along_the_silhouette(head: MorphableModel, tmp_path: Path):
    photo, landmarks, portrait = shoot(tmp_path, head, convention="ibug68", yaw=30.0)
    crop = read_photo(photo, CONFIG, landmarks)
    found = reconstruct(crop, CONFIG, model=head, skip={2, 3})
    assert crop.landmarks.convention == "ibug68"
    assert float(degrees_apart(seen_in_crop(portrait.truth, crop), found.scene)) < 4.0
