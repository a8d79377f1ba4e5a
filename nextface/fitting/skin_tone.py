"""How much of a face's brightness and colour is skin, and how much is exposure and white balance.

A photo shows their product alone. What else could tell them apart, the contrast between regions or the share of gloss,
is drowned by what no model explains: shadows, make-up, a camera's rendition. Left to the photo, everyone comes out darker
under more light. So the split is made by the priors alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nextface.fitting.light import EXPOSURE_SD, WHITE_BALANCE_SD
from nextface.morphable.model import MorphableModel

_DARKEST = 5e-3
_COMPENSATION = 0.3
"""Share of a skin's departure from the mean, in logs, that metering and the photographer take back by exposure."""
_LARGEST_DEPARTURE = 1.0
_STEPS = 20
_LARGEST_FALL = 0.5
"""Share of its value that a channel may lose in one step, which keeps albedos positive."""


@dataclass(frozen=True)
class SkinTone:
    """The mean skin albedo and the three directions of albedo coefficients that change it.

    mean: mean diffuse albedo of trusted skin. [3]; response: its change along `directions`. [3, 3]
    directions: orthonormal rows in the space of coefficients. [3, Ka]
    """

    mean: Tensor
    response: Tensor
    directions: Tensor

    @classmethod
    def of(cls, model: MorphableModel, trust: Tensor) -> SkinTone:
        """trust: how far each vertex is skin, [V, 1]"""
        weight = (trust / trust.sum())[:, 0]
        basis = torch.einsum("v,kvc->kc", weight, model.diffuse_basis)
        directions = torch.linalg.qr(basis).Q.T
        return cls(weight @ model.diffuse_mean, directions @ basis, directions)

    def pattern(self, albedo: Tensor) -> Tensor:
        """The part of albedo coefficients that leaves the mean skin alone. `[B, Ka] -> [B, Ka]`"""
        return albedo - (albedo @ self.directions.T) @ self.directions

    def log_albedo(self, albedo: Tensor) -> Tensor:
        """Log of the mean skin albedo. `[B, Ka] -> [B, 3]`"""
        return self._albedo(albedo @ self.directions.T).log()

    def share(self, tone: Tensor, albedo_weight: float) -> Tensor:
        """The most probable coefficients of a face whose gain times mean skin albedo has the logarithm `tone`.

        Gauss-Newton on the squared standard deviations of the coefficients, of exposure about what a camera that meters the
        face would choose, and of white balance.
        tone: [B, 3]; albedo_weight: of the coefficients' prior. -> [B, Ka]
        """
        place = tone.new_zeros(len(tone), len(self.directions))
        spread = tone.new_tensor(
            [[1 / WHITE_BALANCE_SD, 0.0, 0.0], [0.0, 1 / EXPOSURE_SD, 0.0], [0.0, 0.0, 1 / WHITE_BALANCE_SD]]
        )
        spread = spread @ tone.new_tensor([[1.0, -1.0, 0.0], [0.0, 1.0, 0.0], [0.0, -1.0, 1.0]])
        unit = albedo_weight * torch.eye(place.shape[1], dtype=tone.dtype, device=tone.device)
        for _ in range(_STEPS):
            albedo = self._albedo(place)
            departure = albedo[:, 1:2].log() - self.mean[1].log()
            metered = -_COMPENSATION * departure.clamp(-_LARGEST_DEPARTURE, _LARGEST_DEPARTURE)
            residual = (tone - albedo.log() - metered) @ spread.T
            change = self.response.T / albedo[:, :, None]
            within = (departure.abs() < _LARGEST_DEPARTURE)[..., None]
            slope = -spread @ (change - _COMPENSATION * within * change[:, 1:2])
            normal = slope.mT @ slope + unit
            gradient = (slope.mT @ residual[..., None])[..., 0] + albedo_weight * place
            step = -torch.linalg.solve(normal, gradient)
            fall = (-(step @ self.response) / albedo).amax(-1, keepdim=True)
            place = place + step / (fall / _LARGEST_FALL).clamp_min(1.0)
        return place @ self.directions

    def _albedo(self, place: Tensor) -> Tensor:
        return (self.mean + place @ self.response).clamp_min(_DARKEST)
