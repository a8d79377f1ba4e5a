"""The licensed models, read from files of their exact layout and size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from synthetic_basel import ALBEDO_FILE, FULL, SHAPE_FILE, make_patch
from test_unwrap import coverage

from nextface.errors import ModelError
from nextface.morphable import REGIONS, MorphableModel, load_model
from nextface.morphable.charts import signed_areas
from nextface.morphable.folder import load_scale
from nextface.morphable.nextface_units import from_raw, to_raw


@pytest.fixture(scope="module")
def model(basel_folder: Path) -> MorphableModel:
    return load_model(basel_folder)


@pytest.fixture
def editable(small_basel: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_basel, tmp_path / "model"))


def stored(folder: Path, name: str, *datasets: str) -> list[np.ndarray]:
    with h5py.File(folder / name) as file:
        return [file[dataset][()] for dataset in datasets]


def test_sizes(model: MorphableModel):
    vertices, triangles = 28588, len(model.triangles)
    assert model.mean.shape == (vertices, 3)
    assert model.shape_basis.shape == (199, vertices, 3)
    assert model.expression_basis.shape == (100, vertices, 3)
    assert model.diffuse_basis.shape == (145, vertices, 3)
    assert model.specular_mean.shape == (vertices, 1) and model.specular_basis.shape == (145, vertices, 1)
    assert model.roughness_mean.shape == (vertices, 1)
    assert model.uv_triangles.shape == (triangles, 3)
    assert set(model.regions) == set(REGIONS)
    for tensor in (model.mean, model.shape_basis, model.uv, model.specular_basis, model.regions["skin"]):
        assert tensor.dtype == torch.float32
    assert torch.isinf(model.expression_lower).all() and torch.isinf(model.expression_upper).all()
    assert "research" in model.licence


def test_vertices_are_nextfaces(model: MorphableModel, basel_folder: Path):
    """mean + offset + basis times RAW coefficients, straight from the file, against ours after conversion."""
    names = [f"{group}/model/{part}" for group in ("shape", "expression") for part in ("mean", "pcaBasis")]
    mean, basis, offset, expressions = stored(basel_folder, SHAPE_FILE, *names)
    noise = np.random.default_rng(0)
    scale = load_scale(basel_folder)
    raw_shape = torch.from_numpy(noise.standard_normal((1, 199)).astype(np.float32)) * scale.shape
    raw_expression = torch.from_numpy(noise.standard_normal((1, 100)).astype(np.float32)) * scale.expression
    expected = mean + offset + basis @ raw_shape[0].numpy() + expressions @ raw_expression[0].numpy()
    ours = model.vertices(from_raw(raw_shape, scale.shape), from_raw(raw_expression, scale.expression))
    assert np.abs(ours.numpy().ravel() - expected).max() < 2e-3
    assert torch.allclose(to_raw(from_raw(raw_shape, scale.shape), scale.shape), raw_shape)


def test_albedo(model: MorphableModel, basel_folder: Path):
    """Diffuse as stored; specular grey and scaled by one number, the mean skin at w = 0.72."""
    names = [
        f"{kind}Albedo/model/{part}" for kind in ("diffuse", "specular") for part in ("mean", "pcaBasis", "pcaVariance")
    ]
    mean, basis, variance, specular, specular_basis, specular_variance = stored(basel_folder, ALBEDO_FILE, *names)
    coefficients = torch.linspace(-1, 1, 145)[None]
    scaled = coefficients[0].numpy()
    expected = mean + basis @ (scaled * np.sqrt(variance))
    assert np.abs(model.diffuse(coefficients).numpy().ravel() - expected).max() < 1e-4
    grey = (specular + specular_basis @ (scaled * np.sqrt(specular_variance))).reshape(-1, 3).mean(1)
    ours = model.specular(coefficients).numpy().ravel()
    ratio = model.specular_mean.numpy().ravel() / specular.reshape(-1, 3).mean(1)
    assert np.ptp(ratio) < 1e-3 * ratio.mean()
    assert np.abs(ours - grey * ratio.mean()).max() < 1e-3
    skin = model.regions["skin"]
    assert float((model.specular_mean[:, 0] * skin).sum() / skin.sum()) == pytest.approx(0.72, abs=1e-3)
    assert 0.1 < float(model.roughness_mean.min()) and float(model.roughness_mean.max()) < 0.6


def test_mirror_of_a_lopsided_mean(model: MorphableModel):
    """The mean is 1 mm off its mirror image, the partners are those of the grid all the same."""
    place = make_patch(*FULL).place
    partner = model.mirror.numpy()
    assert np.abs(place[partner] * [1, -1] - place).max() < 1e-9
    lopsided = model.mean.numpy()[partner] * [-1, 1, 1] - model.mean.numpy()
    assert np.abs(lopsided).max() > 0.5


def test_unwrap(model: MorphableModel):
    uv, triangles = model.uv.double().numpy(), model.uv_triangles.numpy()
    assert (signed_areas(uv, triangles) > 0).all()
    assert coverage(uv, triangles, 97).max() == 1
    assert np.allclose(uv[model.mirror.numpy()] * [-1, 1] + [1, 0], uv, atol=1e-6)
    assert (model.uv_to_vertex.numpy() == np.arange(28588)).all()
    front = model.mean.numpy()[:, 2] > 60
    assert np.corrcoef(model.mean.numpy()[front, 0], uv[front, 0])[0, 1] > 0.97


def test_regions_lie_where_the_names_say(model: MorphableModel, basel_folder: Path):
    (text,) = stored(basel_folder, SHAPE_FILE, "metadata/landmarks/json")
    points = {point["id"]: np.array(point["coordinates"]) for point in json.loads(text)}
    mean = model.mean.numpy()

    def weight(region: str, place: np.ndarray) -> float:
        return float(model.regions[region][np.linalg.norm(mean - place, axis=1).argmin()])

    for side in ("left", "right"):
        eye = [points[f"{side}.eye.{name}"] for name in ("corner_inner", "corner_outer", "top", "bottom")]
        assert weight("eyes", np.mean(eye, 0)) > 0.9
        brow = [points[f"{side}.eyebrow.{name}"] for name in ("bend.lower", "bend.upper")]
        assert weight("eyebrows", np.mean(brow, 0)) > 0.9
        assert weight("ears", points[f"{side}.ear.helix.outer"]) > 0.9
        cheek = 0.5 * (points[f"{side}.eye.corner_outer"] + points[f"{side}.lips.corner"])
        assert weight("skin", cheek) == 1.0
    assert weight("lips", 0.4 * points["center.lips.upper.outer"] + 0.6 * points["center.lips.lower.outer"]) > 0.9
    assert weight("skin", points["center.nose.tip"]) == 1.0
    assert weight("scalp", points["center.front.trichion"] + [0, 12, 0]) > 0.9
    assert float(model.regions["mouth_interior"].max()) == 0.0
    total = sum(model.regions[name] for name in REGIONS)
    assert float(total.min()) > 0.99


def test_columns_and_texts_as_other_writers_store_them(editable: Path):
    """[3V, 1] means, text as characters: the same model."""
    before = load_model(editable)
    with h5py.File(editable / ALBEDO_FILE, "r+") as file:
        for name in ("diffuseAlbedo/model/mean", "specularAlbedo/model/pcaVariance"):
            values = file[name][()]
            del file[name]
            file[name] = values[:, None]
    with h5py.File(editable / SHAPE_FILE, "r+") as file:
        text = file["metadata/landmarks/json"][()]
        del file["metadata/landmarks/json"]
        file["metadata/landmarks/json"] = np.frombuffer(text, dtype=np.int8)
    after = load_model(editable)
    assert torch.equal(before.diffuse_mean, after.diffuse_mean)
    assert torch.equal(before.regions["lips"], after.regions["lips"])


def test_derived_data_are_kept(editable: Path, monkeypatch: pytest.MonkeyPatch):
    first = load_model(editable)
    monkeypatch.setattr("nextface.morphable.basel.unwrap", lambda *_: pytest.fail("computed twice"))
    second = load_model(editable)
    assert torch.equal(first.uv, second.uv) and torch.equal(first.mirror, second.mirror)


def test_trimmed(editable: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nextface.morphable.folder.TRIMMED_COMPONENTS", 3)
    model = load_model(editable, trim_pca=True)
    assert [len(basis) for basis in (model.shape_basis, model.diffuse_basis, model.specular_basis)] == [3, 3, 3]
    assert len(model.expression_basis) == 4


def delete(file: h5py.File, name: str) -> None:
    del file[name]


def shorten(file: h5py.File, name: str) -> None:
    values = file[name][()]
    del file[name]
    file[name] = values[:-3]


def spoil(file: h5py.File, name: str) -> None:
    file[name][0] = np.nan


def misdirect(file: h5py.File, name: str) -> None:
    file[name][0, 0] = 10**6


def rename_points(file: h5py.File, name: str) -> None:
    text = file[name][()].replace(b"left.lips.corner", b"left.lips.korner")
    del file[name]
    file[name] = text


@pytest.mark.parametrize(
    ("source", "dataset", "damage", "words"),
    [
        (SHAPE_FILE, "shape/model/pcaBasis", delete, "lacks the dataset"),
        (SHAPE_FILE, "expression/model/mean", delete, "lacks the dataset"),
        (SHAPE_FILE, "shape/representer/cells", delete, "lacks the dataset"),
        (SHAPE_FILE, "metadata/landmarks/json", delete, "lacks the dataset"),
        (SHAPE_FILE, "metadata/landmarks/json", rename_points, "left.lips.corner"),
        (SHAPE_FILE, "shape/model/pcaVariance", shorten, "expected numbers of shape"),
        (SHAPE_FILE, "expression/model/pcaBasis", shorten, "expected numbers of shape"),
        (SHAPE_FILE, "shape/model/mean", spoil, "not finite"),
        (SHAPE_FILE, "shape/representer/cells", misdirect, "out of range"),
        (ALBEDO_FILE, "specularAlbedo/model/mean", delete, "lacks the dataset"),
        (ALBEDO_FILE, "specularAlbedo/model/pcaBasis", shorten, "expected numbers of shape"),
        (ALBEDO_FILE, "diffuseAlbedo/model/pcaVariance", spoil, "not finite"),
    ],
)
def test_damage_names_file_dataset_and_remedy(editable: Path, source: str, dataset: str, damage, words: str):
    with h5py.File(editable / source, "r+") as file:
        damage(file, dataset)
    with pytest.raises(ModelError) as caught:
        load_model(editable)
    message = str(caught.value)
    assert source in message and dataset in message and words in message and "download it again" in message
    assert "\n" not in message
