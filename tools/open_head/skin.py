"""Spatial detail of skin: what the skin textures show beyond their overall tone, without painted shading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import scipy.sparse as sparse

from open_head.assets import read_texture, skin_textures
from open_head.geometry import HeadTopology

FLOOR = 0.004
SHADING_SCALE = 60
"""Rounds of neighbour averaging that separate painted shading from detail: about 13 mm."""
DEEPEST = -0.9
SOCKET_COLOUR = 0.3
"""Share of the textures' bright red that the lining of the lids keeps: its rim shows as the lids' edge."""


@dataclass(frozen=True)
class SkinDetail:
    """Log ratio of each texture's colours to its own tone, and whether the texture is a dark skin. [S, V, 3], [S] bool"""

    log_ratio: np.ndarray
    dark: np.ndarray


def decode(encoded: np.ndarray) -> np.ndarray:
    """sRGB in 0..1 to linear Rec.709."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def sample(texture: np.ndarray, topology: HeadTopology) -> np.ndarray:
    """Mean linear colour of each vertex over its places in a texture. [V, 3], 0 where a vertex has no place."""
    height, width = texture.shape[:2]
    places = topology.texture_uv.astype(np.float32)
    columns, rows = places[:, 0] * width - 0.5, (1 - places[:, 1]) * height - 0.5
    linear = decode(texture).astype(np.float32)
    chunks = [slice(start, start + 30000) for start in range(0, len(columns), 30000)]
    colours = np.concatenate(
        [
            cv2.remap(linear, columns[c, None], rows[c, None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
            for c in chunks
        ]
    )
    count = np.bincount(topology.texture_vertex, minlength=len(topology.part)).clip(1)
    return np.stack([np.bincount(topology.texture_vertex, c, len(count)) / count for c in colours.T], 1)


def neighbour_average(triangles: np.ndarray, vertices: int) -> sparse.csr_matrix:
    """Mean over a vertex and its neighbours. sparse [V, V]"""
    a, b = triangles[:, [0, 1, 2, 1, 2, 0]].ravel(), triangles[:, [1, 2, 0, 0, 1, 2]].ravel()
    adjacency = sparse.coo_matrix((np.ones(len(a)), (a, b)), shape=(vertices, vertices)).tocsr()
    adjacency.data[:] = 1.0
    adjacency = adjacency + sparse.identity(vertices)
    return sparse.diags(1.0 / np.asarray(adjacency.sum(1)).ravel()) @ adjacency


def smoothed(values: np.ndarray, average: sparse.csr_matrix, rounds: int, weights: np.ndarray) -> np.ndarray:
    """Weighted diffusion of vertex values; where `weights` is 0 values come from the surroundings. [V, C]"""
    top, bottom = values * weights[:, None], weights[:, None].copy()
    for _ in range(rounds):
        top, bottom = average @ top, average @ bottom
    return top / np.maximum(bottom, 1e-6)


def mean_redness(package: Path, topology: HeadTopology) -> np.ndarray:
    """Log of red over green relative to the median of the body's vertices, mean of the light skins. [V]"""
    total = np.zeros(len(topology.part))
    for path in skin_textures(package):
        if "lightskinned" in path.name:
            colours = sample(read_texture(path), topology)
            ratio = np.log((colours[:, 0] + FLOOR) / (colours[:, 1] + FLOOR))
            total += ratio - np.median(ratio[topology.of("body")])
    return 0.5 * (total + total[topology.mirror]) / total.std()


def hair_darkness(package: Path, topology: HeadTopology) -> np.ndarray:
    """Log of how much darker than the face the textures of dark skins are: their painted short hair. [V]"""
    total: list[np.ndarray] = []
    for path in skin_textures(package):
        if "darkskinned" in path.name and not path.name.startswith("old"):
            lightness = np.log(sample(read_texture(path), topology).mean(1) + FLOOR)
            total.append(np.median(lightness[topology.of("body")]) - lightness)
    mean = np.mean(total, axis=0)
    average = neighbour_average(topology.triangles, len(topology.part))
    for _ in range(4):
        mean = average @ mean
    return 0.5 * (mean + mean[topology.mirror])


def skin_detail(package: Path, topology: HeadTopology, regions: Mapping[str, np.ndarray]) -> SkinDetail:
    """Detail of all natural skins, mirror-symmetric. Lightness varying over more than about 13 mm is taken for painted shading
    and removed on skin; colour variation of any size stays. Scalp and neck are plain.
    """
    average = neighbour_average(topology.triangles, len(topology.part))
    plain = regions["skin"] * (1 - regions["lips"]) * (1 - regions["eyebrows"])
    socket = topology.of("body") & (sum(regions.values()) < 1e-6)
    quiet = (1 - np.maximum(regions["scalp"], regions["neck"]))[:, None]
    ratios, dark = [], []
    for path in skin_textures(package):
        colours = sample(read_texture(path), topology)
        colours = 0.5 * (colours + colours[topology.mirror])
        tone = np.average(colours, axis=0, weights=plain + 1e-9)
        ratio = np.log((colours + FLOOR) / (tone + FLOOR))
        lightness = ratio.mean(1, keepdims=True)
        shading = smoothed(lightness, average, SHADING_SCALE, plain)
        lightness = lightness - shading
        chroma = ratio - ratio.mean(1, keepdims=True)
        chroma[socket] *= SOCKET_COLOUR
        lightness[socket] = 0.0
        ratios.append(quiet * (chroma + lightness.clip(DEEPEST, 0.5)))
        dark.append("darkskinned" in path.name)
    return SkinDetail(np.array(ratios), np.array(dark))
