"""Reading a model's HDF5 file: every fault becomes a ModelError that names file, dataset and remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from nextface.errors import ModelError

REMEDY = "the file is damaged or of another layout; copy or download it again"


@dataclass(frozen=True)
class ModelFile:
    """An open model file."""

    path: Path
    handle: h5py.File

    def missing(self, name: str) -> ModelError:
        return ModelError(f"{self.path}: lacks the dataset '{name}'; {REMEDY}")

    def wrong(self, name: str, found: object, expected: str) -> ModelError:
        return ModelError(f"{self.path}: dataset '{name}' has {found}, expected {expected}; {REMEDY}")

    def dataset(self, name: str) -> h5py.Dataset:
        found = self.handle.get(name)
        if not isinstance(found, h5py.Dataset):
            raise self.missing(name)
        return found

    def raw(self, name: str) -> NDArray:
        """A dataset as it is stored."""
        dataset = self.dataset(name)
        try:
            return np.asarray(dataset[()])
        except (OSError, TypeError, ValueError) as error:
            raise ModelError(f"{self.path}: dataset '{name}' cannot be read ({error}); {REMEDY}") from error

    def numbers(self, name: str, rows: int | None = None, columns: int | None = None) -> NDArray[np.float32]:
        """Finite numbers: `[rows]` (also stored as [rows, 1]), or `[rows, columns]` where `columns` is not None.

        rows: None accepts any; columns: 0 accepts any.
        """
        values = self.raw(name)
        if columns is None and values.ndim == 2 and 1 in values.shape:
            values = values.reshape(-1)
        dimensions = 1 if columns is None else 2
        fits = values.ndim == dimensions and values.dtype.kind in "fiu" and values.size > 0
        fits = fits and (rows is None or values.shape[0] == rows) and (not columns or values.shape[1] == columns)
        if not fits:
            wish = ["any" if rows is None else rows] + ([] if columns is None else [columns or "any"])
            raise self.wrong(name, f"shape {values.shape} of {values.dtype}", f"numbers of shape {tuple(wish)}")
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise self.wrong(name, "values that are not finite", "finite numbers")
        return values

    def triples(self, name: str, bound: int) -> NDArray[np.int64]:
        """Triangles stored as [3, T] or [T, 3], indices below `bound`. `[T, 3]`"""
        values = self.raw(name)
        if values.ndim != 2 or 3 not in values.shape or values.dtype.kind not in "iuf":
            raise self.wrong(name, f"shape {values.shape} of {values.dtype}", "triangles, shape (3, T)")
        return self.bounded(name, values.T if values.shape[0] == 3 else values, bound)

    def indices(self, name: str, count: int, bound: int) -> NDArray[np.int64]:
        """`count` indices below `bound`. `[count]`"""
        values = self.raw(name).reshape(-1)
        if len(values) != count or values.dtype.kind not in "iu":
            raise self.wrong(name, f"shape {values.shape} of {values.dtype}", f"indices of shape ({count},)")
        return self.bounded(name, values, bound)

    def bounded(self, name: str, values: NDArray, bound: int) -> NDArray[np.int64]:
        whole = np.ascontiguousarray(values).astype(np.int64)
        if whole.size == 0 or whole.min() < 0 or whole.max() >= bound:
            raise self.wrong(name, "indices out of range", f"0 to {bound - 1}")
        return whole

    def text(self, name: str) -> str:
        """A string, also one stored as bytes or as an array of characters."""
        value = self.raw(name)
        stored = value.item() if value.ndim == 0 or value.size == 1 else value.tobytes()
        if isinstance(stored, str):
            return stored
        if not isinstance(stored, bytes):
            raise self.wrong(name, f"type {value.dtype}", "text")
        return stored.rstrip(b"\0").decode("utf-8", errors="replace")

    def attribute(self, name: str, default: str) -> str:
        value = self.handle.attrs.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)


@contextmanager
def open_model_file(path: Path) -> Iterator[ModelFile]:
    try:
        handle = h5py.File(path, "r")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read as HDF5 ({error}); copy or download the file again") from error
    with handle:
        yield ModelFile(path, handle)


@dataclass(frozen=True)
class LinearPart:
    """mean [N] plus basis [K, N] in standard deviations; `deviation` [K] is what the stored basis was scaled by."""

    mean: NDArray[np.float32]
    basis: NDArray[np.float32]
    deviation: NDArray[np.float32]


def read_linear(file: ModelFile, group: str, size: int | None = None) -> LinearPart:
    """`<group>/model/{mean, pcaBasis, pcaVariance}`, the basis [N, K] times sqrt(pcaVariance)."""
    mean = file.numbers(f"{group}/model/mean", size)
    basis = file.numbers(f"{group}/model/pcaBasis", len(mean), 0)
    variance = file.numbers(f"{group}/model/pcaVariance", basis.shape[1])
    if variance.min() < 0:
        raise file.wrong(f"{group}/model/pcaVariance", "negative values", "variances")
    deviation = np.sqrt(variance)
    scaled = np.ascontiguousarray(basis.T)
    scaled *= deviation[:, None]
    return LinearPart(mean, scaled, deviation)
