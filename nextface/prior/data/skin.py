"""Skin drawn at the pixels of a crop: pigments, hair, make-up, gloss, relief."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nextface.prior.data.noise import CHANNELS, FIELDS, WAVELENGTH, NoiseVolume, look_up
from nextface.prior.data.people import SCALES_MM, People
from nextface.prior.data.pigments import skin_colour
from nextface.prior.data.wrinkles import FOLDS, LINES
from nextface.prior.data.zones import COLUMNS, ZONES

_IRIS_EDGE, _PUPIL_EDGE = 0.375, 0.128
"""Angles from the eyeball's axis, radians, on the open head."""
_TINTED = ("cheeks", "nose", "forehead", "ears", "under_eyes", "lids", "creases", "lips")
_FOLD_WIDTH, _FRECKLES_MM = 2.4, 5.0
_BLUSH = (0.48, 0.13, 0.12)
_LASHES = (0.012, 0.010, 0.009)
_NOWHERE = 4.0
"""Squared distance, in radii, beyond which a spot is not seen."""
_DARKEST, _LIGHTEST = 0.004, 0.95


@dataclass(frozen=True)
class Skin:
    """What a person's skin is at P places. diffuse: linear Rec.709, [B, 3, P]; specular, roughness: [B, 1, P]; slopes: of the
    relief in the rest head's tangent frame, green up, [B, 2, P]"""

    diffuse: Tensor
    specular: Tensor
    roughness: Tensor
    slopes: Tensor


@dataclass(frozen=True)
class Places:
    """Columns of `zones.COLUMNS` at P places of each of B crops. zone: [B, P] each; iris: [B, P]; the others [B, C, P]"""

    rest: Tensor
    zone: dict[str, Tensor]
    line: Tensor
    fold: Tensor
    iris: Tensor
    material: Tensor

    @classmethod
    def of(cls, attributes: Tensor) -> Places:
        """attributes: [B, C, P]"""
        rest, zones, line, fold, iris, material = attributes.split(list(COLUMNS.values()), 1)
        return cls(rest, dict(zip(ZONES, zones.unbind(1), strict=True)), line, fold, iris[:, 0], material)

    def skin(self) -> Tensor:
        """Share of skin, lips and brows, less eyes, mouth, scalp and ears. [B, P]"""
        own = self.zone["skin"] + self.zone["lips"] + self.zone["brows"]
        return own.clamp(max=1.0) * (1.0 - self.zone["eyes"])


@dataclass(frozen=True)
class _Noise:
    """Mixtures of the noise at all scales, [B, P] each, but uphill: gradient of the bumps' height, rest space, [B, 3, P]."""

    melanin: Tensor
    blood: Tensor
    gloss: Tensor
    strands: Tensor
    beard: Tensor
    uphill: Tensor


def draw_skin(at: Places, frames: Tensor, people: People, noise: NoiseVolume) -> Skin:
    """The skin of each of B people at the places that a crop of each sees. frames: rest tangent, bitangent, [B, 6, P]"""
    zone = at.zone
    mottle = _mixed(at.rest, people, noise)
    bare = 1.0 - 0.75 * people.foundation[:, None]
    tints = torch.stack([zone[name] for name in _TINTED], 1)
    tinted = torch.stack([people.zones_melanin, people.zones_blood], 1) @ tints
    spots = _spots(at, people, noise)
    melanin = people.melanin[:, None] + tinted[:, 0] + bare * (mottle.melanin + spots[:, 0])
    blood = people.blood[:, None] + tinted[:, 1] + bare * (mottle.blood + spots[:, 1])
    colour = _made_up(skin_colour(melanin, blood), at, people)
    hairs, colour = _hairs(colour, at, people, mottle)
    colour = _eyes_and_mouth(colour, at, people)
    own = (zone["skin"] + zone["ears"] + zone["lips"]).clamp(max=1.0) * (1.0 - zone["eyes"]) * (1.0 - zone["mouth"])
    specular, roughness = _gloss(at, people, own, hairs, mottle.gloss)
    slopes = _relief(at, people, frames, mottle.uphill) * (own * bare * (1.0 - 0.6 * zone["lips"]))[:, None]
    return Skin(colour.clamp(_DARKEST, _LIGHTEST), specular, roughness, slopes)


