"""What is derived from a model (unwrap, landmark places) is kept in a folder of the user's, so that it is computed once.

Files are .npz without pickle, named by the content they were derived from: a changed model never meets old data.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nextface.morphable.model import LandmarkEmbedding, MorphableModel

logger = logging.getLogger(__name__)

Arrays = dict[str, NDArray]


def cache_folder() -> Path:
    """The environment's NEXTFACE_CACHE, else `nextface` in the operating system's place for a user's caches."""
    chosen = os.environ.get("NEXTFACE_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "nextface" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "nextface"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nextface"


def content_key(*parts: NDArray | str) -> str:
    """A name for the content of arrays and texts: 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(f"text {len(part)}".encode() + part.encode())
        else:
            digest.update(f"{part.dtype.str} {part.shape}".encode() + np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:32]


def model_key(model: MorphableModel) -> str:
    """Tells models apart whose coefficients mean different heads: 32 hexadecimal digits."""
    bases = (model.shape_basis, model.expression_basis, model.diffuse_basis)
    sampled = [basis[:, ::97] for basis in bases]
    return content_key(*(tensor.cpu().numpy() for tensor in (model.mean, model.triangles, *sampled)))


def cached(kind: str, key: str, compute: Callable[[], Arrays]) -> Arrays:
    """The arrays that `compute` returns, taken from disk when they were computed before.

    kind: first part of the file name; raise its number when the computation changes. A folder that cannot be written or a
    file that cannot be read costs time, nothing else.
    """
    path = cache_folder() / f"{kind}-{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s: unusable (%s), computed again", path, error)
    arrays = compute()
    partial = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        partial.replace(path)
    except OSError as error:
        logger.info("%s: not kept for the next run (%s)", path, error)
        try:
            partial.unlink(missing_ok=True)
        except OSError:
            pass
    return arrays


def with_landmarks(
    model: MorphableModel, convention: str, place: Callable[[MorphableModel], LandmarkEmbedding]
) -> MorphableModel:
    """The model with an embedding for `convention`: its own, else the one kept from an earlier run, else `place(model)`.

    `place` is the self-annotation of nextface.landmarks with its detector bound; it works on the CPU.
    """
    if convention in model.landmarks:
        return model
    shown = (model.mean, model.triangles, model.diffuse_mean)
    key = content_key(convention, *(tensor.cpu().numpy() for tensor in shown))

    def compute() -> Arrays:
        logger.info("%s: placing the %s landmarks, once for this model", model.name, convention)
        return {name: tensor.cpu().numpy() for name, tensor in vars(place(model.to("cpu"))).items()}

    arrays = cached("landmarks-2", key, compute)
    return replace(model, landmarks={**model.landmarks, convention: embedding_of(arrays).to(model.device)})


def embedding_of(arrays: Mapping[str, NDArray]) -> LandmarkEmbedding:
    """An embedding from arrays named as its fields."""
    return LandmarkEmbedding(
        index=torch.from_numpy(np.asarray(arrays["index"], dtype=np.int64)),
        triangle=torch.from_numpy(np.asarray(arrays["triangle"], dtype=np.int64)),
        barycentric=torch.from_numpy(np.asarray(arrays["barycentric"], dtype=np.float32)),
        count=torch.from_numpy(np.asarray(arrays["count"], dtype=np.int64)),
        weight=torch.from_numpy(np.asarray(arrays["weight"], dtype=np.float32)),
    )
