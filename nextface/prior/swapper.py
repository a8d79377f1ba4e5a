"""Decoding a face with the identity of another: the swapper of ID2Reflectance (Ren et al. 2024).

The crop given to it, a photo or a reflectance template, keeps pose, expression and domain; the identity comes as the
embedding of a face-recognition network.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from nextface.prior.autoencoder import CodebookNet, Modulate
from nextface.prior.blocks import at_least_single
from nextface.prior.fusion import FusedNet
from nextface.prior.settings import AutoencoderSettings, FusionSettings, SwapSettings, check_swap


class Swap(NamedTuple):
    """image: [B, 3, S, S], about -1…1; latent: of the crop, before quantisation, [B, D, S/f, S/f]"""

    image: Tensor
    latent: Tensor


class InstanceNorm(nn.Module):
    """(x − mean) / sqrt(variance + 1e-8) over each map, never in half precision, where 1e-8 would vanish."""

    def forward(self, features: Tensor) -> Tensor:
        wide = at_least_single(features)
        centred = wide - wide.mean((2, 3), keepdim=True)
        return (centred * (centred.square().mean((2, 3), keepdim=True) + 1e-8).rsqrt()).to(features.dtype)


class IdentityScale(nn.Module):
    """(1 + γ)·x + β per channel, γ and β linear in the identity (AdaIN, Huang and Belongie 2017).

    [B, C, H, W], identity [B, E] -> [B, C, H, W]
    """

    def __init__(self, channels: int, identity_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(identity_channels, 2 * channels)

    def forward(self, features: Tensor, identity: Tensor) -> Tensor:
        gamma, beta = self.linear(identity)[..., None, None].chunk(2, dim=1)
        return (1 + gamma) * features + beta


class IdentityResBlock(nn.Module):
    """x + AdaIN(conv(leaky(AdaIN(conv(x))))). [B, C, H, W], identity [B, E] -> [B, C, H, W]"""

    def __init__(self, channels: int, identity_channels: int) -> None:
        super().__init__()
        self.conv1 = _normalised_convolution(channels)
        self.style1 = IdentityScale(channels, identity_channels)
        self.conv2 = _normalised_convolution(channels)
        self.style2 = IdentityScale(channels, identity_channels)

    def forward(self, features: Tensor, identity: Tensor) -> Tensor:
        change = leaky_relu(self.style1(self.conv1(features), identity), 0.2)
        return features + self.style2(self.conv2(change), identity)


class IdentityBlock(nn.Module):
    """Three residual blocks; their names are those of the published keys. [B, C, H, W], [B, E] -> [B, C, H, W]"""

    def __init__(self, channels: int, identity_channels: int) -> None:
        super().__init__()
        self.encode_enc = IdentityResBlock(channels, identity_channels)
        self.encode_enc2 = IdentityResBlock(channels, identity_channels)
        self.encode_enc3 = IdentityResBlock(channels, identity_channels)

    def forward(self, features: Tensor, identity: Tensor) -> Tensor:
        for block in (self.encode_enc, self.encode_enc2, self.encode_enc3):
            features = block(features, identity)
        return features


class Swapper(CodebookNet):
    """The swapper as published: codes of the shared codebook alone.

    With default settings it has the layers and keys of the published `Swapper`, 93.0 million parameters.
    """

    def __init__(self, settings: AutoencoderSettings | None = None, swap: SwapSettings | None = None) -> None:
        super().__init__(settings or AutoencoderSettings())
        self.fuse_convs_dict = identity_blocks(self.settings, swap or SwapSettings())

    def forward(self, image: Tensor, identity: Tensor) -> Swap:
        """image: crops in -1…1, [B, 3, S, S]; identity: unit embeddings, [B, E]"""
        latent = self.encode(image)
        codes = self.quantize(latent).codes
        return Swap(self.decode(codes, injection(self.fuse_convs_dict, identity)), latent)


class FusedSwapper(FusedNet):
    """The swapper that the paper means: fused codes of all codebooks, so that one network serves every domain."""

    def __init__(
        self,
        settings: AutoencoderSettings | None = None,
        fusion: FusionSettings | None = None,
        swap: SwapSettings | None = None,
    ) -> None:
        super().__init__(settings or AutoencoderSettings(), fusion or FusionSettings())
        self.fuse_convs_dict = identity_blocks(self.settings, swap or SwapSettings())

    def forward(self, image: Tensor, identity: Tensor) -> Swap:
        """image: crops in -1…1 of any domain, [B, 3, S, S]; identity: unit embeddings, [B, E]"""
        latent = self.encode(image)
        codes = self.fuse(latent).codes
        return Swap(self.decode(codes, injection(self.fuse_convs_dict, identity)), latent)


def identity_blocks(settings: AutoencoderSettings, swap: SwapSettings) -> nn.ModuleDict:
    """An identity block for each of `swap.sizes`, by the side of its feature map."""
    check_swap(settings, swap)
    channels = dict(zip(settings.sizes, settings.widths, strict=True))
    return nn.ModuleDict({str(size): IdentityBlock(channels[size], swap.identity_channels) for size in swap.sizes})


def injection(blocks: nn.ModuleDict, identity: Tensor) -> Modulate:
    """What the decoder calls at its taps. identity: [B, E]"""

    def modulate(size: int, features: Tensor) -> Tensor:
        return blocks[str(size)](features, identity) if str(size) in blocks else features

    return modulate


def _normalised_convolution(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), InstanceNorm())
