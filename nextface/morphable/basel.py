"""Reader of the Basel Face Model 2017 with the albedo of AlbedoMM. Layouts, scales and licences: docs/models.md."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from nextface.errors import ModelError
from nextface.morphable.cache import Arrays, cached, content_key
from nextface.morphable.hdf5 import LinearPart, ModelFile, open_model_file, read_linear
from nextface.morphable.mirror import mirror_index
from nextface.morphable.model import REGIONS, MorphableModel
from nextface.morphable.regions import face_regions, needed_points
from nextface.morphable.unwrap import unwrap

logger = logging.getLogger(__name__)

LICENCE = (
    "Basel Face Model 2017: University of Basel, non-commercial research after registration; "
    "AlbedoMM: academic research only"
)
SKIN_SPECULAR = 0.72
"""Mean Fresnel weight of the skin that AlbedoMM's specular albedo is scaled to, as on the open head: the mean specular
intensity 0.18 of Weyrich et al. 2006 (149 faces; GPU Gems 3, chapter 14), whose lobe is four times ours."""
ROUGHNESS = {"skin": 0.55, "lips": 0.42, "eyes": 0.15}
"""Perceptual roughness of regions, others as skin: r = sqrt(m) with the mean facet slope m = 0.3 of the same measurement;
lips and eyes are wet."""


@dataclass(frozen=True)
class CoefficientScale:
    """Standard deviations of the coefficients: NextFace's raw coefficient = ours times these. [199], [100], [145]"""

    shape: Tensor
    expression: Tensor
    albedo: Tensor


def read_basel(shape_path: Path, albedo_path: Path) -> MorphableModel:
    """The model from its two files (one path twice where a file holds both)."""
    with open_model_file(shape_path) as file:
        shape = read_linear(file, "shape")
        if len(shape.mean) % 3:
            raise file.wrong("shape/model/mean", f"length {len(shape.mean)}", "a multiple of 3")
        count = len(shape.mean) // 3
        expression = read_linear(file, "expression", 3 * count)
        triangles = file.triples("shape/representer/cells", count)
        points = _named_points(file)
    with open_model_file(albedo_path) as file:
        diffuse = read_linear(file, "diffuseAlbedo", 3 * count)
        specular = read_linear(file, "specularAlbedo", 3 * count)
        if len(specular.basis) != len(diffuse.basis):
            found = f"{len(specular.basis)} components"
            raise file.wrong("specularAlbedo/model/pcaBasis", found, f"{len(diffuse.basis)} as diffuseAlbedo")
    mean = (shape.mean + expression.mean).reshape(-1, 3)
    derived = _derived(mean, triangles, points)
    regions = {name: derived[f"region_{name}"] for name in REGIONS}
    specular_mean, specular_basis = _specular(specular, regions["skin"])
    return MorphableModel(
        name="Basel Face Model 2017 with AlbedoMM",
        licence=LICENCE,
        mean=torch.from_numpy(mean),
        shape_basis=_tensor(shape.basis),
        expression_basis=_tensor(expression.basis),
        expression_lower=torch.full((len(expression.basis),), -torch.inf),
        expression_upper=torch.full((len(expression.basis),), torch.inf),
        diffuse_mean=_tensor(diffuse.mean),
        diffuse_basis=_tensor(diffuse.basis),
        specular_mean=torch.from_numpy(specular_mean),
        specular_basis=torch.from_numpy(specular_basis),
        roughness_mean=torch.from_numpy(_roughness(regions)),
        triangles=torch.from_numpy(triangles),
        uv=torch.from_numpy(derived["uv"]),
        uv_triangles=torch.from_numpy(derived["uv_triangles"].astype(np.int64)),
        uv_to_vertex=torch.from_numpy(derived["uv_to_vertex"].astype(np.int64)),
        regions={name: torch.from_numpy(weights) for name, weights in regions.items()},
        mirror=torch.from_numpy(derived["mirror"].astype(np.int64)),
    )


