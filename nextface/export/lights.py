"""Studio lights for relit views, as SH coefficients of environment radiance in the view frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nextface.rendering.sh import sh_basis


@dataclass(frozen=True)
class Lamp:
    """A round area light at infinity: radiance proportional to exp(sharpness·(cos angle − 1)).

    direction: towards the lamp, view frame (x right, y up, z to the viewer)
    colour: what a white diffuse surface facing the lamp shows, linear Rec.709
    """

    direction: tuple[float, float, float]
    colour: tuple[float, float, float]
    sharpness: float = 14.0


@dataclass(frozen=True)
class StudioLight:
    name: str
    lamps: tuple[Lamp, ...]
    ambient: tuple[float, float, float] = (0.08, 0.08, 0.09)

    def radiance(self, bands: int) -> Tensor:
        """SH coefficients. [1, bands², 3]"""
        coefficients = torch.zeros(1, bands**2, 3)
        coefficients[0, 0] = torch.tensor(self.ambient) * math.sqrt(4 * math.pi)
        for lamp in self.lamps:
            coefficients[0] += lamp_radiance(lamp, bands)
        return coefficients


_WARM, _FILL = (1.50, 1.40, 1.26), (0.14, 0.17, 0.23)
STUDIO_LIGHTS = (
    StudioLight("soft sky", (Lamp((0.0, 0.9, 0.45), (0.88, 1.0, 1.12), 1.5),), (0.30, 0.29, 0.27)),
    StudioLight("key from the left", (Lamp((-0.8, 0.45, 0.5), _WARM), Lamp((0.9, 0.1, 0.4), _FILL))),
    StudioLight("key from the right", (Lamp((0.8, 0.45, 0.5), _WARM), Lamp((-0.9, 0.1, 0.4), _FILL))),
    StudioLight("two colours", (Lamp((-0.9, 0.2, 0.35), (0.22, 0.75, 1.9)), Lamp((0.9, 0.2, 0.35), (1.7, 0.62, 0.22)))),
)


def lamp_radiance(lamp: Lamp, bands: int) -> Tensor:
    """SH coefficients of one lamp. [bands², 3]

    A function f(cos angle) about an axis d has c_lm = 2π ∫ f(t) P_l(t) dt · Y_lm(d) (Funk–Hecke). The gain makes the
    irradiance of a surface that faces the lamp, divided by π, equal to its colour.
    """
    nodes, weights = np.polynomial.legendre.leggauss(128)
    lobe = np.exp(lamp.sharpness * (nodes - 1.0)) * weights
    zonal = [2 * math.pi * float(lobe @ np.polynomial.legendre.legval(nodes, np.eye(bands)[l])) for l in range(bands)]
    facing = 2 * math.pi * float(lobe @ np.maximum(nodes, 0.0))
    direction = torch.nn.functional.normalize(torch.tensor([lamp.direction]), dim=-1)
    per_coefficient = torch.tensor([value for l, value in enumerate(zonal) for _ in range(2 * l + 1)])
    shape = per_coefficient * sh_basis(direction, bands)[0] * (math.pi / facing)
    return shape[:, None] * torch.tensor(lamp.colour)