def _mixed(rest: Tensor, people: People, noise: NoiseVolume) -> _Noise:
    """Look the volume up at every scale and mix what is found as each person has it."""
    count, scales = len(people), len(SCALES_MM)
    voxels = people.turn * (WAVELENGTH / rest.new_tensor(SCALES_MM))[:, None, None]
    places = voxels.flatten(1, 2) @ rest + people.shift.flatten(1)[..., None]
    found = look_up(noise.fields, places.view(count * scales, 3, -1)).view(count, scales * CHANNELS, -1)
    one = rest.new_ones(count)
    gloss, uneven = people.gloss_mottle, 1.0 - people.beard_even
    strengths = (
        people.mottle_melanin,
        people.mottle_blood,
        torch.stack([0 * one, 0.7 * gloss, gloss, gloss], 1),
        torch.stack([one, 0.5 * one, 0 * one, 0 * one], 1),
        torch.stack([0.7 * one, 0.6 * uneven, uneven, 0 * one], 1),
    )
    rows = rest.new_zeros(count, len(strengths) + 3, scales, CHANNELS)
    for number, strength in enumerate(strengths):
        rows[:, number, :, :FIELDS] = strength[..., None] * people.mix[:, number, None]
    # Heights are per mm of their scale: one unit of the volume's slope is one of the skin's.
    downhill = people.relief[:, :, None, None] * people.turn * (WAVELENGTH / (2.0 * torch.pi))
    rows[:, -3:, :, FIELDS:] = downhill.permute(0, 3, 1, 2)
    mixed = rows.flatten(2) @ found
    melanin, blood, gloss_noise, strands, beard = mixed[:, :-3].unbind(1)
    return _Noise(melanin, blood, gloss_noise, strands, beard, mixed[:, -3:])


def _spots(at: Places, people: People, noise: NoiseVolume) -> Tensor:
    """Freckles, moles and blemishes, as additions to the logs of melanin and blood. [B, 2, P]"""
    places = people.turn[:, 1] @ at.rest * (4.0 / _FRECKLES_MM) + people.shift[:, 1, :, None]
    freckles = look_up(noise.spots, places)[:, 0]
    freckles = people.freckles[:, None] * at.zone["freckled"] * (freckles - 0.25).clamp_min(0.0)
    # |p − c|² / r² as one product.
    place, sharp = people.spot_place, people.spot_radius.pow(-2)[..., None]
    form = torch.cat([-2.0 * place * sharp, sharp, place.square().sum(-1, keepdim=True) * sharp], -1)
    terms = torch.cat([at.rest, at.rest.square().sum(1, keepdim=True), torch.ones_like(at.rest[:, :1])], 1)
    cover = torch.exp(-(form @ terms).clamp_(max=_NOWHERE).square_())
    spots = torch.stack([people.spot_melanin, people.spot_blood], 1) @ cover
    spots[:, 0] += 1.6 * freckles
    return spots


def _made_up(colour: Tensor, at: Places, people: People) -> Tensor:
    """Blush, eye shadow and lipstick. [B, 3, P]"""
    zone = at.zone
    # A layer of pigment takes on some of the skin's own darkness.
    light = 0.35 + 0.65 * (colour.mean(1, keepdim=True) / 0.35).clamp(max=1.2)
    for pigment, cover in (
        (colour.new_tensor(_BLUSH).expand(len(people), 3), people.blush_cover[:, None] * zone["cheeks"]),
        (people.shadow, people.shadow_cover[:, None] * zone["lids"]),
        (people.lipstick, people.lipstick_cover[:, None] * zone["lips"]),
    ):
        colour = torch.lerp(colour, pigment[:, :, None] * light, cover[:, None].clamp(0.0, 1.0))
    return colour


