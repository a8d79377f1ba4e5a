"""What a fit leaves in the maps of the unseen faces: an albedo that was divided by the wrong light, and what comes of that.

Not the training's model of it: there a power of the shading is multiplied on; here a photo is drawn and divided by a light of
which only a part is right, without its cast shadows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from benchmarks.unseen.patterns import process

_DIMMEST = 0.12
"""Least estimated light, as a share of its mean over the face: a fit does not divide by less."""
_LONGEST, _SHORTEST = 0.6, 0.12
"""Wavelengths of smooth errors, as shares of a crop's side."""
_SLOPES_OF_COLOUR = 0.6


@dataclass(frozen=True)
class Lit:
    """A head's light at the pixels of N crops, linear, `[N, 3, S, S]`.

    shadowed: what a white skin would send back; open: the same if the head cast no shadow; highlight: light that the surface
    reflects. skin: where the face is, [N, 1, S, S]
    """

    shadowed: Tensor
    open: Tensor
    highlight: Tensor
    skin: Tensor


def left_by_a_fit(clean: dict[str, Tensor], covered: Tensor, lit: Lit, rng: np.random.Generator) -> dict[str, Tensor]:
    """Maps of one person with a fit's errors, of one strength in all views. Linear crops by domain, [N, C, S, S]

    clean: without photos; normals unit, model axes; covered: 1 on the head, [N, 1, S, S]
    """
    size = covered.shape[-1]

    def smooth() -> Tensor:
        fields = [process(rng, size, _LONGEST * size, _SHORTEST * size, 1.5) for _ in range(len(covered))]
        return torch.from_numpy(np.stack(fields))[:, None]

    albedo = _divided_by_the_wrong_light(clean["diffuse"], lit, smooth(), rng)
    brightness = _contrast(lit.highlight.mean(1, keepdim=True), lit.skin)
    spoilt = {"diffuse": albedo}
    for domain, sign in (("specular", 1.0), ("roughness", -1.0)):
        middle = _mean(clean[domain], lit.skin)
        flattened = middle + rng.uniform(0.2, 1.1) * (clean[domain] - middle)
        error = rng.normal(0.0, 0.08) + 0.05 * rng.random() * smooth() + sign * 0.12 * rng.random() * brightness
        spoilt[domain] = flattened + middle * error
    grey = clean["diffuse"].mean(1, keepdim=True).clamp_min(1e-3).log()
    across, down = (torch.gradient(grey, dim=axis)[0] for axis in (3, 2))
    # As if darker places were hollows: a photo's colours that pass for relief.
    false = torch.cat([-across, down, torch.zeros_like(grey)], 1).clamp(-0.3, 0.3)
    drift = 0.12 * rng.random() * torch.cat([smooth(), smooth(), torch.zeros_like(grey)], 1)
    spoilt["normal"] = clean["normal"] + _SLOPES_OF_COLOUR * rng.random() * false + drift
    factor = rng.uniform(0.4, 1.0)
    return {name: _softened(values, covered, factor, name) for name, values in spoilt.items()}


def _divided_by_the_wrong_light(albedo: Tensor, lit: Lit, uneven: Tensor, rng: np.random.Generator) -> Tensor:
    """The photo's light over an estimate that is partly even, knows a part of the shadows and none of some highlights."""
    known_light, known_shadow, baked = rng.uniform(0.2, 1.0), rng.uniform(0.0, 1.0), rng.uniform(0.0, 0.9)
    photo = albedo * lit.shadowed + baked * lit.highlight
    even = _mean(lit.shadowed, lit.skin)
    light = torch.lerp(lit.open, lit.shadowed, known_shadow)
    light = torch.lerp(even, light, known_light)
    estimate = torch.maximum(light, _DIMMEST * even) * torch.exp(0.06 * rng.random() * uneven)
    tint = torch.from_numpy(rng.uniform(0.94, 1.06, (1, 3, 1, 1))).float()
    return photo / estimate.clamp_min(1e-4) * tint


def _contrast(values: Tensor, skin: Tensor) -> Tensor:
    """Zero mean and unit variance on the skin, within ±3."""
    centred = values - _mean(values, skin)
    return (centred / _mean(centred.square(), skin).sqrt().clamp_min(1e-6)).clamp(-3.0, 3.0)


def _mean(values: Tensor, skin: Tensor) -> Tensor:
    """Over the skin of all views, since a fit has one light and one person. [1, C, 1, 1]"""
    return (values * skin).sum((0, 2, 3), keepdim=True) / skin.sum().clamp_min(1.0)


def _softened(values: Tensor, covered: Tensor, factor: float, domain: str) -> Tensor:
    """What maps of fewer texels keep: shrunk by a factor and grown again, the head's pixels alone."""
    size = covered.shape[-1]
    shrunk = [interpolate(part, (round(size * factor),) * 2, mode="area") for part in (values * covered, covered)]
    value, share = (interpolate(part, (size, size), mode="bicubic", align_corners=False) for part in shrunk)
    soft = value / share.clamp_min(0.05)
    return (normalize(soft, dim=1) if domain == "normal" else soft.clamp(0.0, 1.0)) * covered
