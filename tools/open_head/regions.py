"""Soft region masks, from the face groups, the support of the modelling targets and the skin textures."""

from __future__ import annotations

import numpy as np

from open_head.assets import Targets
from open_head.geometry import HeadTopology


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 at `low`, 1 at `high`, smooth between."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def support(targets: Targets, topology: HeadTopology, names: list[str]) -> np.ndarray:
    """Largest displacement among targets relative to each one's own maximum. [V] in 0..1"""
    moves = [np.linalg.norm(targets.displacement(name, topology.weights), axis=1) for name in names]
    return np.max([move / move.max() for move in moves], axis=0)


def build_regions(targets: Targets, topology: HeadTopology, vertices: np.ndarray) -> dict[str, np.ndarray]:
    """The eight masks. vertices: the mean head in millimetres, model frame. [V, 3]"""
    x, y, z = vertices.T
    body = topology.of("body").astype(float)
    eyeballs = topology.of("eye-left", "eye-right")
    u, v = _mean_uv(topology)
    pocket = (u > 0.74) & (v < 0.145) & (body > 0)
    socket = (u < 0.17) & (body > 0)
    eye_y, eye_z = y[eyeballs].mean(), z[eyeballs].max()
    inside = topology.of("upper-teeth", "lower-teeth", "tongue") | pocket
    lips = support(targets, topology, [f"mouth/mouth-{lip}lip-volume-inflate" for lip in ("upper", "lower")])
    ears = support(targets, topology, [f"ears/{side}-ear-trans-depth-forward" for side in "lr"])
    chin = y[np.argmax(np.where(body * (np.abs(x) < 3) * (y < eye_y - 100) > 0, z, -1e9))]
    outer = body * ~pocket * ~socket
    regions = {
        "lips": smoothstep(lips, 0.2, 0.4) * outer * (z > eye_z - 15),
        "ears": smoothstep(ears, 0.55, 0.85) * outer,
        "eyes": eyeballs.astype(float),
        "mouth_interior": inside.astype(float),
    }
    brow = np.abs(y - (eye_y + 23 - 0.004 * (np.abs(x) - 30) ** 2))
    regions["eyebrows"] = smoothstep(-brow, -7, -3) * smoothstep(-np.abs(np.abs(x) - 32), -22, -18) * outer * (z > 20)
    hairline = (y - eye_y - 75) + 0.8 * (40 - z)
    regions["scalp"] = smoothstep(hairline, -8, 8) * outer * (1 - regions["ears"]) * smoothstep(y - eye_y, -45, -15)
    below = chin - 18 - y + np.clip(eye_z - 30 - z, 0, None) * 0.75
    regions["neck"] = smoothstep(below, -5, 12) * outer * (1 - regions["ears"]) * (1 - regions["scalp"])
    others = np.max([regions[name] for name in ("lips", "eyebrows", "ears", "scalp", "neck")], axis=0)
    regions["skin"] = outer * (1 - others)
    return regions


def _mean_uv(topology: HeadTopology) -> tuple[np.ndarray, np.ndarray]:
    """Mean texture place of every vertex, 0 where it has none. [V], [V]"""
    count = np.bincount(topology.texture_vertex, minlength=len(topology.part)).clip(1)
    u, v = (np.bincount(topology.texture_vertex, place, len(count)) / count for place in topology.texture_uv.T)
    return u, v
