"""What the prior says of one head's maps: its views, the part of them that a photo showed, and the codes' answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from nextface.color import luminance
from nextface.morphable.model import MorphableModel
from nextface.prior.crops import closed, masked, trusted
from nextface.prior.projection import Answer, Projection
from nextface.prior.views import CropViews
from nextface.textures import LaplacianTexture, resized, upsample

SKIN = ("skin", "lips", "eyebrows")
"""Regions that the prior has a say in."""
_FACING_POWER = 2.0
"""Of the cosine to the viewer, in a pixel's weight."""
_CONFIDENT = 0.3
"""Mean weight of its pixels from which a texel counts in full."""
ENOUGH = 0.02
"""Mean weight of a view's pixels from which the network is asked about it."""
_REACH = 1.0 / 64.0
"""Largest shift of a crop before it is projected, as a share of its side."""
_GAINS = (0.5, 2.0)


def pixel_weight(views: CropViews, model: MorphableModel, known: Tensor) -> Tensor:
    """How far each pixel of the views counts, 0…1: skin inside of what is known, less at grazing angles.

    known: 1 or 0, [N, 1, S, S] -> [N, 1, S, S]
    """
    skin = views.draw(torch.stack([model.regions[name] for name in SKIN], 1).sum(1, keepdim=True)).clamp(0.0, 1.0)
    return trusted(known) * skin * views.steady * views.facing.clamp_min(0.0) ** _FACING_POWER