def read_scale(shape_path: Path, albedo_path: Path) -> CoefficientScale:
    """What separates our coefficients from NextFace's: sqrt(pcaVariance) of each basis."""
    with open_model_file(shape_path) as file:
        shape = file.numbers("shape/model/pcaVariance")
        expression = file.numbers("expression/model/pcaVariance")
    with open_model_file(albedo_path) as file:
        albedo = file.numbers("diffuseAlbedo/model/pcaVariance")
    return CoefficientScale(*(torch.from_numpy(np.sqrt(variance)) for variance in (shape, expression, albedo)))


def vertex_count(path: Path, group: str) -> int:
    """Vertices of the mesh that `<group>/model/mean` is defined on."""
    with open_model_file(path) as file:
        return int(np.prod(file.dataset(f"{group}/model/mean").shape)) // 3


def _tensor(values: NDArray[np.float32]) -> Tensor:
    """`[..., 3V] -> [..., V, 3]`"""
    return torch.from_numpy(values).unflatten(-1, (-1, 3))


def _specular(albedo: LinearPart, skin: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fresnel weight w from AlbedoMM's specular albedo: mean [V, 1] and basis [K, V, 1].

    The albedo is the intensity of the polarisation difference in a light stage, in units of its own calibration. NextFace
    takes it for F0 as it is; its pattern over the face and between people is what was measured. Here grey (the mean of
    RGB) is scaled by one number so that the skin of the mean face has w = 0.72, F0 = 0.02.
    """
    mean = albedo.mean.reshape(-1, 3).mean(1)
    level = float((mean * skin).sum() / skin.sum())
    if level <= 0:
        raise ModelError("AlbedoMM's specular albedo is not positive on the skin; copy or download the file again")
    scale = SKIN_SPECULAR / level
    basis = albedo.basis.reshape(len(albedo.basis), -1, 3).mean(2)
    return (mean * scale)[:, None], (basis * scale)[:, :, None]


def _roughness(regions: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    roughness = np.full(len(regions["skin"]), ROUGHNESS["skin"], dtype=np.float32)
    for name in ("lips", "eyes"):
        roughness += regions[name] * (ROUGHNESS[name] - ROUGHNESS["skin"])
    return roughness[:, None]


def _named_points(file: ModelFile) -> dict[str, NDArray[np.float64]]:
    """`metadata/landmarks/json`: a list of {"id": name, "coordinates": [x, y, z], ...} in mm."""
    name = "metadata/landmarks/json"
    try:
        points = {str(point["id"]): np.array(point["coordinates"], float) for point in json.loads(file.text(name))}
    except (ValueError, TypeError, KeyError) as error:
        raise file.wrong(name, f"unreadable text ({error})", "a JSON list of named points") from error
    absent = [needed for needed in needed_points() if needed not in points or points[needed].shape != (3,)]
    if absent:
        raise file.wrong(name, f"no point named {', '.join(absent)}", "the named points of the Basel Face Model 2017")
    return points


def _derived(mean: NDArray[np.float32], triangles: NDArray[np.int64], points: dict[str, NDArray[np.float64]]) -> Arrays:
    """Unwrap, mirror map and regions, from the cache where they are there."""
    names = sorted(points)
    key = content_key(mean, triangles, " ".join(names), np.stack([points[name] for name in names]))

    def compute() -> Arrays:
        logger.info("Basel Face Model: computing its UV unwrap, mirror map and regions, once")
        vertices = mean.astype(np.float64)
        mirror = mirror_index(vertices, triangles)
        uv, uv_triangles, uv_to_vertex = unwrap(vertices, triangles, mirror)
        _, nearest = cKDTree(vertices).query(np.stack([points[name] for name in names]))
        regions = face_regions(vertices, dict(zip(names, vertices[nearest], strict=True)))
        arrays = {f"region_{name}": 0.5 * (weights + weights[mirror]) for name, weights in regions.items()}
        arrays |= {
            "uv": uv,
            "uv_triangles": uv_triangles.astype(np.int32),
            "uv_to_vertex": uv_to_vertex.astype(np.int32),
        }
        arrays["mirror"] = mirror.astype(np.int32)
        return arrays

    return cached("basel-1", key, compute)
