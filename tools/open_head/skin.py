"""Skin colour statistics sampled from the skin textures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from open_head.assets import read_texture, skin_textures
from open_head.geometry import HeadTopology


def decode(encoded: np.ndarray) -> np.ndarray:
    """sRGB in 0..1 to linear Rec.709."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def sample(texture: np.ndarray, topology: HeadTopology) -> np.ndarray:
    """Mean linear colour of each vertex over its places in a texture. [V, 3], 0 where a vertex has no place."""
    height, width = texture.shape[:2]
    places = topology.texture_uv.astype(np.float32)
    columns, rows = places[:, 0] * width - 0.5, (1 - places[:, 1]) * height - 0.5
    linear = decode(texture).astype(np.float32)
    colours = np.concatenate(
        [
            cv2.remap(linear, columns[k : k + 30000, None], rows[k : k + 30000, None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
            for k in range(0, len(columns), 30000)
        ]
    )
    count = np.bincount(topology.texture_vertex, minlength=len(topology.part)).clip(1)
    return np.stack([np.bincount(topology.texture_vertex, c, len(count)) / count for c in colours.T], 1)


def skin_colours(package: Path, topology: HeadTopology) -> np.ndarray:
    """Linear colours of all natural skins. [S, V, 3]"""
    return np.stack([sample(read_texture(path), topology) for path in skin_textures(package)])


def eyeball_colours(polar: np.ndarray, pupil: float, iris: float) -> np.ndarray:
    """Linear colour of eyeball vertices by their angle from the optical axis. [N] -> [N, 3]"""
    colour = np.tile([0.62, 0.58, 0.55], (len(polar), 1))
    colour[polar < iris] = [0.10, 0.06, 0.035]
    colour[polar < pupil] = 0.005
    return colour
