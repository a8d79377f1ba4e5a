"""Shared and domain codebooks, and the network that mixes them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nextface.errors import InputError
from nextface.prior.autoencoder import CodebookNet
from nextface.prior.quantizer import Quantized, VectorQuantizer
from nextface.prior.settings import AutoencoderSettings, FusionSettings, check_fusion
from nextface.prior.swin import SwinStack

DOMAINS = ("shared", "diffuse", "specular", "normal", "roughness")
"""Order of the codebooks in fusion weights and in `FusedNet.route`; the first is learnt on all domains and photos."""


class FusedCodes(NamedTuple):
    """codes:     the mixture, to be decoded. [B, D, h, w]
    weights:   of the codebooks, in the order of DOMAINS. They may be negative and need not sum to 1. [B, 5, h, w]
    quantized: the same latent map on each codebook
    """

    codes: Tensor
    weights: Tensor
    quantized: tuple[Quantized, ...]


class FusedReconstruction(NamedTuple):
    """image: [B, 3, S, S], about -1…1; latent: before quantisation, [B, D, S/f, S/f]; fused: on the codebooks."""

    image: Tensor
    latent: Tensor
    fused: FusedCodes


class CodebookFusion(nn.Module):
    """Weights of the five codebooks from the latent map on the shared one. [B, D, h, w] -> [B, 5, h, w]"""

    def __init__(self, channels: int, settings: FusionSettings) -> None:
        super().__init__()
        self.blocks = nn.Sequential(SwinStack(channels, settings), nn.Conv2d(channels, len(DOMAINS), 1))

    def forward(self, shared: Tensor) -> Tensor:
        return self.blocks(shared)


class FusedNet(CodebookNet):
    """Encoder, the five codebooks, their fusion, and decoder, under the names of the published checkpoints."""

    def __init__(self, settings: AutoencoderSettings, fusion: FusionSettings) -> None:
        check_fusion(settings, fusion)
        super().__init__(settings)
        for domain in DOMAINS[1:]:
            self.add_module(f"quantize_{domain}", VectorQuantizer(settings.codes, settings.code_channels))
        self.fusion = CodebookFusion(settings.code_channels, fusion)

    def codebook(self, domain: str) -> VectorQuantizer:
        """domain: a name of DOMAINS"""
        return self.quantize if domain == DOMAINS[0] else getattr(self, f"quantize_{domain}")

    def fuse(self, latent: Tensor) -> FusedCodes:
        """Codes without knowing the domain: Σ weight · code of each codebook, at each position.

        No gradient reaches the codebooks: the codes pass it straight through to the latent map. latent: [B, D, h, w]
        """
        quantized = tuple(self.codebook(domain)(latent) for domain in DOMAINS)
        weights = self.fusion(quantized[0].codes)
        codes = torch.stack([each.codes for each in quantized], 1)
        return FusedCodes((weights[:, :, None] * codes).sum(1), weights, quantized)

    def route(self, latent: Tensor, domains: Tensor) -> Quantized:
        """Codes of known domains: each map on its own codebook, the loss averaged over the batch.

        latent: [B, D, h, w]; domains: index in DOMAINS, int64 [B]
        """
        order = torch.argsort(domains, stable=True)
        parts = []
        for number, domain in enumerate(DOMAINS):
            rows = order[domains[order] == number]
            if len(rows):
                parts.append(self.codebook(domain)(latent[rows]))
        if sum(len(part.codes) for part in parts) != len(latent):
            raise InputError(f"domains must be indices in {DOMAINS}, not {domains.tolist()}")
        back = torch.argsort(order)
        codes, indices, distance = (torch.cat([part[field] for part in parts])[back] for field in range(3))
        loss = torch.stack([part.loss * len(part.codes) for part in parts]).sum() / len(latent)
        return Quantized(codes, indices, distance, loss)


class FusedAutoencoder(FusedNet):
    """Encoder, fused codes of the shared and the four domain codebooks, decoder: ID2Reflectance after its stage 2.

    With default settings it has the layers and keys of the published `VQFusionEncoder`, 86.1 million parameters.
    """

    def __init__(self, settings: AutoencoderSettings | None = None, fusion: FusionSettings | None = None) -> None:
        super().__init__(settings or AutoencoderSettings(), fusion or FusionSettings())

    def forward(self, image: Tensor) -> FusedReconstruction:
        """image: crops in -1…1 of any domain, [B, 3, S, S]"""
        latent = self.encode(image)
        fused = self.fuse(latent)
        return FusedReconstruction(self.decode(fused.codes), latent, fused)
