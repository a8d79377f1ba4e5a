"""Files in the exact layout of the Basel Face Model 2017 and AlbedoMM, filled with a face of our own.

The open head is sampled over a grid of directions about its middle: an open patch from ear to ear, 28,588 vertices, one
mouth slit, a mean that is a little lopsided. The first components come from the open head, the rest are smooth noise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy.spatial import cKDTree

from nextface.morphable import load_model
from nextface.morphable.model import MorphableModel
from nextface.paths import default_model_folder

SHAPE_FILE = "model2017-1_face12_nomouth.h5"
ALBEDO_FILE = "albedoModel2020_face12_albedoPart.h5"
FULL = (169, 27)
"""Side of the grid and length of a flap below its middle: 169² + 27 = 28,588 vertices, as in the real file."""
SMALL = (41, 7)


@dataclass
class Patch:
    """directions: azimuth and elevation, radians, [V, 2]; triangles [T, 3]; place: row and column of each vertex, -1..1"""

    directions: np.ndarray
    triangles: np.ndarray
    place: np.ndarray


def write_basel(folder: Path, size: tuple[int, int] = FULL, components: tuple[int, int, int] = (199, 100, 145)) -> Path:
    """Write both files into `folder`; returns it. components: shape, expression, albedo. About 200 MB and 6 s at full size."""
    open_head = load_model(default_model_folder() / "open_head.h5")
    patch = make_patch(*size)
    sampling = Sampling(open_head, patch)
    noise = np.random.default_rng(7)
    mean = sampling(open_head.mean.numpy())
    mean[:, 0] = np.where(np.abs(patch.place[:, 1]) < 1e-9, 0.0, mean[:, 0])
    lopsided = 0.6 * np.sin(3.0 * patch.place[:, :1] + 2.0 * patch.place[:, 1:] + [0.3, 1.2, 2.0])
    mean = mean + lopsided
    offset = 0.2 * np.cos(2.0 * patch.place[:, :1] + [0.0, 1.0, 2.0])
    modes = smooth_modes(patch.place, 10)
    points = named_points(open_head, lopsided=0.3)
    with h5py.File(folder / SHAPE_FILE, "w") as file:
        basis = sampling.many(open_head.shape_basis.numpy())
        write_linear(file, "shape", mean - offset, padded(basis, components[0], modes, 0.4, noise))
        basis = sampling.many(open_head.expression_basis.numpy())
        write_linear(file, "expression", offset, padded(basis, components[1], modes, 0.1, noise))
        write_linear(file, "color", np.full_like(mean, 0.5), np.full((1, len(mean), 3), 0.1))
        for group in ("shape", "expression", "color"):
            file[f"{group}/representer/points"] = mean.T.astype(np.float32)
            file[f"{group}/representer/cells"] = patch.triangles.T.astype(np.int32)
        text = json.dumps([{"id": name, "coordinates": list(point)} for name, point in points.items()])
        file["metadata/landmarks/json"] = np.bytes_(text)
    with h5py.File(folder / ALBEDO_FILE, "w") as file:
        diffuse = np.clip(sampling(open_head.diffuse_mean.numpy()), 0.005, 0.95)
        basis = sampling.many(open_head.diffuse_basis.numpy())
        write_linear(file, "diffuseAlbedo", diffuse, padded(basis, components[2], modes, 0.002, noise))
        specular = np.repeat(0.12 * sampling(open_head.specular_mean.numpy()), 3, 1) * [0.99, 1.0, 1.01]
        basis = np.repeat(0.12 * sampling.many(open_head.specular_basis.numpy()), 3, 2)
        write_linear(file, "specularAlbedo", specular, padded(basis, components[2], modes, 0.001, noise))
    return folder


def make_patch(side: int, flap: int) -> Patch:
    """A square grid of directions and a short row below it, symmetric, without the quads of a mouth slit."""
    row, column = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")
    step = 2 / (side - 1)
    place = np.stack([row.ravel(), column.ravel()], 1)
    below = np.stack([np.full(flap, -1 - step), (np.arange(flap) - flap // 2) * step], 1)
    place = np.concatenate([place, below])
    azimuth = np.deg2rad(100.0) * place[:, 1] * (1 - 0.12 * place[:, 0] ** 2)
    elevation = np.deg2rad(np.where(place[:, 0] > 0, 62.0, 46.0)) * place[:, 0]
    triangles = []
    middle = side // 2
    slit_row, slit_half = int(0.322 * side), max(side // 16, 2)

    def quad(a: int, b: int, c: int, d: int, left: bool) -> None:
        triangles.extend([[a, b, c], [a, c, d]] if left else [[a, b, d], [b, c, d]])

    for i in range(side - 1):
        for j in range(side - 1):
            if i == slit_row and middle - slit_half <= j < middle + slit_half:
                continue
            a = i * side + j
            quad(a, a + 1, a + 1 + side, a + side, j >= middle)
    start = side * side
    for j in range(flap - 1):
        above = middle - flap // 2 + j
        quad(start + j, start + j + 1, above + 1, above, j >= flap // 2)
    return Patch(np.stack([azimuth, elevation], 1), np.array(triangles), place)


class Sampling:
    """A linear map from per-vertex values of the open head to the patch: the outermost surface along each direction."""

    def __init__(self, head: MorphableModel, patch: Patch) -> None:
        vertices, triangles = head.mean.double().numpy(), head.triangles.numpy()
        nose = vertices[vertices[:, 2].argmax()]
        ears = vertices[head.regions["ears"].numpy() > 0.5]
        offset = vertices - [0.0, nose[1], ears[:, 2].mean() + 20.0]
        azimuth = np.arctan2(offset[:, 0], offset[:, 2])
        elevation = np.arctan2(offset[:, 1], np.hypot(offset[:, 0], offset[:, 2]))
        corners = np.stack([azimuth, elevation], 1)[triangles]
        usable = np.ptp(corners[..., 0], axis=1) < 0.5
        triangles, corners = triangles[usable], corners[usable]
        centre = corners.mean(1)
        reach = np.linalg.norm(corners - centre[:, None], axis=2).max(1) + 1e-9
        near = cKDTree(patch.directions).query_ball_point(centre, reach)
        triangle = np.repeat(np.arange(len(triangles)), [len(points) for points in near])
        point = np.concatenate([np.array(points, dtype=np.int64) for points in near])
        edges = corners[triangle, 1:] - corners[triangle, :1]
        to_point = patch.directions[point] - corners[triangle, 0]
        area = np.cross(edges[:, 0], edges[:, 1])
        area = np.where(np.abs(area) < 1e-15, np.inf, area)
        second = np.cross(to_point, edges[:, 1]) / area
        third = np.cross(edges[:, 0], to_point) / area
        weights = np.stack([1 - second - third, second, third], 1)
        inside = (weights.min(1) >= -1e-9) & np.isfinite(area)
        triangle, point, weights = triangle[inside], point[inside], weights[inside]
        radius = (np.linalg.norm(offset[triangles[triangle]], axis=2) * weights).sum(1)
        order = np.lexsort((radius, point))
        last = np.flatnonzero(np.append(np.diff(point[order]) > 0, True))
        chosen = order[last]
        covered = cKDTree(patch.directions[point[chosen]])
        chosen = chosen[covered.query(patch.directions)[1]]  # a few rays leave through the lips: take their neighbours
        self.weights, self.source = weights[chosen], triangles[triangle[chosen]]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """`[open, C] -> [V, C]`"""
        return np.einsum("vk,vkc->vc", self.weights, values[self.source])

    def many(self, basis: np.ndarray) -> np.ndarray:
        """`[K, open, C] -> [K, V, C]`"""
        return np.stack([self(component) for component in basis])


def smooth_modes(place: np.ndarray, order: int) -> np.ndarray:
    """Low cosine modes over the grid. [order², V]"""
    waves = [np.cos(np.pi * k * (place + 1) / 2) for k in range(order)]
    return np.stack([waves[i][:, 0] * waves[j][:, 1] for i in range(order) for j in range(order)])


def padded(basis: np.ndarray, count: int, modes: np.ndarray, scale: float, noise: np.random.Generator) -> np.ndarray:
    """`count` components in standard deviations: those given, then smooth noise of falling size. [count, V, 3]"""
    basis = basis[:count]
    missing = count - len(basis)
    falling = scale / np.sqrt(np.arange(1, missing + 1))
    mix = noise.standard_normal((missing, 3, len(modes))) * falling[:, None, None] / np.sqrt(len(modes))
    return np.concatenate([basis, np.einsum("kcm,mv->kvc", mix, modes, optimize=True)])


def write_linear(file: h5py.File, group: str, mean: np.ndarray, basis: np.ndarray) -> None:
    """mean [V, 3], basis [K, V, 3] in standard deviations -> unit columns and their variance."""
    flat = basis.reshape(len(basis), -1).astype(np.float32)
    norm = np.maximum(np.linalg.norm(flat, axis=1), 1e-6)
    file[f"{group}/model/mean"] = mean.reshape(-1).astype(np.float32)
    file[f"{group}/model/pcaBasis"] = np.ascontiguousarray((flat / norm[:, None]).T)
    file[f"{group}/model/pcaVariance"] = norm**2
    file[f"{group}/model/noiseVariance"] = np.zeros(1, dtype=np.float32)


def named_points(head: MorphableModel, lopsided: float) -> dict[str, np.ndarray]:
    """The named points of the real file that carry regions, from the open head's 68-point landmarks and ears."""
    embedding = head.landmarks["ibug68"]
    corners = head.mean[head.triangles[embedding.triangle[:, 0]]].numpy()
    spot = dict(
        zip(embedding.index.tolist(), (corners * embedding.barycentric[:, 0, :, None].numpy()).sum(1), strict=True)
    )
    points = {
        "center.nose.tip": spot[30],
        "center.chin.tip": spot[8],
        "center.front.trichion": spot[27] + [0.0, 62.0, 0.0],
        "center.lips.upper.outer": spot[51],
        "center.lips.lower.outer": spot[57],
    }
    sides = {"right": (36, 39, 37, 38, 40, 41, 21, 19, 48, 50, -1), "left": (45, 42, 43, 44, 46, 47, 22, 24, 54, 52, 1)}
    ears = head.mean[head.regions["ears"] > 0.7].numpy()
    for side, (outer, inner, top, top2, bottom, bottom2, brow, bend, corner, ridge, sign) in sides.items():
        ear = ears[ears[:, 0] * sign > 0]
        points |= {
            f"{side}.eye.corner_outer": spot[outer],
            f"{side}.eye.corner_inner": spot[inner],
            f"{side}.eye.top": (spot[top] + spot[top2]) / 2,
            f"{side}.eye.bottom": (spot[bottom] + spot[bottom2]) / 2,
            f"{side}.eyebrow.inner_lower": spot[brow] - [0.0, 3.0, 0.0],
            f"{side}.eyebrow.inner_upper": spot[brow] + [0.0, 3.0, 0.0],
            f"{side}.eyebrow.bend.lower": spot[bend] - [0.0, 3.0, 0.0],
            f"{side}.eyebrow.bend.upper": spot[bend] + [0.0, 3.0, 0.0],
            f"{side}.lips.corner": spot[corner],
            f"{side}.lips.philtrum_ridge": spot[ridge],
            f"{side}.ear.helix.top": ear[ear[:, 1].argmax()],
            f"{side}.ear.helix.attachement": ear[ear[:, 1].argmax()] + [0.0, -3.0, 6.0],
            f"{side}.ear.helix.outer": ear[np.abs(ear[:, 0]).argmax()],
            f"{side}.ear.lobule.tip": ear[ear[:, 1].argmin()],
            f"{side}.ear.tragus.tip": ear[ear[:, 2].argmax()],
        }
    return {name: np.asarray(point, dtype=float) + lopsided for name, point in points.items()}
