"""The vector-quantised auto-encoder of aligned face crops."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from nextface.errors import InputError
from nextface.prior.blocks import AttentionBlock, Downsample, ResBlock, Upsample, group_norm
from nextface.prior.quantizer import Quantized, VectorQuantizer
from nextface.prior.settings import AutoencoderSettings

Modulate = Callable[[int, Tensor], Tensor]
"""Changes the decoder's features: (side of the map in a crop of nominal size, features [B, C, H, W]) -> same shape."""


class Encoder(nn.Module):
    """Crops to latent maps. [B, 3, S, S] -> [B, D, S/f, S/f]; f = `AutoencoderSettings.downsampling`

    `blocks` is one flat list, applied in order. No activation lies between the last norm and the last convolution,
    here and in the generator.
    """

    def __init__(self, settings: AutoencoderSettings) -> None:
        super().__init__()
        groups, deepest = settings.norm_groups, settings.widths[-1]
        channels = settings.widths[0]
        blocks: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1)]
        for width, size in zip(settings.widths, settings.sizes, strict=True):
            if size < settings.image_size:
                blocks.append(Downsample(channels))
            for _ in range(settings.res_blocks):
                blocks.append(ResBlock(channels, width, groups))
                channels = width
                if size in settings.attention_sizes:
                    blocks.append(AttentionBlock(width, groups))
        blocks += _middle(deepest, groups)
        blocks += [group_norm(deepest, groups), nn.Conv2d(deepest, settings.code_channels, 3, padding=1)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Tensor) -> Tensor:
        for block in self.blocks:
            image = block(image)
        return image


class Generator(nn.Module):
    """Codes to crops. [B, D, h, w] -> [B, 3, h·f, w·f]; not squashed, so values may leave -1…1.

    taps: the blocks after which features may be modulated, as {index in `blocks`: side of the map}. As in the published
          swapper that is the last residual block on the smallest maps, and the first of each level above them.
    """

    def __init__(self, settings: AutoencoderSettings) -> None:
        super().__init__()
        groups, channels = settings.norm_groups, settings.widths[-1]
        self.taps: dict[int, int] = {}
        blocks: list[nn.Module] = [nn.Conv2d(settings.code_channels, channels, 3, padding=1)]
        blocks += _middle(channels, groups)
        for width, size in zip(reversed(settings.widths), reversed(settings.sizes), strict=True):
            smallest = size == settings.latent_size
            if not smallest:
                blocks.append(Upsample(channels))
            for number in range(settings.res_blocks):
                if number == (settings.res_blocks - 1 if smallest else 0):
                    self.taps[len(blocks)] = size
                blocks.append(ResBlock(channels, width, groups))
                channels = width
                if size in settings.attention_sizes:
                    blocks.append(AttentionBlock(width, groups))
        blocks += [group_norm(channels, groups), nn.Conv2d(channels, 3, 3, padding=1)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, codes: Tensor, modulate: Modulate | None = None) -> Tensor:
        for index, block in enumerate(self.blocks):
            codes = block(codes)
            if modulate is not None and index in self.taps:
                codes = modulate(self.taps[index], codes)
        return codes


def _middle(channels: int, groups: int) -> list[nn.Module]:
    return [
        ResBlock(channels, channels, groups),
        AttentionBlock(channels, groups),
        ResBlock(channels, channels, groups),
    ]


class CodebookNet(nn.Module):
    """Encoder, codebook and decoder under the names of the published checkpoints. Subclasses choose the codes.

    denoiser: a second encoder, for spoilt crops, where one was trained; the published system has none
    """

    denoiser: Encoder | None

    def __init__(self, settings: AutoencoderSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = Encoder(settings)
        self.quantize = VectorQuantizer(settings.codes, settings.code_channels)
        self.generator = Generator(settings)
        self.denoiser = None

    def encode(self, image: Tensor) -> Tensor:
        """Crops in -1…1 to latent maps, not yet quantised. [B, 3, S, S] -> [B, D, S/f, S/f]

        S is `settings.image_size`, or another multiple of f. Raises InputError for other shapes.
        """
        factor = self.settings.downsampling
        if image.ndim != 4 or image.shape[1] != 3 or any(side == 0 or side % factor for side in image.shape[2:]):
            raise InputError(
                f"crops of shape {list(image.shape)} cannot be encoded: give [B, 3, S, S] with S a multiple of {factor}"
            )
        return self.encoder(image)

    def decode(self, codes: Tensor, modulate: Modulate | None = None) -> Tensor:
        """Codes to crops in about -1…1. [B, D, h, w] -> [B, 3, h·f, w·f]"""
        return self.generator(codes, modulate)


class Reconstruction(NamedTuple):
    """image: [B, 3, S, S], about -1…1; latent: before quantisation, [B, D, S/f, S/f]; quantized: on the codebook."""

    image: Tensor
    latent: Tensor
    quantized: Quantized


class VQAutoencoder(CodebookNet):
    """Encoder, nearest codes of one codebook, decoder: stages 1 and 2 of ID2Reflectance (Ren et al. 2024).

    With default settings it has the layers and keys of the published `VQAutoEncoder`, 63.7 million parameters.
    """

    def __init__(self, settings: AutoencoderSettings | None = None) -> None:
        super().__init__(settings or AutoencoderSettings())

    def forward(self, image: Tensor) -> Reconstruction:
        """image: crops in -1…1, [B, 3, S, S]"""
        latent = self.encode(image)
        quantized = self.quantize(latent)
        return Reconstruction(self.decode(quantized.codes), latent, quantized)

    def decode_indices(self, indices: Tensor) -> Tensor:
        """Crops of given codes. int64 [B, h, w] -> [B, 3, h·f, w·f]"""
        return self.decode(self.quantize.lookup(indices))
