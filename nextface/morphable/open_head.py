"""Reader of the open head, the default model (format `nextface-open-head-1`, see docs/models.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextface.errors import ModelError
from nextface.morphable.cache import embedding_of
from nextface.morphable.hdf5 import REMEDY, ModelFile, open_model_file, read_linear
from nextface.morphable.model import REGIONS, LandmarkEmbedding, MorphableModel

FORMAT = "nextface-open-head-1"


def read_open_head(path: Path) -> MorphableModel:
    """The open head from its file; half floats become float32."""
    with open_model_file(path) as file:
        found = file.attribute("format", "none")
        if found != FORMAT:
            raise ModelError(f"{path}: open head of format {found!r}, this version reads {FORMAT!r}; {REMEDY}")
        shape = read_linear(file, "shape")
        if len(shape.mean) % 3:
            raise file.wrong("shape/model/mean", f"length {len(shape.mean)}", "a multiple of 3")
        vertices = len(shape.mean) // 3
        expression = read_linear(file, "expression", 3 * vertices)
        units = len(expression.basis)
        diffuse = read_linear(file, "diffuseAlbedo", 3 * vertices)
        specular = read_linear(file, "specularAlbedo", vertices)
        if len(specular.basis) != len(diffuse.basis):
            count = f"{len(specular.basis)} components"
            raise file.wrong("specularAlbedo/model/pcaBasis", count, f"{len(diffuse.basis)} as diffuseAlbedo")
        triangles = file.triples("shape/representer/cells", vertices)
        uv = file.numbers("uv/coordinates", None, 2)
        uv_triangles = file.triples("uv/cells", len(uv))
        uv_to_vertex = file.indices("uv/vertex", len(uv), vertices)
        if len(uv_triangles) != len(triangles) or (uv_to_vertex[uv_triangles] != triangles).any():
            raise file.wrong("uv/cells", "other triangles", "those of shape/representer/cells, corner by corner")
        return MorphableModel(
            name=file.attribute("name", "open head"),
            licence=file.attribute("licence", "CC0-1.0"),
            mean=_tensor(shape.mean + expression.mean, 3),
            shape_basis=_tensor(shape.basis, 3),
            expression_basis=_tensor(expression.basis, 3),
            expression_lower=_bounds(file, "lower", units),
            expression_upper=_bounds(file, "upper", units),
            diffuse_mean=_tensor(diffuse.mean, 3),
            diffuse_basis=_tensor(diffuse.basis, 3),
            specular_mean=_tensor(specular.mean, 1),
            specular_basis=_tensor(specular.basis, 1),
            roughness_mean=_tensor(file.numbers("roughness/mean", vertices), 1),
            triangles=torch.from_numpy(triangles),
            uv=torch.from_numpy(uv),
            uv_triangles=torch.from_numpy(uv_triangles),
            uv_to_vertex=torch.from_numpy(uv_to_vertex),
            regions={name: torch.from_numpy(file.numbers(f"masks/{name}", vertices)) for name in REGIONS},
            mirror=torch.from_numpy(file.indices("mirror", vertices, vertices)),
            landmarks=_landmarks(file, len(triangles)),
        )


def _tensor(values: NDArray[np.float32], channels: int) -> Tensor:
    """`[..., V * channels] -> [..., V, channels]`"""
    return torch.from_numpy(values).unflatten(-1, (-1, channels))


def _bounds(file: ModelFile, side: str, units: int) -> Tensor:
    """A bound per expression unit, infinite ones included. `[Ke]`"""
    values = file.raw(f"expression/model/{side}")
    if values.shape != (units,) or values.dtype.kind != "f" or np.isnan(values).any():
        raise file.wrong(f"expression/model/{side}", f"shape {values.shape}", f"numbers of shape ({units},)")
    return torch.from_numpy(values.astype(np.float32))


def _landmarks(file: ModelFile, triangles: int) -> dict[str, LandmarkEmbedding]:
    group = file.handle.get("landmarks", {})
    embeddings = {}
    for convention in group:
        path = f"landmarks/{convention}"
        names = ("index", "triangle", "barycentric", "count", "weight")
        arrays = {name: file.raw(f"{path}/{name}") for name in names}
        points, widest = arrays["triangle"].shape if arrays["triangle"].ndim == 2 else (0, 0)
        expected = ((points,), (points, widest), (points, widest, 3), (points,), (points,))
        for name, shape in zip(names, expected, strict=True):
            if arrays[name].shape != shape or not points:
                raise file.wrong(f"{path}/{name}", f"shape {arrays[name].shape}", f"shape {shape}")
        file.bounded(f"{path}/triangle", arrays["triangle"], triangles)
        embeddings[convention] = embedding_of(arrays)
    return embeddings
