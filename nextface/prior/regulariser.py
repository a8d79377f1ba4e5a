"""The prior as a pull on the skin maps of one head: the maps follow what the codes say of them.

No gradient passes the network: its answers are targets, renewed from time to time (plug-and-play priors, Venkatakrishnan et al.
2013; regularisation by denoising, Romano et al. 2017). The pull acts on Laplacian levels that the network resolves, on skin that
the photo showed, and never on finer detail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from nextface.prior.answers import Answers
from nextface.prior.projection import Answer
from nextface.rendering.bake import fill
from nextface.textures import MAP_CHANNELS, LaplacianTexture, channels, resized

_MEMORY = 0.5
"""Share of the earlier answers in the present one."""
_ROUND = 0.02
"""Wish in -1…1 below which an absolute difference counts as its square."""


class Aim(Protocol):
    """What becomes of answers.

    faint: share of `full` below which a pull counts in proportion and does not grow to its full strength
    """

    faint: float

    def take(self, levels: Sequence[Tensor], crops: Tensor, answers: Mapping[str, Tensor]) -> None:
        """Follow these from now on. levels: that are pulled, as they are; crops: of the maps as they are, [N, 7, S, S]; answers:
        encoded crops by domain"""

    def gradients(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Of all levels that are pulled, at strength 1. [s, s, 7] each"""

    def full(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """`gradients` if all pixels asked for a change of 1."""


class Regulariser:
    """The pull on one head's maps, levels `[s, s, 7]` from coarse to fine, stacked as in `MAP_CHANNELS`.

    tint: gains of the channels that give the albedo the answers' colour and leave its luminance. It is no pull, for what the skin's colour is and
    what the light's no photo tells: see `Pull.tinted`. [3]

    Call `begin` once, `refresh` from time to time and `gradients` in every iteration. Nothing depends on other photos.
    """

    def __init__(self, answers: Answers, mode: str, weights: Mapping[str, float], seed: int) -> None:
        """mode: a key of MODES; weights: of the domains to ask about, 0 asks without a pull; seed: of how crops are moved before they are projected"""
        self.answers = answers
        self.weights = {name: weights[name] for name in MAP_CHANNELS if name in weights}
        self._aim = MODES[mode](answers)
        self._generator = torch.Generator().manual_seed(seed)
        self.tint = answers.weight.new_ones(3)
        self._earlier: dict[str, Answer] = {}
        self._photo: list[Tensor] = []
        self._strength: list[Tensor] = []

    def begin(self, levels: Sequence[Tensor], photo: Sequence[Tensor]) -> None:
        """Measure the photo's gradients of the levels at the start of the stage."""
        coarse = pulled(self.answers, levels)
        shares = [resized(self.answers.confidence[None], len(level))[0] for level in coarse]
        self._photo = [_norms(each * share) for each, share in zip(photo[: len(coarse)], shares, strict=True)]

    def refresh(self, levels: Sequence[Tensor]) -> None:
        """Ask about the maps as they are."""
        crops = self.answers.crops(levels)
        found = {}
        for domain in self.weights:
            crop = self.answers.encoded(domain, crops)
            answer = self.answers.ask(domain, crop, self._generator)
            earlier = self._earlier.get(domain, answer)
            answer = Answer(*(torch.lerp(new, old, _MEMORY) for new, old in zip(answer, earlier, strict=True)))
            self._earlier[domain] = answer
            found[domain] = answer.cleaned
            if domain == "diffuse":
                found[domain] = self.answers.in_tone(domain, crop, answer.cleaned)
                self.tint = self.answers.tint(crop, answer.plain)
        self._aim.take(levels, crops, found)
        if not self._strength:
            self._strength = self._balanced(levels)

    def gradients(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """What to add to the photo's gradients of the first levels, none before the first refresh. [s, s, 7] each"""
        if not self._strength:
            return []
        return [raw * strength for raw, strength in zip(self._aim.gradients(levels), self._strength, strict=True)]

    def _balanced(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Strength of each level by channel, so that at weight 1 each domain pulls as the photo did when the stage began. [7] each

        The photo's pull fades as it is met; measured against what is left of it, the prior's would fade with it.
        """
        strengths = []
        for photo, raw, full in zip(self._photo, self._aim.gradients(levels), self._aim.full(levels), strict=True):
            own = torch.maximum(_norms(raw), self._aim.faint * _norms(full))
            weight = photo.new_tensor(
                [self.weights.get(name, 0.0) for name, n in MAP_CHANNELS.items() for _ in range(n)]
            )
            strengths.append(weight * photo / own.clamp_min(1e-20))
        return strengths


class UvAim:
    """The answers brought to the unwrap: Σ confidence · (level − target)², the target being the level as it was at the refresh
    plus its part of the wish. Where the codes agree with the maps nothing is pulled, whatever the views blur."""

    faint = 0.005  # root mean square of a level's wish, in the map's units

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._targets: list[Tensor] = []
        self._shares: list[Tensor] = []

    def take(self, levels: Sequence[Tensor], crops: Tensor, answers: Mapping[str, Tensor]) -> None:
        own, changes = self._answers, torch.zeros_like(crops)
        for domain, answer in answers.items():
            crop = own.encoded(domain, crops)
            wanted = own.decoded(domain, crop + own.wish(domain, crop, answer)) - own.decoded(domain, crop)
            changes[:, channels()[domain]] = wanted
        wish, weight = own.views.maps(changes, own.weight)
        wish = fill(wish[None], (weight > 0.0).to(weight)[None])
        coarse = pulled(own, levels)
        parts = LaplacianTexture.from_image(wish).levels
        self._targets = [level + part[0] for level, part in zip(coarse, parts[: len(coarse)], strict=True)]
        self._shares = [resized(own.confidence[None], len(level))[0] for level in coarse]

    def gradients(self, levels: Sequence[Tensor]) -> list[Tensor]:
        coarse = pulled(self._answers, levels)
        parts = zip(coarse, self._targets, self._shares, strict=True)
        return [2.0 * share * (level - target) for level, target, share in parts]

    def full(self, levels: Sequence[Tensor]) -> list[Tensor]:
        return [2.0 * share.expand_as(target) for share, target in zip(self._shares, self._targets, strict=True)]


class ImageAim:
    """The answers compared with the crops of the maps in every iteration: Σ weight · |wish| / Σ weight, rounded near 0 (Huber)."""

    faint = 0.1  # share of the pixels that agree about the sign of their wishes

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._targets: dict[str, Tensor] = {}

    def take(self, levels: Sequence[Tensor], crops: Tensor, answers: Mapping[str, Tensor]) -> None:
        self._targets = dict(answers)

    def gradients(self, levels: Sequence[Tensor]) -> list[Tensor]:
        def cost(crops: Tensor) -> Tensor:
            own, total = self._answers, crops.new_zeros(())
            for domain, answer in self._targets.items():
                wish = own.wish(domain, own.encoded(domain, crops), answer)
                total = total + (own.weight * huber_loss(wish, torch.zeros_like(wish), "none", _ROUND)).sum() / _ROUND
            return total

        return self._of(cost, levels)

    def full(self, levels: Sequence[Tensor]) -> list[Tensor]:
        return self._of(lambda crops: (self._answers.weight * crops).sum(), levels)

    def _of(self, cost: Callable[[Tensor], Tensor], levels: Sequence[Tensor]) -> list[Tensor]:
        own = self._answers
        with torch.enable_grad():
            leaves = [level.detach().requires_grad_(True) for level in levels]
            coarse = pulled(own, leaves)
            found = torch.autograd.grad(cost(own.crops(leaves)) / own.weight.sum().clamp_min(1.0), coarse)
        return [part * resized(own.confidence[None], len(part))[0] for part in found]


MODES: dict[str, Callable[[Answers], Aim]] = {"uv": UvAim, "image": ImageAim}


def pulled(answers: Answers, levels: Sequence[Tensor]) -> list[Tensor]:
    """The levels that the network resolves: those whose texels are at least about two pixels of a crop wide."""
    return [level for level in levels if 2 * len(level) <= answers.views.resolution]


def _norms(gradient: Tensor) -> Tensor:
    """Norm of a level's gradient over each domain, repeated for its channels. `[s, s, 7] -> [7]`"""
    squares = gradient.square().sum((0, 1))
    return torch.cat([squares[where].sum().expand(where.stop - where.start) for where in channels().values()]).sqrt()
