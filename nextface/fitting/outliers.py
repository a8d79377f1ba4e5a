"""Which pixels count: skin that the photo shows, is not clipped, and that the model can explain."""

from __future__ import annotations

import torch
from torch import Tensor

from nextface.fitting import per_image
from nextface.fitting.landmark_loss import extent
from nextface.fitting.observation import Observation
from nextface.morphable.model import MorphableModel
from nextface.rendering.raster import VisiblePixels

CLIPPED_HIGH = 0.98
CLIPPED_LOW = 0.01
"""Bounds of the sRGB-encoded value beyond which a channel says nothing of the light that fell on it."""

_FIT_TRUST = {
    "skin": 1.0,
    "lips": 0.8,
    "eyebrows": 0.3,
    "eyes": 0.3,
    "ears": 0.3,
    "mouth_interior": 0.0,
    "scalp": 0.0,
    "neck": 0.1,
}
_MAP_TRUST = {
    "skin": 1.0,
    "lips": 1.0,
    "eyebrows": 1.0,
    "eyes": 1.0,
    "ears": 1.0,
    "mouth_interior": 1.0,
    "scalp": 0.0,
    "neck": 1.0,
}
_SPREAD_FLOOR = (0.05, 0.05, 0.3)
"""Smallest spreads of log R/G, log B/G and log luminance that count as another colour."""
_CENTRAL = 0.3
"""Radius of the middle of the face in units of the landmarks' extent: cheeks, nose and mouth."""
_ROOM = 3.0
_FEWEST = 20
_BLUR_ROUNDS = 3
_ACCEPT = 3.0
_FLOOR = 0.025


def fit_trust(model: MorphableModel) -> Tensor:
    """How far each vertex is to be believed when shape, light and statistical albedo are fitted. [V, 1]"""
    return _blend(model, _FIT_TRUST)


def map_trust(model: MorphableModel) -> Tensor:
    """Which vertices' texels are taken from the photo: everything but hair. [V, 1]"""
    return _blend(model, _MAP_TRUST)


def _blend(model: MorphableModel, trusts: dict[str, float]) -> Tensor:
    trust = torch.zeros_like(model.mean[:, 0])
    covered = torch.zeros_like(trust)
    for region, weight in model.regions.items():
        trust = trust + trusts[region] * weight
        covered = covered + weight
    return (trust / covered.clamp_min(1.0))[:, None].clamp(0.0, 1.0)


def unclipped(linear: Tensor) -> Tensor:
    """Pixels with no channel at the top and not all channels at the bottom of the sensor. `[..., 3] -> [...]` bool"""
    high = ((CLIPPED_HIGH + 0.055) / 1.055) ** 2.4
    low = CLIPPED_LOW / 12.92
    return (linear < high).all(-1) & (linear > low).any(-1)


def skin_image(pixels: VisiblePixels, image: Tensor, observation: Observation, scale: Tensor | None = None) -> Tensor:
    """`skin_likelihood` of a crop or of a smaller copy of it, 1 outside the drawn head. `[B, h, w, 3] -> [B, h, w]`

    scale: pixels of the copy per pixel of the crop. [B]
    """
    weight = (observation.confidence > 0).float()[..., None]
    middle = (observation.points * weight).sum(1) / weight.sum(1)
    reach = _CENTRAL * extent(observation)
    if scale is not None:
        middle, reach = middle * scale[:, None], reach * scale
    place = torch.stack([pixels.column + 0.5, pixels.row + 0.5], -1)
    central = (place - middle[pixels.image]).norm(dim=1) < reach[pixels.image]
    likelihood = skin_likelihood(pixels.pack(image), central, pixels)
    return pixels.unpack(likelihood[:, None], background=1.0)[..., 0]


def skin_likelihood(observed: Tensor, central: Tensor, pixels: VisiblePixels) -> Tensor:
    """How far each pixel has the colour of this face's own skin, before anything is fitted.

    Hair over the forehead can be mistaken for shading; its chromaticity gives it away. Log chromaticities and log luminance
    are compared with their median and median absolute deviation on the middle of the face, with room for shading.

    observed: linear RGB, [P, 3]; central: pixels on the middle of the face, [P] bool -> [P] in 0..1
    """
    logs = (observed.clamp_min(0.0) + 1e-3).log()
    features = torch.stack([logs[:, 0] - logs[:, 1], logs[:, 2] - logs[:, 1], logs.mean(1)], 1)
    features = smooth(features, pixels, 1)
    middle = per_image.median(features, central, pixels)
    deviation = per_image.median((features - middle[pixels.image]).abs(), central, pixels)
    spread = (1.4826 * deviation).maximum(deviation.new_tensor(_SPREAD_FLOOR))
    distance = ((features - middle[pixels.image]) / (_ROOM * spread[pixels.image])).square().sum(1)
    enough = per_image.total(central.to(features), pixels) >= _FEWEST
    likelihood = torch.where(enough[pixels.image], 1.0 / (1.0 + distance.square()), 1.0)
    return smooth(likelihood[:, None], pixels, 1)[:, 0]


def inlier_weight(residual: Tensor, trust: Tensor, pixels: VisiblePixels) -> Tensor:
    """Soft inlier weights from the residuals of the current fit.

    Hair, glasses, hands and beards differ from the model over whole patches while noise and texture do not: the
    residual's size is averaged over a neighbourhood, set against the photo's own median on trusted skin, and weighed by
    1 / (1 + (x/3)^6).

    residual: on the scale of `losses.encode`. [P, 3]; trust: [P] -> [P] in 0..1
    """
    size = smooth(residual, pixels).norm(dim=1)
    middle = per_image.median(size[:, None], trust > 0.5, pixels)[:, 0]
    spread = (1.4826 * middle).clamp_min(_FLOOR)[pixels.image]
    squared = (size / (_ACCEPT * spread)).square()
    weight = 1.0 / (1.0 + squared * squared * squared)
    return torch.where(spread.isfinite(), weight, 1.0)


def smooth(values: Tensor, pixels: VisiblePixels, rounds: int = _BLUR_ROUNDS) -> Tensor:
    """Repeated mean over a pixel and its covered neighbours. `[P, C] -> [P, C]`"""
    present = pixels.neighbours >= 0
    index = pixels.neighbours.clamp_min(0)
    count = 1.0 + present.sum(1, keepdim=True)
    for _ in range(rounds):
        values = (values + (values[index] * present[..., None]).sum(1)) / count
    return values
