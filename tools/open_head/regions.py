"""Soft region masks, from the face groups, the support of the modelling targets and the skin textures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from open_head.assets import Targets
from open_head.geometry import HeadTopology

POCKET_U, POCKET_V = 0.74, 0.145
SOCKET_U = 0.17
"""Borders of the texture islands of the mouth's lining (right, below) and of the eye sockets (left)."""


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 at `low`, 1 at `high`, smooth between."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def support(targets: Targets, topology: HeadTopology, names: list[str]) -> np.ndarray:
    """Largest displacement among targets relative to each one's own maximum. [V] in 0..1"""
    moves = [np.linalg.norm(targets.displacement(name, topology.weights), axis=1) for name in names]
    return np.max([move / move.max() for move in moves], axis=0)


@dataclass(frozen=True)
class Cues:
    """What textures and hair cards tell about the regions, per vertex.

    redness: log of red over green relative to the face; hair: log of how much darker than the face painted short hair is;
    brows: mean opacity of the brow styles. [V] each
    """

    redness: np.ndarray
    hair: np.ndarray
    brows: np.ndarray


def build_regions(targets: Targets, topology: HeadTopology, vertices: np.ndarray, cues: Cues) -> dict[str, np.ndarray]:
    """The eight masks. vertices: the mean head, model frame [V, 3] mm"""
    x, y, z = vertices.T
    body = topology.of("body").astype(float)
    eyeballs = topology.of("eye-left", "eye-right")
    u, v = _mean_uv(topology)
    pocket = (u > POCKET_U) & (v < POCKET_V) & (body > 0)
    socket = (u < SOCKET_U) & (body > 0)
    eye_y, eye_z = y[eyeballs].mean(), z[eyeballs].max()
    inside = topology.of("upper-teeth", "lower-teeth", "tongue") | pocket
    outer = body * ~pocket * ~socket
    around_lips = support(targets, topology, [f"mouth/mouth-{lip}lip-volume-inflate" for lip in ("upper", "lower")])
    wings = support(targets, topology, [f"ears/{side}-ear-wing-out" for side in "lr"])
    middle = outer * (np.abs(x) < 3) * (y < eye_y - 100)
    chin = y[np.argmax(np.where(middle > 0, z, -np.inf))]
    regions = {
        "lips": smoothstep(cues.redness, 0.08, 0.25) * smoothstep(around_lips, 0.002, 0.02) * outer * (z > eye_z - 25),
        "ears": smoothstep(wings, 0.06, 0.2) * outer,
        "eyes": eyeballs.astype(float),
        "mouth_interior": inside.astype(float),
        "eyebrows": smoothstep(cues.brows, 0.05, 0.25) * outer,
    }
    scalp = smoothstep(cues.hair, 0.25, 0.9) * smoothstep(np.hypot(y - eye_y, z - 10), 45, 60) * (y > eye_y - 60)
    regions["scalp"] = scalp * smoothstep(-z, -eye_z + 12, -eye_z + 22) * outer * (1 - regions["ears"])
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
