"""Who the faces of the training set are: a row of numbers for each person's skin, hair, eyes and make-up."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nextface.prior.data.noise import FIELDS, SIDE
from nextface.prior.data.wrinkles import FOLDS, LINES
from nextface.prior.data.zones import FaceZones

SCALES_MM = (3.0, 6.0, 14.0, 36.0)
"""Wavelengths of the noise that mottles skin."""
SPOTS = 12
"""Moles and blemishes that a person has at most."""
_HAIR = (
    (0.010, 0.008, 0.007),
    (0.024, 0.015, 0.010),
    (0.065, 0.040, 0.024),
    (0.17, 0.11, 0.06),
    (0.15, 0.06, 0.025),
    (0.17, 0.165, 0.16),
)
"""Linear albedo: black, dark brown, brown, blond, red, grey."""
_IRIS = (
    (0.022, 0.011, 0.006),
    (0.070, 0.034, 0.014),
    (0.115, 0.080, 0.034),
    (0.085, 0.100, 0.058),
    (0.095, 0.140, 0.190),
    (0.150, 0.170, 0.180),
)
"""Dark brown, brown, hazel, green, blue, grey."""
_LIPSTICK = ((0.42, 0.02, 0.03), (0.30, 0.04, 0.07), (0.45, 0.14, 0.14), (0.16, 0.02, 0.05), (0.40, 0.20, 0.16))
_EYE_SHADOW = ((0.10, 0.07, 0.06), (0.25, 0.13, 0.08), (0.12, 0.14, 0.22), (0.22, 0.10, 0.16), (0.40, 0.32, 0.25))
_MALE, _MADE_UP, _FRECKLED, _SHAVEN = 0.5, 0.6, 0.3, 0.35


@dataclass(frozen=True)
class People:
    """N persons. Strengths are about 1 where they are typical and 0 where they are absent; colours are linear Rec.709.

    melanin, blood: logs of the volume fractions of plain skin; age: 0..1
    zones_blood, zones_melanin: what is added to these logs at cheeks, nose, forehead, ears, under eyes, lids, creases,
        lips. [N, 8]
    mottle_melanin, mottle_blood, relief: strength of noise at each of SCALES_MM. [N, 4]
    turn: of the noise at each scale, [N, 4, 3, 3]; shift: voxels, [N, 4, 3]; mix: of its fields for each use, [N, 5, FIELDS]
    spot_place: mm on the mean head, [N, SPOTS, 3]; spot_radius: mm, spot_melanin, spot_blood: added at their middle, [N, SPOTS]
    wrinkles: depth of each of LINES and FOLDS, as the largest slope. [N, 6]
    brow_cover, brow_coarse, beard, beard_even, crop_hair: cover by hair
    gloss, oil, rough, gloss_mottle: logs and offsets of specular weight and roughness
    """

    melanin: Tensor
    blood: Tensor
    age: Tensor
    zones_blood: Tensor
    zones_melanin: Tensor
    mottle_melanin: Tensor
    mottle_blood: Tensor
    relief: Tensor
    turn: Tensor
    shift: Tensor
    mix: Tensor
    freckles: Tensor
    spot_place: Tensor
    spot_radius: Tensor
    spot_melanin: Tensor
    spot_blood: Tensor
    wrinkles: Tensor
    line_spacing: Tensor
    hair: Tensor
    brow_cover: Tensor
    brow_coarse: Tensor
    beard: Tensor
    beard_even: Tensor
    crop_hair: Tensor
    gloss: Tensor
    oil: Tensor
    rough: Tensor
    gloss_mottle: Tensor
    iris: Tensor
    sclera: Tensor
    teeth: Tensor
    lipstick: Tensor
    lipstick_cover: Tensor
    lipstick_gloss: Tensor
    blush_cover: Tensor
    shadow: Tensor
    shadow_cover: Tensor
    liner_cover: Tensor
    foundation: Tensor

    def __len__(self) -> int:
        return len(self.melanin)

    def rows(self, index: Tensor) -> People:
        """Some of them, in a new order. index: int64 [M]"""
        return People(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, device: torch.device | str) -> People:
        return People(*(getattr(self, field.name).to(device) for field in fields(self)))


def draw_people(count: int, zones: FaceZones, generator: torch.Generator) -> People:
    """Random persons, on the CPU. zones: on the CPU; generator: of the CPU"""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def normal(mean: float, deviation: float, *shape: int) -> Tensor:
        return mean + deviation * torch.randn(count, *shape, generator=generator)

    def chance(share: float | Tensor, *shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) < share).float()

    def blend(colours: tuple[tuple[float, ...], ...], weights: Tensor, spread: float) -> Tensor:
        """One of some colours, a little of another in it, lighter or darker."""
        table = torch.tensor(colours)
        first, second = torch.multinomial(weights, 2, replacement=True, generator=generator).unbind(1)
        return torch.lerp(table[first], table[second], uniform(0.0, 0.5, 1)) * torch.exp(normal(0.0, spread, 1))

    # Evenly over the logarithm of melanin, so that no skin type is rare.
    melanin = uniform(math.log(0.002), math.log(1.0))
    light = ((math.log(0.25) - melanin) / 3.0).clamp(0.0, 1.0)
    age = uniform(0.0, 1.0)
    old = ((age - 0.25) / 0.75).clamp_min(0.0)
    male = chance(_MALE)
    made_up = chance(_MADE_UP) * (1.0 - male)
    weights = torch.stack([2.2 - 1.8 * light, 0.8 + 0.0 * light, 0.1 + light, 0.8 * light, 0.35 * light], 1)
    grey = chance(old)[:, None] * old[:, None]
    hair = blend(_HAIR[:5], weights, 0.15)
    hair = torch.lerp(hair, torch.tensor(_HAIR[5]) * uniform(0.6, 1.3, 1), grey)

    freckles = chance(_FRECKLED) * light * uniform(0.3, 1.6)
    count_of_moles = uniform(0.0, 7.0).long()
    number = torch.arange(SPOTS)
    moles = (number < count_of_moles[:, None]).float()
    blemishes = (1.0 - moles) * chance(0.12, SPOTS) * (1.0 - 0.6 * age[:, None])
    places = torch.randint(len(zones.front), (count, SPOTS), generator=generator)
    turn = torch.linalg.qr(torch.randn(count, len(SCALES_MM), 3, 3, generator=generator))[0]
    scale_fall = torch.tensor([0.6, 0.8, 1.0, 1.2])
    flush = torch.tensor([0.34, 0.38, 0.06, 0.45, 0.12, 0.12, 0.38, 0.95])
    tan = torch.tensor([0.0, 0.02, 0.16, 0.05, 0.20, 0.16, 0.08, 0.05])
    depth = torch.tensor([0.30, 0.26, 0.24, 0.42, 0.24, 0.22])
    wrinkles = depth * (0.15 + 1.1 * age[:, None].pow(1.5)) * torch.exp(normal(-0.1, 0.5, len(LINES) + len(FOLDS)))
    foundation = made_up * uniform(0.0, 0.8)
    return People(
        melanin=melanin,
        blood=normal(math.log(0.014), 0.35),
        age=age,
        zones_blood=flush * torch.exp(normal(0.0, 0.5, 8)) + normal(0.0, 0.08, 8),
        zones_melanin=tan * torch.exp(normal(0.0, 0.6, 8)) + normal(0.0, 0.05, 8),
        mottle_melanin=0.085 * scale_fall * torch.exp(normal(-0.1, 0.5, 4)) * (0.7 + 0.9 * age[:, None]),
        mottle_blood=0.14 * scale_fall * torch.exp(normal(-0.1, 0.5, 4)),
        relief=torch.tensor([0.045, 0.034, 0.03, 0.02]) * torch.exp(normal(0.0, 0.25, 4)) * (0.6 + 0.8 * age[:, None]),
        turn=turn,
        shift=torch.rand(count, len(SCALES_MM), 3, generator=generator) * SIDE,
        mix=normalize(torch.randn(count, 5, FIELDS, generator=generator), dim=2),
        freckles=freckles,
        spot_place=zones.vertices[zones.front[places], :3],
        spot_radius=torch.where(moles > 0, torch.exp(normal(0.25, 0.35, SPOTS)), torch.exp(normal(0.9, 0.3, SPOTS))),
        spot_melanin=moles * uniform(0.6, 2.6, SPOTS),
        spot_blood=blemishes * uniform(0.3, 1.0, SPOTS) + 0.3 * moles,
        wrinkles=wrinkles,
        line_spacing=uniform(6.5, 10.0),
        hair=hair,
        brow_cover=(normal(0.85, 0.2) + 0.15 * male).clamp(0.3, 1.2),
        brow_coarse=uniform(0.2, 0.8),
        beard=male * (1.0 - chance(_SHAVEN)) * uniform(0.05, 1.0).pow(1.5),
        beard_even=uniform(0.0, 1.0),
        crop_hair=uniform(0.2, 0.97),
        gloss=normal(0.0, 0.14),
        oil=normal(0.0, 0.18),
        rough=normal(0.0, 0.05),
        gloss_mottle=uniform(0.015, 0.055),
        iris=blend(
            _IRIS, torch.stack([3.0 - 2.6 * light, 2.0 - light, 0.6 + 0 * light, *([light * 0.9] * 3)], 1), 0.15
        ),
        sclera=torch.stack([uniform(0.46, 0.62), uniform(0.94, 1.0), uniform(0.86, 0.97)], 1),
        teeth=uniform(0.45, 0.9),
        lipstick=blend(_LIPSTICK, torch.ones(count, len(_LIPSTICK)), 0.25),
        lipstick_cover=made_up * chance(0.75) * uniform(0.3, 1.0),
        lipstick_gloss=uniform(-0.10, 0.16),
        blush_cover=made_up * chance(0.5) * uniform(0.08, 0.35) * (0.4 + 0.6 * light),
        shadow=blend(_EYE_SHADOW, torch.ones(count, len(_EYE_SHADOW)), 0.25),
        shadow_cover=made_up * chance(0.6) * uniform(0.2, 0.85),
        liner_cover=(made_up * chance(0.6) * uniform(0.4, 1.0)).clamp_min(0.25),
        foundation=foundation,
    )
