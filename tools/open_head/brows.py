"""Where eyebrow hair grows: MakeHuman's eyebrow cards, laid onto the head."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import cKDTree

from open_head.geometry import HeadTopology
from open_head.skin import neighbour_average

SAMPLES = 9
"""Card points per quad side."""
REACH = 6.0
"""Distance within which a card colours the skin, millimetres."""


def brow_coverage(
    package: Path, topology: HeadTopology, base: np.ndarray, vertices: np.ndarray, to_mean: tuple[float, np.ndarray]
) -> np.ndarray:
    """Opacity of the brows of every style at every vertex. [S, V] in 0..1, mirror-symmetric

    base: base mesh that the cards are bound to [19158, 3] dm; vertices: the mean head [V, 3] mm; to_mean: (scale, origin)
    that carry base positions there.
    """
    scale, origin = to_mean
    average = neighbour_average(topology.triangles, len(topology.part))
    styles = []
    for folder in sorted((package / "public/data/proxies/eyebrows").glob("eyebrow0*")):
        data = json.loads((folder / f"{folder.name}.json").read_text())
        corners = np.einsum("nk,nkc->nc", np.array(data["weights"]), base[np.array(data["ref_vIdxs"])])
        corners = (corners + np.array(data["offsets"]) - origin) * scale
        faces = np.asarray(data["faces"]).reshape(-1, 10)
        uv = np.asarray(data["uvs"][0]).reshape(-1, 2)
        image = cv2.imread(str(folder / "textures" / f"{folder.name}.png"), cv2.IMREAD_UNCHANGED)
        alpha = image[..., 3].astype(np.float32) / 255.0
        alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), alpha.shape[1] / 100), np.float32)
        s, t = (grid.ravel() for grid in np.meshgrid(*[(np.arange(SAMPLES) + 0.5) / SAMPLES] * 2))
        shares = np.stack([(1 - s) * (1 - t), s * (1 - t), s * t, (1 - s) * t], 1)
        points = np.einsum("pk,fkc->fpc", shares, corners[faces[:, 1:5]]).reshape(-1, 3)
        places = np.einsum("pk,fkc->fpc", shares, uv[faces[:, 6:10]]).reshape(-1, 2) % 1.0
        rows = ((1 - places[:, 1]) * (alpha.shape[0] - 1)).astype(int)
        columns = (places[:, 0] * (alpha.shape[1] - 1)).astype(int)
        opacity = alpha[rows, columns]
        distance, near = cKDTree(points[:, :2]).query(vertices[:, :2], k=8)
        depth = np.abs(points[near[:, 0], 2] - vertices[:, 2])
        weight = np.exp(-0.5 * (distance / 1.0) ** 2) + 1e-12
        value = (weight * opacity[near]).sum(1) / weight.sum(1)
        value *= np.clip(2.0 - distance[:, 0], 0.0, 1.0) * (depth < REACH) * topology.of("body")
        styles.append(average @ (0.5 * (value + value[topology.mirror])))
    return np.array(styles)
