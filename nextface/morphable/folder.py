"""Which model a folder holds, told from the content of its HDF5 files and not from their names."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import h5py

from nextface.errors import ModelError
from nextface.morphable.basel import CoefficientScale, read_basel, read_scale, vertex_count
from nextface.morphable.hdf5 import ModelFile, open_model_file
from nextface.morphable.model import MorphableModel
from nextface.morphable.open_head import read_open_head

logger = logging.getLogger(__name__)

TRIMMED_COMPONENTS = 80

GET_BASEL = (
    "model2017-1_face12_nomouth.h5 (Basel Face Model 2017; after registration at https://faces.dmi.unibas.ch/bfm/; "
    "non-commercial research)"
)
GET_ALBEDO = (
    "albedoModel2020_face12_albedoPart.h5 (AlbedoMM, Smith et al. 2020; from the releases of "
    "https://github.com/waps101/AlbedoMM; academic research only)"
)
GET_OPEN = "open_head.h5 (the open head that ships in baselMorphableModel/; CC0)"


@dataclass
class FolderContent:
    """The model files of a folder by kind, each list in the order of names."""

    open_heads: list[Path] = field(default_factory=list)
    shapes: list[Path] = field(default_factory=list)
    albedos: list[Path] = field(default_factory=list)


def load_model(folder: Path | str, trim_pca: bool = False) -> MorphableModel:
    """The model in a folder, or in a single file.

    The Basel Face Model 2017 with AlbedoMM where their files are there, else the open head, which is never a substitute for
    a licensed model of which a part is missing. trim_pca: keep only the first 80 components of shape and albedo.
    Raises ModelError, saying what is missing, where to get it and under which licence.
    """
    content = look_into(Path(folder))
    if content.shapes or content.albedos:
        model = read_basel(*_matching_pair(Path(folder), content))
    elif content.open_heads:
        model = read_open_head(content.open_heads[0])
    else:
        raise ModelError(
            f"{folder}: holds no morphable model; put there {GET_OPEN}, or both {GET_BASEL} and {GET_ALBEDO}"
        )
    return model.trimmed(TRIMMED_COMPONENTS) if trim_pca else model


def load_scale(folder: Path | str) -> CoefficientScale:
    """Standard deviations of the licensed model's coefficients, for NextFace's raw ones."""
    return read_scale(*_matching_pair(Path(folder), look_into(Path(folder))))


def look_into(folder: Path) -> FolderContent:
    """Sort the HDF5 files of a folder (or the one file given) by content; other files and folders are passed over."""
    if folder.is_file():
        candidates = [folder]
    elif folder.is_dir():
        candidates = sorted(path for path in folder.iterdir() if path.is_file())
    else:
        raise ModelError(
            f"{folder}: no such folder; set `path` to a folder that holds {GET_OPEN}, or both {GET_BASEL} and {GET_ALBEDO}"
        )
    content = FolderContent()
    for path in candidates:
        if h5py.is_hdf5(path):
            with open_model_file(path) as file:
                _sort_in(file, content)
        elif path.suffix.lower() in (".h5", ".hdf5"):
            raise ModelError(f"{path}: not an HDF5 file (an incomplete download?); copy or download the file again")
    return content


def _sort_in(file: ModelFile, content: FolderContent) -> None:
    if file.attribute("format", "").startswith("nextface-open-head"):
        content.open_heads.append(file.path)
        return
    groups = set(file.handle)
    if groups & {"shape", "expression"}:
        content.shapes.append(file.path)
    if groups & {"diffuseAlbedo", "specularAlbedo"}:
        content.albedos.append(file.path)


def _matching_pair(folder: Path, content: FolderContent) -> tuple[Path, Path]:
    """The first shape file that an albedo file fits, vertex for vertex."""
    if not content.shapes and not content.albedos:
        raise ModelError(f"{folder}: holds no licensed model; put there both {GET_BASEL} and {GET_ALBEDO}")
    if not content.albedos:
        raise ModelError(
            f"{content.shapes[0]}: the Basel Face Model alone has no separate diffuse and specular albedo; put beside it "
            f"{GET_ALBEDO}, or set `path` to a folder that holds only {GET_OPEN}"
        )
    if not content.shapes:
        raise ModelError(
            f"{content.albedos[0]}: AlbedoMM has no shape; put beside it {GET_BASEL}, "
            f"or set `path` to a folder that holds only {GET_OPEN}"
        )
    found = []
    for shape in content.shapes:
        for albedo in content.albedos:
            counts = vertex_count(shape, "shape"), vertex_count(albedo, "diffuseAlbedo")
            if counts[0] == counts[1]:
                logger.info("model: %s with %s", shape, albedo)
                return shape, albedo
            found.append(f"{shape.name} has {counts[0]} vertices, {albedo.name} has {counts[1]}")
    raise ModelError(f"{folder}: shape and albedo are of different meshes ({'; '.join(found)}); put there {GET_ALBEDO}")