@dataclass(frozen=True)
class Answers:
    """Asks the network about one head's maps, stacked to seven channels as in `MAP_CHANNELS`. S: side of the crops.

    finer:      levels of the maps after those that move; they are drawn too. [s, s, 7] each
    known:      1 where the crops show what the photo showed, small holes in it included; the network sees mid-grey elsewhere.
                [N, 1, S, S]
    weight:     how far each pixel's answer counts, 0…1: skin inside of that, less at grazing angles. [N, 1, S, S]
    asked:      the views that show enough of it. int64
    confidence: how far each texel of the views' maps has an answer, 0…1. [R, R, 1]
    """

    projection: Projection
    views: CropViews
    finer: tuple[Tensor, ...]
    known: Tensor
    weight: Tensor
    asked: Tensor
    confidence: Tensor

    @classmethod
    def of(
        cls, projection: Projection, views: CropViews, model: MorphableModel, seen: Tensor, finer: Sequence[Tensor]
    ) -> Answers:
        """seen: how far the photo showed each texel of the maps, 0…1. [T, T, 1]"""
        seen = resized(seen[None], views.resolution)[0]
        known = views.covered * closed(views.crops(seen) > 0.5)
        weight = pixel_weight(views, model, known)
        enough = weight.mean((1, 2, 3)) >= ENOUGH
        weight = weight * enough[:, None, None, None]
        _, share = views.maps(torch.zeros_like(weight), weight)
        confidence = seen * (share / _CONFIDENT).clamp_max(1.0)
        return cls(projection, views, tuple(finer), known, weight, torch.nonzero(enough)[:, 0], confidence)

    def crops(self, levels: Sequence[Tensor]) -> Tensor:
        """The maps as the views see them, differentiable; what is finer than the views' own maps is left out. [N, 7, S, S]"""
        size = self.views.resolution
        coarse = [level[None] for level in (*levels, *self.finer) if level.shape[0] <= size]
        return self.views.crops(upsample(LaplacianTexture(coarse).full(), size)[0])

    def encoded(self, domain: str, crops: Tensor) -> Tensor:
        """One domain of crops of the maps as the network sees it. [N, 7, S, S] -> [N, 3, S, S] in -1…1"""
        return self.views.encoded(self.projection.encoding, domain, crops)

    def decoded(self, domain: str, encoded: Tensor) -> Tensor:
        """The inverse of `encoded`. [N, 3, S, S] -> [N, C, S, S]"""
        return self.views.decoded(self.projection.encoding, domain, encoded)

    def ask(self, domain: str, crop: Tensor, generator: torch.Generator) -> Answer:
        """The prior's answer to encoded crops; the crops themselves where the network is not asked. [N, 3, S, S]

        They are shifted and perhaps mirrored first: codes flip on a grid, which falls elsewhere each time.
        """
        if not len(self.asked):
            return Answer(crop, crop)
        draw = _Draw.of(self.views.size, generator)
        given = masked(crop, self.known)[self.asked]
        inside = draw.undo(draw.apply(torch.ones_like(given), ""), "") > 0.5
        found = Answer(crop.clone(), crop.clone())
        for each, told in zip(found, self.projection.answer(draw.apply(given, domain)), strict=True):
            each[self.asked] = torch.where(inside, draw.undo(told, domain), each[self.asked])
        return found

    def wish(self, domain: str, crop: Tensor, answer: Tensor) -> Tensor:
        """The change that an answer asks for. Where its pattern changes by less than the noise floor it says nothing. [N, 3, S, S]"""
        change = answer - crop
        level = (self.weight * change).sum((0, 2, 3), keepdim=True) / self.weight.sum().clamp_min(1e-6)
        pattern = change - level
        return level + pattern.sign() * (pattern.abs() - self.projection.floor(domain)).clamp_min(0.0)

    def gains(self, domain: str, crop: Tensor, answer: Tensor) -> Tensor:
        """Each channel's gain, common to all views, that takes the crops' mean in linear light to the answer's. [3]

        With gains for each view, light that differs between the sides of the face would pass for tone.
        """
        before, after = (self._mean(domain, each) for each in (crop, answer))
        return (after / before.clamp_min(1e-6)).clamp(*_GAINS)

    def tint(self, crop: Tensor, answer: Tensor) -> Tensor:
        """The gains that give the albedo the answer's colour and leave its luminance. [3]"""
        mean, gains = self._mean("diffuse", crop), self.gains("diffuse", crop, answer)
        return gains * (luminance(mean) / luminance(mean * gains).clamp_min(1e-6))

    def _mean(self, domain: str, crop: Tensor) -> Tensor:
        """Of encoded crops, in linear light, over the skin that counts, times its weight. [3]"""
        return (self.weight * self.projection.encoding.decode(domain, crop)).sum((0, 2, 3))

    def in_tone(self, domain: str, crop: Tensor, answer: Tensor) -> Tensor:
        """The answer without its `gains`: how the albedo changes over the face is what it pulls to. A regression with an offset would
        flatten the answer by as much as crops and answer differ."""
        encoding, gains = self.projection.encoding, self.gains(domain, crop, answer)
        return encoding.encode(domain, encoding.decode(domain, answer) / gains[:, None, None])


@dataclass(frozen=True)
class _Draw:
    """How crops are moved before they are projected. x, y: pixels to the right and down; mirrored: left to right, after that"""

    x: int
    y: int
    mirrored: bool

    @classmethod
    def of(cls, size: int, generator: torch.Generator) -> _Draw:
        reach = round(size * _REACH)
        x, y = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
        return cls(x, y, bool(torch.rand(1, generator=generator) < 0.5))

    def apply(self, crops: Tensor, domain: str) -> Tensor:
        """Mid-grey comes in at the borders. [N, 3, S, S]"""
        return self._mirror(pad(crops, (self.x, -self.x, self.y, -self.y)), domain)

    def undo(self, crops: Tensor, domain: str) -> Tensor:
        return pad(self._mirror(crops, domain), (-self.x, self.x, -self.y, self.y))

    def _mirror(self, crops: Tensor, domain: str) -> Tensor:
        if not self.mirrored:
            return crops
        flipped = crops.flip(-1)
        return flipped * flipped.new_tensor([-1.0, 1.0, 1.0])[:, None, None] if domain == "normal" else flipped
