"""Fixed per-vertex material of what is not skin: eyeballs, teeth, tongue, the mouth's lining."""

from __future__ import annotations

import numpy as np

from open_head.eyeball import IRIS, PUPIL
from open_head.geometry import HeadTopology
from open_head.regions import smoothstep

IRISES = np.array(
    [[0.030, 0.014, 0.007], [0.060, 0.027, 0.012], [0.110, 0.055, 0.022], [0.130, 0.095, 0.040], [0.090, 0.105, 0.060],
     [0.085, 0.120, 0.150], [0.120, 0.180, 0.260], [0.160, 0.190, 0.200]]
)  # fmt: skip
"""Linear Rec.709 albedo: black-brown, brown, light brown, hazel, green, grey-blue, blue, grey."""
SCLERA = np.array([0.56, 0.50, 0.46])
TOOTH = np.array([0.52, 0.47, 0.38])
GUM = np.array([0.24, 0.085, 0.075])
TOOTH_HEIGHT = 10.0
"""From the biting edge to the gum, millimetres on the mean head."""
TONGUE = np.array([0.22, 0.07, 0.06])
LINING = np.array([0.16, 0.045, 0.038])


def eyeball_colours(polar: np.ndarray, iris: np.ndarray, sclera: np.ndarray) -> np.ndarray:
    """Colour by the angle from the optical axis: black pupil, iris with a dark rim, sclera that darkens towards its hidden part.

    polar: [N]; iris, sclera: linear colours [3] -> [N, 3]
    """
    inner = smoothstep(polar, PUPIL, 0.75 * IRIS)
    rim = smoothstep(polar, 0.78 * IRIS, IRIS)
    ring = iris * (1.25 - 0.35 * inner - 0.55 * rim)[:, None]
    white = sclera * (1 - 0.45 * smoothstep(polar, 0.45, 1.0))[:, None]
    colour = np.where((polar < IRIS)[:, None], ring, white)
    return np.where((polar < PUPIL)[:, None], 0.004, colour)


def mouth_colours(topology: HeadTopology, vertices: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours of teeth, tongue and lining, darker towards the throat where little light arrives.

    inside: the mouth_interior mask [V]. returns: which vertices, their colours [N, 3]
    """
    chosen = np.flatnonzero(inside > 0)
    z, y = vertices[:, 2], vertices[:, 1]
    colours = np.tile(LINING, (len(vertices), 1))
    colours[topology.of("tongue")] = TONGUE
    for part, sign in (("upper-teeth", 1.0), ("lower-teeth", -1.0)):
        own = topology.of(part)
        height = sign * y[own] - (sign * y[own]).min()
        gum = smoothstep(height, TOOTH_HEIGHT - 0.7, TOOTH_HEIGHT + 0.7)[:, None]
        colours[own] = TOOTH * (1 - gum) + GUM * gum
    front = z[topology.of("upper-teeth")].max()
    light = 0.1 + 0.9 * smoothstep(z, front - 30.0, front + 2.0)
    return chosen, colours[chosen] * light[chosen, None]


def sample_iris(rng: np.random.Generator, luminance: float) -> np.ndarray:
    """An iris colour; light irises only with light skin. luminance: of the skin. [3]"""
    light = float(np.clip((luminance - 0.18) / 0.2, 0.0, 1.0))
    weights = np.array([3 - 2.6 * light, 3 - 1.5 * light, 1.0, *([light] * 5)])
    first, second = rng.choice(len(IRISES), 2, p=weights / weights.sum())
    return (IRISES[first] + 0.4 * rng.random() * (IRISES[second] - IRISES[first])) * rng.uniform(0.8, 1.2)
