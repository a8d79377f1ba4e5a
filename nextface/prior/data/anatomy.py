"""Where the features of the mean head lie, and soft shapes about them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nextface.morphable.model import MorphableModel

_EYES = ((33, 133, 159, 145), (263, 362, 386, 374))
_NOSE_WINGS, _MOUTH_CORNERS, _CHEEKS, _NOSE_TIP, _CHIN, _BROW_GAP = (129, 358), (61, 291), (50, 280), 1, 152, 9


@dataclass(frozen=True)
class Eye:
    """Points of one eye's opening, mm. [3] each"""

    outer: Tensor
    inner: Tensor
    upper: Tensor
    lower: Tensor


@dataclass(frozen=True)
class Anatomy:
    """Points of the mean head, mm, x to the subject's left; pairs are right, left. [3] each

    rest: all vertices, [V, 3]
    """

    rest: Tensor
    eyes: tuple[Eye, Eye]
    nose_wings: tuple[Tensor, Tensor]
    mouth_corners: tuple[Tensor, Tensor]
    cheeks: tuple[Tensor, Tensor]
    nose: Tensor
    chin: Tensor
    brow_gap: Tensor

    @classmethod
    def of(cls, model: MorphableModel) -> Anatomy:
        """From the "mediapipe" landmarks."""
        embedding = model.landmarks["mediapipe"]
        corners = model.mean[model.triangles[embedding.triangle[:, 0]]]
        places = (corners * embedding.barycentric[:, 0, :, None]).sum(1)
        point = dict(zip(embedding.index.tolist(), places, strict=True))
        right, left = (Eye(*(point[number] for number in numbers)) for numbers in _EYES)
        wings, mouth, cheeks = ((point[one], point[other]) for one, other in (_NOSE_WINGS, _MOUTH_CORNERS, _CHEEKS))
        return cls(model.mean, (right, left), wings, mouth, cheeks, point[_NOSE_TIP], point[_CHIN], point[_BROW_GAP])

    @property
    def mouth(self) -> Tensor:
        return (self.mouth_corners[0] + self.mouth_corners[1]) / 2.0

    def about(self, place: Tensor, radii: tuple[float, float, float], shift: tuple[float, float, float]) -> Tensor:
        """1 at a place, falling off like a Gaussian with these standard deviations. shift: outwards, up, forward. [V]"""
        out = 1.0 if place[0] >= 0 else -1.0
        centre = place + place.new_tensor([out * shift[0], shift[1], shift[2]])
        return torch.exp(-0.5 * ((self.rest - centre) / place.new_tensor(radii)).square().sum(1))

    def about_both(
        self, pair: tuple[Tensor, Tensor], radii: tuple[float, float, float], shift: tuple[float, float, float]
    ) -> Tensor:
        return torch.maximum(self.about(pair[0], radii, shift), self.about(pair[1], radii, shift))


def smoothstep(value: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """0 below low, 1 above high, smooth between."""
    share = ((value - low) / (high - low)).clamp(0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)
