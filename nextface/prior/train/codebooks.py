"""The care of codebooks in training: a start from data, counts of use, and a new life for codes that nothing chooses.

Codes learn by gradient, as published. From the published start, uniform in ±1/K, most codes are never nearest to anything
and get no gradient; so they start on latent vectors, and unused ones move to latent vectors that lie far from all codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nextface.prior.autoencoder import CodebookNet
from nextface.prior.fusion import DOMAINS, FusedNet
from nextface.prior.quantizer import CodeUsage, VectorQuantizer, perplexity
from nextface.prior.train.learner import Learner
from nextface.prior.train.processes import Processes


class Codebooks:
    """The codebooks of a network that learn, by the name of their domain.

    domains: in the order of DOMAINS
    """

    def __init__(self, net: CodebookNet, domains: Sequence[str], processes: Processes, every: int) -> None:
        """every: steps between looks for unused codes, 0 for none"""
        self.processes, self.every, self.domains = processes, every, tuple(domains)
        self.quantizers: dict[str, VectorQuantizer] = {
            domain: net.codebook(domain) if isinstance(net, FusedNet) else net.quantize for domain in domains
        }
        device = net.quantize.table.device
        self.usage = {domain: CodeUsage(net.settings.codes).to(device) for domain in domains}

    def start(
        self, latents: Sequence[Tensor], choices: Sequence[Tensor], domains: Sequence[str], draws: torch.Generator
    ) -> None:
        """Put all codes of `domains` on latent vectors.

        latents: this process's, one of each batch, [B, D, h, w]; choices: domain of each row, int64 [B]. Rows of every
        domain are the shared codebook's.
        """
        latent = torch.cat([self.processes.gather(each) for each in latents])
        choice = torch.cat([self.processes.gather(each) for each in choices])
        for domain in domains:
            rows = self._rows(domain, latent, choice)
            if len(rows):
                table = self.quantizers[domain].table
                self.quantizers[domain].reseed(torch.arange(len(table), device=table.device), rows, draws)
                self.processes.broadcast(table.data)

    @torch.no_grad()
    def count(self, domain: str, indices: Tensor) -> dict[str, Tensor]:
        """Note which codes a step chose; tells how many are in use. indices: this process's, int64 of any shape"""
        quantizer = self.quantizers[domain]
        usage = self.usage[domain]
        usage.update(self.processes.total(quantizer.counts(indices).to(usage.share)))
        return {f"codes in use, {domain}": perplexity(usage.share)}

    @torch.no_grad()
    def restart(self, step: int, latent: Tensor, choice: Tensor, learner: Learner, draws: torch.Generator) -> int:
        """Every so many steps, put unused codes on latent vectors of this step's batch; returns how many.

        latent: this process's, [B, D, h, w]; choice: domain of each row, int64 [B]. Rows of every domain are the
        shared codebook's.
        """
        if self.every == 0 or step % self.every:
            return 0
        latent, choice = self.processes.gather(latent.detach()), self.processes.gather(choice)
        total = 0
        for domain, quantizer in self.quantizers.items():
            dead = self.usage[domain].unused()
            rows = self._rows(domain, latent, choice)
            if len(dead) and len(rows):
                quantizer.reseed(dead, rows, draws)
                self.processes.broadcast(quantizer.table.data)
                self.usage[domain].forget(dead)
                learner.restarted(_parameter(learner, quantizer), dead)
                total += len(dead)
        return total

    @staticmethod
    def _rows(domain: str, latent: Tensor, choice: Tensor) -> Tensor:
        return latent if domain == DOMAINS[0] else latent[choice == DOMAINS.index(domain)]

    def state_dict(self) -> dict[str, Tensor]:
        return {f"usage.{domain}": usage.share for domain, usage in self.usage.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for domain, usage in self.usage.items():
            usage.share.copy_(state[f"usage.{domain}"])


def _parameter(learner: Learner, quantizer: VectorQuantizer) -> str:
    return next(name for name, each in learner.trained.items() if each is quantizer.table)
