"""Training a small identity encoder from pairs of crops of one person."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nextface.errors import InputError
from nextface.prior.batch import UNKNOWN, Batch
from nextface.prior.identity import IdentityEncoder
from nextface.prior.train.learner import under
from nextface.prior.train.losses import recognition_loss
from nextface.prior.train.tasks import Run


class Recognition:
    """A `Task`: two crops of each person of a batch must find each other."""

    def __init__(self, net: IdentityEncoder, run: Run) -> None:
        self.net, self.run = net.train(), run
        self.learner = run.learner(net)

    def start(self, batches: Callable[[], Batch]) -> None:
        """It starts at random."""

    def step(self, batch: Batch, number: int) -> dict[str, Tensor]:
        if batch.partner is None or bool((batch.identity == UNKNOWN).any()):
            raise InputError("the identity encoder learns from people who are known; set people, or use the generator")
        with self.run.autocast():
            embedding = self.net.embed(torch.cat([batch.image, batch.partner]))
        first, second = (self.run.processes.gather(each) for each in embedding.chunk(2))
        identity = self.run.processes.gather(batch.identity)
        loss = recognition_loss(first, second, identity)
        self.learner.clear()
        loss.backward()
        self.learner.descend(number)
        found = (first.detach() @ second.detach().T).argmax(1)
        return {"loss": loss.detach(), "recognised": (identity[found] == identity).float().mean()}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> list[Tensor]:
        """Crops, and below each the crop of the batch's partners that is nearest to it."""
        assert batch.partner is not None
        self.net.eval()
        with self.learner.averages_in_place():
            first, second = (self.net.embed(each) for each in (batch.image, batch.partner))
        self.net.train()
        return [batch.image, batch.partner[(normalize(first) @ normalize(second).T).argmax(1)]]

    def state_dict(self) -> dict[str, Tensor]:
        return {f"net.{key}": each for key, each in self.learner.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.learner.load_state_dict(under(state, "net."))
