"""Training the swapper: identity blocks in a frozen auto-encoder (ID2Reflectance, Ren et al. 2024; SimSwap, Chen et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from nextface.errors import InputError
from nextface.prior.batch import Batch
from nextface.prior.blocks import at_least_single
from nextface.prior.identity import IdentityEncoder
from nextface.prior.swapper import FusedSwapper, Swapper
from nextface.prior.train.learner import under
from nextface.prior.train.losses import identity_loss, inside, pixel_loss
from nextface.prior.train.tasks import Opponent, Run

PAIR_PERIOD = 30000
"""Steps after which pairs become one step rarer."""


class Swapping:
    """A `Task`: only the identity blocks learn.

    Every second step (later every third, and so on) is of pairs: the identity is another crop of the same person, and the
    crop itself must come out. In the others the identities of the batch are permuted, and only LPIPS, the identity and the
    discriminator judge.
    """

    def __init__(
        self, net: Swapper | FusedSwapper, encoder: IdentityEncoder, run: Run, opponent: Opponent | None = None
    ) -> None:
        self.net, self.run, self.opponent = net, run, opponent
        self.encoder = encoder.requires_grad_(False).eval()
        self.learner = run.learner(net, ("fuse_convs_dict.",))

    def start(self, batches: Callable[[], Batch]) -> None:
        """The blocks start at random, as published."""

    def step(self, batch: Batch, number: int) -> dict[str, Tensor]:
        settings = self.run.settings
        pair = is_pair_step(number)
        wanted = self._identities(batch, pair)
        image = self._swap(batch.image, wanted)
        terms = {
            "identity": identity_loss(self.encoder.embed(image), wanted),
            "perceptual": self.run.perceptual(inside(image, batch.image, batch.mask), batch.image),
        }
        loss = settings.weight_identity * terms["identity"] + settings.weight_perceptual * terms["perceptual"]
        if pair:
            terms["pixel"] = pixel_loss(image, batch.image, batch.mask)
            loss = loss + settings.weight_pixel * terms["pixel"]
        playing = self.opponent is not None and self.opponent.active(number)
        if self.opponent is not None and playing:
            terms["fooling"] = self.opponent.fooled(image)
            loss = loss + settings.weight_adversarial * terms["fooling"]
        self.learner.clear()
        loss.backward()
        self.learner.descend(number)
        told = {"loss": loss, **terms}
        if self.opponent is not None and playing:
            with torch.no_grad():
                image = self._swap(batch.image, wanted)
            told["telling apart"] = self.opponent.descend(batch.image, image, number)
        return {name: each.detach() for name, each in told.items()}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> list[Tensor]:
        """Crops, faces whose identity is put in, and the result."""
        shown = self._partner(batch).roll(1, 0)
        wanted = self.encoder.embed(shown)
        with self.learner.averages_in_place():
            return [batch.image, shown, self._swap(batch.image, wanted)]

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"net.{key}": each for key, each in self.learner.state_dict().items()}
        if self.opponent is not None:
            state |= {f"opponent.{key}": each for key, each in self.opponent.learner.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.learner.load_state_dict(under(state, "net."))
        if self.opponent is not None:
            self.opponent.learner.load_state_dict(under(state, "opponent."))

    @torch.no_grad()
    def _identities(self, batch: Batch, pair: bool) -> Tensor:
        """Unit embeddings to put in: of each row's partner, or of partners permuted over the whole batch. [B, E]"""
        own = self.encoder.embed(self._partner(batch)).to(batch.image.dtype)
        if pair:
            return own
        everyone = self.run.processes.gather(own)
        order = torch.randperm(len(everyone), generator=self.run.draws).to(everyone.device)
        return self.run.processes.own(everyone[order])

    def _swap(self, image: Tensor, wanted: Tensor) -> Tensor:
        with self.run.autocast():
            return at_least_single(self.net(image, wanted).image)

    def _partner(self, batch: Batch) -> Tensor:
        if batch.partner is None:
            raise InputError("the swapper learns from two crops of each person; set people, or use the generator")
        return batch.partner


def is_pair_step(number: int) -> bool:
    """Whether step `number` is of pairs: every r-th is, r = 2 + ⌊number / 30000⌋."""
    return number % (2 + number // PAIR_PERIOD) == 0
