"""How far each pixel counts when the skin maps are taken from a photo."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nextface.color import luminance
from nextface.fitting import per_image
from nextface.fitting.observation import Observation
from nextface.fitting.outliers import inlier_weight, map_trust, skin_image, smooth, unclipped
from nextface.fitting.surface import Surface
from nextface.morphable.model import MorphableModel
from nextface.rendering.transport import Shadow

_MARGIN = 3.0
"""Gain on the blurred regions that are allowed a look of their own: how far they widen."""
_DOUBT = (0.2, 0.45)
"""Weights between which a pixel begins to count."""
_GRAZING = (0.15, 0.4)
"""Cosines to the viewer between which a surface begins to count."""
_DIM = (0.3, 0.7)
"""Irradiances, as a share of the face's mean, between which a pixel begins to count."""
_CAST = (0.4, 0.7)
"""Shares of the irradiance that a cast shadow leaves, between which a pixel begins to count."""


@dataclass(frozen=True)
class Evidence:
    """believed: from what is known before the fit. [P]; own: where a person's colours are expected to differ. [P]"""

    believed: Tensor
    own: Tensor

    @classmethod
    def of(cls, surface: Surface, observation: Observation, model: MorphableModel) -> Evidence:
        """Seen not too obliquely, not clipped, of this face's own skin colour where skin is expected, and not in the dark."""
        pixels = surface.seen.pixels
        own = _own_look(surface, model)
        region = surface.seen.interpolate(map_trust(model)[None])[:, 0].clamp(0.0, 1.0)
        usable = pixels.pack(observation.valid & unclipped(observation.image))
        skin = pixels.pack(skin_image(pixels, observation.image, observation))
        believed = region * _ramp(surface.facing(), _GRAZING) * usable * torch.maximum(skin, own)
        if surface.shadow is not None:
            believed = believed * _lit(surface, surface.shadow, model, believed)
        return cls(believed, own)

    def weigh(self, residual: Tensor, surface: Surface) -> Tensor:
        """With the pixels left out that the start of the fit cannot explain, and the doubtful: half a hair is no skin. [P]

        residual: on the scale of `losses.encode`. [P, 3]
        """
        inlier = inlier_weight(residual, self.believed, surface.seen.pixels)
        weight = self.believed * torch.maximum(inlier, self.own)
        return weight * _ramp(weight, _DOUBT)


def _own_look(surface: Surface, model: MorphableModel) -> Tensor:
    """Where a person's colours are expected to differ from skin and from the statistics, with a margin for brows that sit
    a little higher or lower than the model's. [P]"""
    regions = ("lips", "eyebrows", "eyes", "mouth_interior")
    vertices = torch.stack([model.regions[name] for name in regions], 1).sum(1, keepdim=True)
    inside = surface.seen.interpolate(vertices[None])
    return (_MARGIN * smooth(inside, surface.seen.pixels)[:, 0]).clamp(0.0, 1.0)


def _lit(surface: Surface, shadow: Shadow, model: MorphableModel, trust: Tensor) -> Tensor:
    """How far the light shows what a surface is: 0 in a cast shadow, and where much less arrives than on the rest of the face.

    There small errors of light and shape outweigh the skin's colour, which the other side of the face tells better. Eyes keep the look
    that the photo gives them: the statistics know no gaze. [P]
    """
    pixels = surface.seen.pixels
    arriving = luminance(surface.incoming())
    usual = per_image.mean(arriving, trust, pixels)[pixels.image]
    lit = _ramp(arriving / usual.clamp_min(1e-6), _DIM) * _ramp(luminance(shadow.lit), _CAST)
    eyes = surface.seen.interpolate(model.regions["eyes"][None, :, None])[:, 0]
    return torch.maximum(lit, eyes)


def _ramp(values: Tensor, between: tuple[float, float]) -> Tensor:
    low, high = between
    return ((values - low) / (high - low)).clamp(0.0, 1.0)
