"""One-sided expression units: MakeHuman's facial action targets and four gaze directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse

from open_head.assets import Targets
from open_head.random_heads import ETHNICITIES

SD = 0.35
"""Activation of one standard deviation; a unit is fully active at 1 / SD."""
GAZE_ANGLE = np.radians(24.0)
GAZE = {"gaze-left": (0.0, 1.0), "gaze-right": (0.0, -1.0), "gaze-up": (-1.0, 0.0), "gaze-down": (1.0, 0.0)}
"""Signs of the rotations about x and y. x points to the subject's left, so +y turns the gaze there."""


@dataclass(frozen=True)
class Expressions:
    """names; basis: displacement of one standard deviation [Ke, V, 3]; lower, upper: coefficient bounds [Ke]"""

    names: list[str]
    basis: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def action_units(targets: Targets, weights: sparse.csr_matrix) -> tuple[list[str], np.ndarray]:
    """The facial action targets, averaged over the three ethnic variants. Names, full activations [K, V, 3] in dm."""
    folder = f"expression/units/{ETHNICITIES[0]}"
    names = [name.removeprefix(folder + "/") for name in targets.under(folder)]
    units = [
        np.mean([targets.displacement(f"expression/units/{e}/{name}", weights) for e in ETHNICITIES], axis=0)
        for name in names
    ]
    return names, np.stack(units)


def gaze_units(vertices: np.ndarray, eyes: list[np.ndarray]) -> tuple[list[str], np.ndarray]:
    """Both eyeballs turned by `GAZE_ANGLE` within their own ellipsoids. vertices [V, 3]; eyes: vertex masks -> [4, V, 3]"""
    units = np.zeros((len(GAZE), *vertices.shape))
    for unit, (about_x, about_y) in zip(units, GAZE.values(), strict=True):
        cos, sin = np.cos(GAZE_ANGLE), np.sin(GAZE_ANGLE) * (about_x + about_y)
        turn = (
            np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
            if about_x
            else np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        )
        for eye in eyes:
            low, high = vertices[eye].min(0), vertices[eye].max(0)
            centre, radius = 0.5 * (low + high), 0.5 * (high - low)
            sphere = (vertices[eye] - centre) / radius
            unit[eye] = (sphere @ turn.T - sphere) * radius
    return list(GAZE), units


def bounded(names: list[str], units: np.ndarray) -> Expressions:
    """Units in standard deviations with their bounds. units: full activations, [K, V, 3]"""
    return Expressions(names, SD * units, np.zeros(len(names)), np.full(len(names), 1.0 / SD))
