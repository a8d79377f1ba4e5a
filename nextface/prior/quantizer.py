"""A codebook: nearest codes, their training loss, and the care of codes that nothing chooses.

Vector quantisation after van den Oord et al. 2017, "Neural discrete representation learning".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from nextface.prior.blocks import at_least_single

CODEBOOK_WEIGHT = 0.25  # of the term that moves the codes; the term that moves the encoder has weight 1


class Quantized(NamedTuple):
    """A latent map on a codebook.

    codes:    the nearest codes; their gradient passes straight through to the latent map. [B, D, h, w]
    indices:  which codes, int64. [B, h, w]
    distance: squared distance to the nearest code, differentiable in the latent map. [B, h, w]
    loss:     mean|z − sg(e)|² + 0.25·mean|sg(z) − e|². []
    """

    codes: Tensor
    indices: Tensor
    distance: Tensor
    loss: Tensor


class VectorQuantizer(nn.Module):
    """K codes of D channels, trained by gradient.

    The weights of the two terms of the loss are the published code's (as in CodeFormer, Zhou et al. 2022): 1 on the
    commitment of the encoder, 0.25 on the codes, the reverse of the original paper. Distances and loss are taken in
    single precision (double for double), whatever autocast says.
    """

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, channels)
        nn.init.uniform_(self.embedding.weight, -1.0 / codes, 1.0 / codes)

    @property
    def table(self) -> Tensor:
        """The codes. [K, D]"""
        return self.embedding.weight

    def forward(self, latent: Tensor) -> Quantized:
        """latent: [B, D, h, w], any floating type; `codes` of the result have its type."""
        wide = at_least_single(latent)
        indices = self.nearest(wide)
        chosen = at_least_single(self.lookup(indices))
        distance = (wide - chosen.detach()).square().sum(1)
        codes_error = (chosen - wide.detach()).square().mean()
        loss = distance.mean() / latent.shape[1] + CODEBOOK_WEIGHT * codes_error
        # The latent map first: the sum lies in memory as that does, and looked-up codes lie channels last.
        straight_through = (wide - wide.detach()) + chosen.detach()
        return Quantized(straight_through.to(latent.dtype), indices, distance, loss)

    @torch.no_grad()
    def nearest(self, latent: Tensor) -> Tensor:
        """Index of the code nearest to each position; the lowest where several are. [B, D, h, w] -> int64 [B, h, w]"""
        tokens = at_least_single(_tokens(latent))
        return torch.cdist(tokens, self.table.to(tokens.dtype)).argmin(1).view(latent.shape[0], *latent.shape[2:])

    def lookup(self, indices: Tensor) -> Tensor:
        """Codes by index. int64 [B, h, w] -> [B, D, h, w]"""
        return embedding(indices, self.table).movedim(-1, 1)

    def counts(self, indices: Tensor) -> Tensor:
        """How often each code occurs. int64 of any shape -> int64 [K]"""
        return torch.bincount(indices.flatten(), minlength=len(self.table))

    @torch.no_grad()
    def reseed(self, rows: Tensor, latent: Tensor, generator: torch.Generator) -> None:
        """Put the codes `rows` on latent vectors that are far from the other codes, as k-means++ seeds its centres.

        All rows at once start a codebook from data; those of `CodeUsage.unused` restart dead codes.
        rows: int64 [R], distinct; latent: [B, D, h, w]; generator: on the CPU, whatever the device.
        """
        kept = torch.ones(len(self.table), dtype=torch.bool, device=self.table.device)
        kept[rows] = False
        seeds = spread_sample(at_least_single(_tokens(latent)), len(rows), generator, at_least_single(self.table[kept]))
        self.table[rows] = seeds.to(self.table.dtype)


class CodeUsage(nn.Module):
    """Running share of the positions that chose each code. Kept beside the codebook, whose own keys are fixed.

    share: [K], starts at 1/K for every code
    """

    share: Tensor

    def __init__(self, codes: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("share", torch.full((codes,), 1.0 / codes))

    @torch.no_grad()
    def update(self, counts: Tensor) -> None:
        """counts: of one step, summed over all processes; nothing changes where all are 0. [K]"""
        total = counts.sum()
        self.share.lerp_(counts / total.clamp_min(1), (1.0 - self.decay) * (total > 0).to(self.share))

    def unused(self, below: float = 0.1) -> Tensor:
        """Codes whose share is less than `below` times the even share. int64 [R]"""
        return torch.nonzero(self.share * len(self.share) < below).flatten()

    @torch.no_grad()
    def forget(self, rows: Tensor) -> None:
        """Restarted codes count as evenly used. rows: int64 [R]"""
        self.share[rows] = 1.0 / len(self.share)


def perplexity(counts: Tensor) -> Tensor:
    """exp(−Σ p·log(p + 1e-10)) of the codes' shares p: the number of codes in use if all were used evenly.

    [K] -> [], 1 for counts of nothing
    """
    share = counts / counts.sum().clamp_min(1)
    return torch.exp(-(share * torch.log(share + 1e-10)).sum())


def spread_sample(vectors: Tensor, count: int, generator: torch.Generator, present: Tensor) -> Tensor:
    """Vectors drawn one by one with probability proportional to the squared distance from all drawn and present ones.

    Arthur and Vassilvitskii 2007, "k-means++". Vectors repeat once no other is left.
    vectors: [N, D]; present: [M, D], M may be 0; generator: on the CPU -> [count, D]
    """
    draws = torch.rand(count, generator=generator).to(vectors.device)
    weight = torch.ones(len(vectors), device=vectors.device)
    if len(present):
        weight = torch.cdist(vectors, present).amin(1).square()
    drawn = vectors.new_empty(count, vectors.shape[1])
    for number in range(count):
        ladder = weight.cumsum(0)
        row = torch.searchsorted(ladder, draws[number] * ladder[-1], right=True).clamp_max(len(vectors) - 1)
        drawn[number] = vectors[row]
        gap = (vectors - vectors[row]).square().sum(1)
        weight = gap if number == 0 and len(present) == 0 else torch.minimum(weight, gap)
    return drawn


def _tokens(latent: Tensor) -> Tensor:
    """[B, D, h, w] -> [B·h·w, D]"""
    return latent.movedim(1, -1).reshape(-1, latent.shape[1])
