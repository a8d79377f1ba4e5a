"""Which model a folder holds is told from content; what is missing is said with its source and licence."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from synthetic_basel import ALBEDO_FILE, SHAPE_FILE

from nextface.errors import ModelError
from nextface.morphable import load_model
from nextface.morphable.folder import load_scale
from nextface.paths import default_model_folder

OPEN_HEAD = default_model_folder() / "open_head.h5"
BASEL = "Basel Face Model 2017 with AlbedoMM"


def put(folder: Path, *sources: Path) -> Path:
    for source in sources:
        shutil.copy(source, folder / source.name)
    return folder


def message_of(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 4
    return message


def test_open_head_alone(tmp_path: Path):
    model = load_model(str(put(tmp_path, OPEN_HEAD)))
    assert model.licence == "CC0-1.0"


def test_one_file_may_be_named():
    assert load_model(OPEN_HEAD).licence == "CC0-1.0"


def test_licensed_model_comes_before_the_open_one(small_basel: Path, tmp_path: Path):
    folder = put(tmp_path, OPEN_HEAD, small_basel / SHAPE_FILE, small_basel / ALBEDO_FILE)
    (folder / "notes.txt").write_text("bought nothing")
    assert load_model(folder).name == BASEL


def test_names_do_not_matter(small_basel: Path, tmp_path: Path):
    shutil.copy(small_basel / SHAPE_FILE, tmp_path / "b.bin")
    shutil.copy(small_basel / ALBEDO_FILE, tmp_path / "a.hdf")
    assert load_model(tmp_path).name == BASEL


def test_both_parts_in_one_file(small_basel: Path, tmp_path: Path):
    shutil.copy(small_basel / SHAPE_FILE, tmp_path / "combined.h5")
    with h5py.File(tmp_path / "combined.h5", "r+") as file, h5py.File(small_basel / ALBEDO_FILE) as albedo:
        for group in albedo:
            albedo.copy(group, file)
    assert load_model(tmp_path / "combined.h5").name == BASEL


def test_albedo_of_the_same_mesh_is_chosen(small_basel: Path, tmp_path: Path):
    folder = put(tmp_path, small_basel / SHAPE_FILE, small_basel / ALBEDO_FILE)
    with h5py.File(folder / "a_full_head.h5", "w") as file:
        file["diffuseAlbedo/model/mean"] = np.zeros(3 * 53149, dtype=np.float32)
    assert load_model(folder).name == BASEL
    (folder / ALBEDO_FILE).unlink()
    message = message_of(folder)
    assert "53149" in message and "1688 vertices" in message


def test_basel_without_albedo_is_not_replaced_by_the_open_head(small_basel: Path, tmp_path: Path):
    message = message_of(put(tmp_path, OPEN_HEAD, small_basel / SHAPE_FILE))
    for word in (SHAPE_FILE, ALBEDO_FILE, "github.com/waps101/AlbedoMM", "academic research only", "open_head.h5"):
        assert word in message


def test_albedo_without_basel(small_basel: Path, tmp_path: Path):
    message = message_of(put(tmp_path, OPEN_HEAD, small_basel / ALBEDO_FILE))
    for word in (ALBEDO_FILE, SHAPE_FILE, "faces.dmi.unibas.ch", "registration", "non-commercial"):
        assert word in message


def test_nothing_usable(tmp_path: Path):
    (tmp_path / "readme.txt").write_text("nothing here")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weather"] = np.zeros(3)
    message = message_of(tmp_path)
    assert str(tmp_path) in message and "open_head.h5" in message and SHAPE_FILE in message and ALBEDO_FILE in message


def test_no_such_folder(tmp_path: Path):
    message = message_of(tmp_path / "absent")
    assert "no such folder" in message and "open_head.h5" in message


@pytest.mark.parametrize("part", [SHAPE_FILE, ALBEDO_FILE])
def test_truncated_download(small_basel: Path, tmp_path: Path, part: str):
    folder = put(tmp_path, OPEN_HEAD, small_basel / SHAPE_FILE, small_basel / ALBEDO_FILE)
    whole = (folder / part).read_bytes()
    (folder / part).write_bytes(whole[: len(whole) // 2])
    message = message_of(folder)
    assert part in message and "download" in message


def test_page_saved_under_the_name_of_a_model(tmp_path: Path):
    (tmp_path / SHAPE_FILE).write_text("<html>please register</html>")
    message = message_of(tmp_path)
    assert SHAPE_FILE in message and "not an HDF5 file" in message


def test_open_head_of_another_format(tmp_path: Path):
    folder = put(tmp_path, OPEN_HEAD)
    with h5py.File(folder / OPEN_HEAD.name, "r+") as file:
        file.attrs["format"] = "nextface-open-head-99"
    message = message_of(folder)
    assert "nextface-open-head-99" in message and "nextface-open-head-1" in message


@pytest.mark.parametrize("dataset", ["mirror", "masks/skin", "uv/cells", "expression/model/upper", "roughness/mean"])
def test_open_head_lacks_a_dataset(tmp_path: Path, dataset: str):
    folder = put(tmp_path, OPEN_HEAD)
    with h5py.File(folder / OPEN_HEAD.name, "r+") as file:
        del file[dataset]
    message = message_of(folder)
    assert dataset in message and OPEN_HEAD.name in message


def test_scale_needs_the_licensed_model(tmp_path: Path):
    with pytest.raises(ModelError, match="no licensed model"):
        load_scale(put(tmp_path, OPEN_HEAD))