def _hairs(colour: Tensor, at: Places, people: People, mottle: _Noise) -> tuple[Tensor, Tensor]:
    """Brows, beard, cropped hair and lashes. Returns how much hair covers, [B, P], and the colour with it."""
    zone = at.zone
    brows = zone["brows"] * people.brow_cover[:, None] * (1.0 + 0.3 * people.brow_coarse[:, None] * mottle.strands)
    beard = zone["beard"] * people.beard[:, None] * (1.0 + 0.14 * mottle.beard) * (1.0 - zone["lips"])
    scalp = zone["scalp"] * people.crop_hair[:, None] * (1.0 + 0.12 * mottle.strands)
    cover = torch.maximum(torch.maximum(brows, beard), scalp).clamp(0.0, 0.96)
    hair = torch.minimum(people.hair[:, :, None] * (1.0 + 0.15 * mottle.strands[:, None]), 0.8 * colour)
    colour = torch.lerp(colour, hair, cover[:, None])
    rims = (zone["rims"] * people.liner_cover[:, None]).clamp(0.0, 0.9)
    return cover, torch.lerp(colour, colour.new_tensor(_LASHES)[:, None].expand_as(colour), rims[:, None])


def _eyes_and_mouth(colour: Tensor, at: Places, people: People) -> Tensor:
    """Eyeballs by the angle from their axis; teeth and the mouth's lining as the model has them, lighter or darker."""
    angle = at.iris[:, None]
    white = people.sclera.cumprod(1)[:, :, None] * (1.0 - 0.4 * ((angle - 0.45) / 0.6).clamp(0.0, 1.0))
    rim = ((angle - 0.27) / 0.1).clamp(0.0, 1.0)
    ring = people.iris[:, :, None] * (1.3 - 0.9 * rim)
    ball = torch.lerp(ring, white, ((angle - _IRIS_EDGE) / 0.03 + 0.5).clamp(0.0, 1.0))
    ball = ball * ((angle - _PUPIL_EDGE) / 0.03 + 0.5).clamp(0.02, 1.0)
    colour = torch.lerp(colour, ball, at.zone["eyes"][:, None])
    return torch.lerp(colour, at.material[:, :3] * people.teeth[:, None, None], at.zone["mouth"][:, None])


def _gloss(at: Places, people: People, own: Tensor, hairs: Tensor, mottle: Tensor) -> tuple[Tensor, Tensor]:
    """Specular weight and roughness, `[B, 1, P]` each: the model's means, varied where there is skin."""
    oil = people.oil[:, None] * at.zone["oily"] - 0.25 * people.foundation[:, None]
    lipstick = at.zone["lips"] * (people.lipstick_cover * people.lipstick_gloss)[:, None]
    weight = people.gloss[:, None] + oil + mottle - 0.5 * hairs + lipstick
    specular = at.material[:, 3] * torch.exp(own * weight)
    rough = (people.rough + 0.05 * people.age)[:, None] - 0.35 * (oil + mottle) + 0.06 * hairs - 0.7 * lipstick
    roughness = at.material[:, 4] + own * rough
    return specular.clamp(0.0, 1.0)[:, None], roughness.clamp(0.1, 1.0)[:, None]


def _relief(at: Places, people: People, frames: Tensor, uphill: Tensor) -> Tensor:
    """Slopes of bumps and wrinkles, `[B, 2, P]`: minus the height's gradient along tangent and bitangent."""
    depth = {name: people.wrinkles[:, number, None] for number, name in enumerate((*LINES, *FOLDS))}
    phase = at.line[:, 0] * (2.0 * torch.pi / people.line_spacing)[:, None]
    lines = sum(depth[name] * at.zone[name] for name in LINES)
    wave = lines * (phase.sin() + 0.5 * (2.0 * phase).sin())
    across = at.fold[:, 0] / _FOLD_WIDTH
    folds = sum(depth[name] * at.zone[name] for name in FOLDS)
    groove = folds * 1.65 * across * torch.exp(-0.5 * across.square())
    uphill = uphill + wave[:, None] * at.line[:, 1:] + groove[:, None] * at.fold[:, 1:]
    return -torch.stack([(uphill * frames[:, :3]).sum(1), (uphill * frames[:, 3:]).sum(1)], 1)
