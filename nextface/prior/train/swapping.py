"""Training the swapper: identity blocks in a frozen auto-encoder (ID2Reflectance, Ren et al. 2024; SimSwap, Chen et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from nextface.errors import InputError
from nextface.prior.batch import Batch
from nextface.prior.blocks import at_least_single
from nextface.prior.identity import IdentityEncoder
from nextface.prior.swapper import FusedSwapper, IdentityResBlock, Swapper
from nextface.prior.train.learner import under
from nextface.prior.train.losses import identity_loss, inside, pixel_loss
from nextface.prior.train.tasks import Opponent, Run

PAIR_PERIOD = 30000
"""Steps after which pairs become one step rarer."""


class Swapping:
    """A `Task`: only the identity blocks learn. They start as no change at all.

    Where the batch says what is to come out (`Batch.exchanged`), that is what the result is compared with, and photos must have the
    stranger's identity. Otherwise it goes as published: every second step (later every third, and so on) is of pairs: the identity is another crop of the same person, and the
    crop itself must come out. In the others the identities of the batch are permuted, and only LPIPS, the identity and the
    discriminator judge.
    """

    def __init__(
        self, net: Swapper | FusedSwapper, encoder: IdentityEncoder, run: Run, opponent: Opponent | None = None
    ) -> None:
        self.net, self.run, self.opponent = net, run, opponent
        self.encoder = encoder.requires_grad_(False).eval()
        rest(net.fuse_convs_dict)
        self.learner = run.learner(net, ("fuse_convs_dict.",))

    def start(self, batches: Callable[[], Batch]) -> None:
        """The blocks start as they were made."""

    def step(self, batch: Batch, number: int) -> dict[str, Tensor]:
        settings = self.run.settings
        pair = batch.exchanged is None and is_pair_step(number)
        wanted = self._identities(batch, pair)
        target = batch.image if batch.exchanged is None else batch.exchanged
        image = self._swap(batch.image, wanted)
        terms = {
            "identity": identity_loss(self.encoder.embed(image), wanted, batch.domain == 0),
            "perceptual": self.run.perceptual(inside(image, target, batch.mask), target),
        }
        loss = settings.weight_identity * terms["identity"] + settings.weight_perceptual * terms["perceptual"]
        if pair or batch.exchanged is not None:
            terms["pixel"] = pixel_loss(image, target, batch.mask)
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
        shown = self._partner(batch).roll(1, 0) if batch.stranger is None else batch.stranger
        wanted = self.encoder.embed(shown)
        with self.learner.averages_in_place():
            rows = [batch.image, shown, self._swap(batch.image, wanted)]
        return rows if batch.exchanged is None else [*rows, batch.exchanged]

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
        """Unit embeddings to put in: of each row's stranger; else of its partner, or of partners permuted over the whole batch. [B, E]"""
        if batch.exchanged is not None and batch.stranger is not None:
            return self.encoder.embed(batch.stranger).to(batch.image.dtype)
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


def rest(blocks: nn.ModuleDict) -> None:
    """Make identity blocks pass their features on: the last scale of each residual is 0. The published ones start at random, which
    doubles the spread of the features that the decoder was trained with."""
    with torch.no_grad():
        for block in blocks.modules():
            if isinstance(block, IdentityResBlock):
                block.style2.linear.weight.zero_()
                gamma, beta = block.style2.linear.bias.chunk(2)
                gamma.fill_(-1.0)
                beta.zero_()


def is_pair_step(number: int) -> bool:
    """Whether step `number` is of pairs: every r-th is, r = 2 + ⌊number / 30000⌋."""
    return number % (2 + number // PAIR_PERIOD) == 0
