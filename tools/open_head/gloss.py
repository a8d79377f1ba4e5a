"""Specular weight and roughness per region of the face.

Averages over 149 faces (Weyrich et al., "Analysis of Human Faces using a Measurement-Based Skin Reflectance Model",
SIGGRAPH 2006, as summed up by d'Eon and Luebke, GPU Gems 3, chapter 14): Torrance-Sparrow slope m = 0.3 and intensity
0.18. Beckmann's m is GGX's alpha to first order, so r = sqrt(m) = 0.55; the intensity multiplies an unnormalised lobe
there, 4 times ours, so w = 0.72. The regions differ around these as measured there: nose, forehead and lips shinier and
smoother than cheeks and chin. Eyeballs and lips are wet: r from the tear film's and saliva's smoothness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from open_head.geometry import HeadTopology
from open_head.regions import smoothstep

SKIN = (0.68, 0.56)
"""(w, r) of cheeks and chin; below the same for other regions."""
ZONES = {
    "forehead": (0.76, 0.53),
    "nose": (0.86, 0.48),
    "lips": (0.95, 0.42),
    "eyelids": (0.70, 0.54),
    "ears": (0.62, 0.57),
    "neck": (0.55, 0.60),
    "scalp": (0.55, 0.58),
    "eyebrows": (0.40, 0.60),
    "mouth_interior": (0.80, 0.35),
    "eyes": (1.00, 0.15),
}


@dataclass(frozen=True)
class Gloss:
    """weight, roughness: means [V]; oily: how strongly oiliness shows, the forehead-nose-chin zone [V]; skin [V]"""

    weight: np.ndarray
    roughness: np.ndarray
    oily: np.ndarray
    skin: np.ndarray

    def sample(self, rng: np.random.Generator, hair: np.ndarray) -> np.ndarray:
        """A person's specular weight [V] in 0..1. hair: cover by hair [V], which is duller."""
        overall, oil = rng.normal(0.0, 0.12), rng.normal(0.0, 0.15)
        weight = self.weight * np.exp(self.skin * (overall + oil * self.oily)) * (1 - 0.4 * hair * self.skin)
        return np.clip(weight, 0.02, 1.0)


def build_gloss(topology: HeadTopology, vertices: np.ndarray, regions: Mapping[str, np.ndarray]) -> Gloss:
    """Zones from the region masks and, for nose, forehead and eyelids, from the mean head's shape, with borders as wide as
    gloss on a face changes over: a sharp one would show in every relit picture."""
    x, y, z = vertices.T
    eyes = vertices[topology.of("eye-left", "eye-right")]
    eye_y, eye_z = eyes[:, 1].mean(), eyes[:, 2].max()
    body = topology.of("body").astype(float)
    nose = (
        smoothstep(z, eye_z - 14, eye_z + 10)
        * smoothstep(-np.abs(x), -32, -4)
        * smoothstep(-np.abs(y - eye_y + 24), -52, -14)
    )
    forehead = smoothstep(y, eye_y + 12, eye_y + 46) * smoothstep(z, 0, 55)
    centres = [vertices[topology.of(f"eye-{side}")].mean(0) for side in ("left", "right")]
    around = np.min([np.linalg.norm(vertices - centre, axis=1) for centre in centres], axis=0)
    lids = smoothstep(-around, -30, -16)
    masks = {"forehead": forehead * body, "nose": nose * body, "eyelids": lids * body, **regions}
    weight, roughness = np.full(len(x), SKIN[0]), np.full(len(x), SKIN[1])
    for name, (w, r) in ZONES.items():
        mask = np.clip(masks[name], 0.0, 1.0)
        weight += mask * (w - weight)
        roughness += mask * (r - roughness)
    chin = smoothstep(-np.hypot(x / 20, (y - vertices[regions["lips"] > 0.5, 1].mean() + 28) / 14), -1.2, -0.6) * body
    oily = np.max([masks["nose"], 0.8 * masks["forehead"], 0.6 * chin], axis=0) * regions["skin"]
    return Gloss(weight, roughness, oily, regions["skin"] + regions["ears"] + regions["neck"])
