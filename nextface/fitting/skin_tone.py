"""How much of a face's brightness and colour is skin, and how much is exposure and white balance.

A photo shows their product alone. What else could tell them apart, the contrast between regions or the share of gloss,
is drowned by what no model explains: shadows, make-up, a camera's rendition. Left to the photo, everyone comes out darker
under more light. So the split is made by the priors alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from nextface.fitting.light import EXPOSURE_SD, WHITE_BALANCE_SD
from nextface.morphable.model import MorphableModel
from nextface.rendering.jit import array, compiled, kernel

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
        return albedo - self._coefficients(self._place(albedo))

    def log_albedo(self, albedo: Tensor) -> Tensor:
        """Log of the mean skin albedo. `[B, Ka] -> [B, 3]`"""
        return self._albedo(self._place(albedo)).log()

    def share(self, tone: Tensor, albedo_weight: float) -> Tensor:
        """The most probable coefficients of a face whose gain times mean skin albedo has the logarithm `tone`.

        Gauss-Newton on the squared standard deviations of the coefficients, of exposure about what a camera that meters the
        face would choose, and of white balance.
        tone: [B, 3]; albedo_weight: of the coefficients' prior. -> [B, Ka]
        """
        spread = _whitening(tone.dtype, tone.device)
        if not compiled(tone):
            return self._coefficients(self.place_torch(tone, spread, albedo_weight))
        place = tone.new_zeros(len(tone), len(self.directions))
        inputs = [array(part) for part in (tone, self.mean, self.response, spread)]
        _gauss_newton(*inputs, float(albedo_weight), place.numpy())
        return self._coefficients(place)

    def place_torch(self, tone: Tensor, spread: Tensor, albedo_weight: float) -> Tensor:
        """Steps along the directions in plain torch, on any device. spread: of `_whitening`. `[B, 3] -> [B, 3]`"""
        place = tone.new_zeros(len(tone), len(self.directions))
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
            step = -torch.linalg.solve_ex(normal, gradient)[0]
            fall = (-(step @ self.response) / albedo).amax(-1, keepdim=True)
            place = place + step / (fall / _LARGEST_FALL).clamp_min(1.0)
        return place

    def _place(self, albedo: Tensor) -> Tensor:
        """Steps along the directions. `[B, Ka] -> [B, 3]`"""
        return (albedo[:, None] * self.directions).sum(-1)

    def _coefficients(self, place: Tensor) -> Tensor:
        """`[B, 3] -> [B, Ka]`"""
        return (place[:, :, None] * self.directions).sum(1)

    def _albedo(self, place: Tensor) -> Tensor:
        return (self.mean + place @ self.response).clamp_min(_DARKEST)


@cache
def _whitening(dtype: torch.dtype, device: torch.device) -> Tensor:
    """From the logs of three gains to red balance, exposure and blue balance in standard deviations. [3, 3]"""
    scale = torch.tensor([1 / WHITE_BALANCE_SD, 1 / EXPOSURE_SD, 1 / WHITE_BALANCE_SD], dtype=dtype, device=device)
    parts = torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, 0.0], [0.0, -1.0, 1.0]], dtype=dtype, device=device)
    return scale[:, None] * parts


@kernel
def _gauss_newton(tone, mean, response, spread, albedo_weight, place):  # type: ignore[no-untyped-def]
    """`SkinTone.place_torch` without the cost of hundreds of operations on three numbers. place: zero before, [B, 3]"""
    albedo, residual, gradient, step = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    change, slope, normal = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    for b in range(tone.shape[0]):
        for _ in range(_STEPS):
            for c in range(3):
                value = float(mean[c])
                for k in range(3):
                    value += place[b, k] * response[k, c]
                albedo[c] = max(value, _DARKEST)
            departure = np.log(albedo[1]) - np.log(mean[1])
            metered = -_COMPENSATION * min(max(departure, -_LARGEST_DEPARTURE), _LARGEST_DEPARTURE)
            taken = _COMPENSATION if abs(departure) < _LARGEST_DEPARTURE else 0.0
            for c in range(3):
                for k in range(3):
                    change[c, k] = response[k, c] / albedo[c] - taken * response[k, 1] / albedo[1]
            residual[:], slope[:] = 0.0, 0.0
            for j in range(3):
                for c in range(3):
                    residual[j] += spread[j, c] * (tone[b, c] - np.log(albedo[c]) - metered)
                    for k in range(3):
                        slope[j, k] -= spread[j, c] * change[c, k]
            for k in range(3):
                gradient[k] = albedo_weight * place[b, k]
                for j in range(3):
                    gradient[k] += slope[j, k] * residual[j]
                    normal[k, j] = albedo_weight if j == k else 0.0
                    for i in range(3):
                        normal[k, j] += slope[i, k] * slope[i, j]
            _solve(normal, gradient, step)
            fall = 0.0
            for c in range(3):
                change_of_albedo = 0.0
                for k in range(3):
                    change_of_albedo -= step[k] * response[k, c]
                fall = max(fall, -change_of_albedo / albedo[c])
            for k in range(3):
                place[b, k] -= step[k] / max(fall / _LARGEST_FALL, 1.0)


@kernel
def _solve(matrix, right, solution):  # type: ignore[no-untyped-def]
    """Three equations by Cramer's rule."""
    determinant = 1.0
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        x = matrix[1, i] * matrix[2, j] - matrix[1, j] * matrix[2, i]
        y = matrix[2, i] * matrix[0, j] - matrix[2, j] * matrix[0, i]
        z = matrix[0, i] * matrix[1, j] - matrix[0, j] * matrix[1, i]
        determinant = x * matrix[0, k] + y * matrix[1, k] + z * matrix[2, k]
        solution[k] = x * right[0] + y * right[1] + z * right[2]
    for k in range(3):
        solution[k] /= determinant
