"""Transformer layers on windows (Liu et al. 2021, "Swin transformer"), grouped as in SwinIR (Liang et al. 2021).

The published code lacks the definition of these groups; that they are SwinIR's "RSTB" is inferred from its key names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from nextface.errors import InputError
from nextface.prior.settings import FusionSettings

APART = -100.0  # added to the attention between tokens that only the cyclic shift brought together


class SwinStack(nn.Module):
    """Residual groups in sequence. [B, C, H, W] -> [B, C, H, W]; H and W multiples of the window."""

    def __init__(self, channels: int, settings: FusionSettings) -> None:
        super().__init__()
        self.window = settings.window
        self.swin_blks = nn.ModuleList(SwinGroup(channels, settings) for _ in range(settings.stacks))

    def forward(self, features: Tensor) -> Tensor:
        if any(side % self.window for side in features.shape[2:]):
            raise InputError(
                f"a latent map of {features.shape[2]}x{features.shape[3]} tokens cannot be split into windows of "
                f"{self.window}x{self.window}: give crops of another size"
            )
        for group in self.swin_blks:
            features = group(features)
        return features


class SwinGroup(nn.Module):
    """x + conv(layers(x)). [B, C, H, W] -> [B, C, H, W]"""

    def __init__(self, channels: int, settings: FusionSettings) -> None:
        super().__init__()
        self.residual_group = SwinLayers(channels, settings)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        tokens = self.residual_group(features.movedim(1, -1))
        return features + self.conv(tokens.movedim(-1, 1))


class SwinLayers(nn.Module):
    """Layers in sequence, every second one on shifted windows. [B, H, W, C] -> [B, H, W, C]"""

    def __init__(self, channels: int, settings: FusionSettings) -> None:
        super().__init__()
        half = settings.window // 2
        self.blocks = nn.Sequential(
            *(SwinLayer(channels, settings, shift=half * (number % 2)) for number in range(settings.layers))
        )

    def forward(self, tokens: Tensor) -> Tensor:
        return self.blocks(tokens)


class SwinLayer(nn.Module):
    """x += attention(norm(x)) inside windows, then x += mlp(norm(x)). [B, H, W, C] -> [B, H, W, C]

    shift: 0, or the tokens by which the windows are moved to the right and down; the map is cyclic, and a mask keeps
    tokens from opposite borders apart.
    """

    attn_mask: Tensor | None

    def __init__(self, channels: int, settings: FusionSettings, shift: int) -> None:
        super().__init__()
        self.window, self.shift = settings.window, shift
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, settings.heads, settings.window)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Perceptron(channels, settings.mlp_ratio * channels)
        self.mask_size = size = settings.mask_size
        self.register_buffer("attn_mask", shift_mask(size, size, self.window, shift) if shift else None)

    def forward(self, tokens: Tensor) -> Tensor:
        shape = tokens.shape
        shifted = self.norm1(tokens).roll((-self.shift, -self.shift), (1, 2))
        attended = self.attn(split(shifted, self.window), self._mask(shape[1], shape[2]))
        tokens = tokens + join(attended, shape, self.window).roll((self.shift, self.shift), (1, 2))
        return tokens + self.mlp(self.norm2(tokens))

    def _mask(self, height: int, width: int) -> Tensor | None:
        if self.attn_mask is None or height == width == self.mask_size:
            return self.attn_mask
        return shift_mask(height, width, self.window, self.shift).to(self.attn_mask)


class WindowAttention(nn.Module):
    """Multi-head attention among the N = window² tokens of each window, biased by their relative places.

    [B·n, N, C], mask [n, N, N] or None -> [B·n, N, C]; n windows per image
    """

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_places(window))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        windows, count, channels = tokens.shape
        query, key, value = self.qkv(tokens).view(windows, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(windows // len(mask), 1, 1, 1)
        mixed = scaled_dot_product_attention(query, key, value, bias.to(query.dtype))
        return self.proj(mixed.transpose(1, 2).reshape(windows, count, channels))


class Perceptron(nn.Module):
    """Linear, GELU, linear. [..., C] -> [..., C]"""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(tokens)))


def split(tokens: Tensor, window: int) -> Tensor:
    """Windows in row-major order. [B, H, W, C] -> [B·H/w·W/w, w², C]"""
    batch, height, width, channels = tokens.shape
    grid = tokens.view(batch, height // window, window, width // window, window, channels)
    return grid.transpose(2, 3).reshape(-1, window * window, channels)


def join(windows: Tensor, shape: torch.Size, window: int) -> Tensor:
    """The inverse of `split`, to `shape` = [B, H, W, C]."""
    batch, height, width, channels = shape
    grid = windows.view(batch, height // window, width // window, window, window, channels)
    return grid.transpose(2, 3).reshape(shape)


def relative_places(window: int) -> Tensor:
    """Row of the bias table for each pair of tokens: (Δy + w − 1)·(2w − 1) + Δx + w − 1. int64 [w², w²]"""
    steps = torch.arange(window)
    places = torch.cartesian_prod(steps, steps)
    offset = places[:, None] - places[None, :] + window - 1
    return offset[..., 0] * (2 * window - 1) + offset[..., 1]


def shift_mask(height: int, width: int, window: int, shift: int) -> Tensor:
    """0 between tokens that are neighbours without the cyclic shift, −100 between others. [H/w·W/w, w², w²]

    Along each axis the shifted map has three regions: up to the last window, the last window's own part, and the part
    that came around from the other border.
    """

    def region(side: int) -> Tensor:
        place = torch.arange(side)
        return (place >= side - window).long() + (place >= side - shift).long()

    regions = 3 * region(height)[:, None] + region(width)[None, :]
    label = split(regions[None, :, :, None], window).squeeze(-1)
    return (label[:, None, :] != label[:, :, None]) * APART
