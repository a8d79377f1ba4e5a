"""Layers of the auto-encoder (Esser et al. 2021, "Taming transformers for high-resolution image synthesis").

Attribute names are those of the published checkpoints' keys, here and in the other modules of this package.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention, silu


def at_least_single(values: Tensor) -> Tensor:
    """Half precisions become float32; float32 and float64 stay."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))); the skip is a 1×1 convolution where the channels change.

    [B, before, H, W] -> [B, after, H, W]
    """

    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(before, groups)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = group_norm(after, groups)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        # the skip, in spite of its name
        self.conv_out = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, features: Tensor) -> Tensor:
        change = self.conv1(silu(self.norm1(features)))
        change = self.conv2(silu(self.norm2(change)))
        return self.conv_out(features) + change


class AttentionBlock(nn.Module):
    """x + attention among all positions of norm(x): one head, scale channels^-½. [B, C, H, W] -> [B, C, H, W]"""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        normal = self.norm(features)
        query, key, value = (project(normal).flatten(2).mT for project in (self.q, self.k, self.v))
        mixed = scaled_dot_product_attention(query, key, value)
        return features + self.proj_out(mixed.mT.reshape(features.shape))


class Downsample(nn.Module):
    """3×3 convolution of stride 2, padded at the right and lower border alone. [B, C, H, W] -> [B, C, H/2, W/2]"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(pad(features, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Every value doubled along both axes, then a 3×3 convolution. [B, C, H, W] -> [B, C, 2H, 2W]"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(interpolate(features, scale_factor=2.0, mode="nearest"))
