"""Networks filled by a formula, whose outputs can be compared with numbers measured on the published modules."""

from __future__ import annotations

import math
from zlib import crc32

import torch
from torch import Tensor, nn


def sequence(name: str, count: int) -> Tensor:
    """Numbers in -1…1 that a name determines. float64 [count]"""
    phase = 2 * math.pi * (crc32(name.encode()) % 100003) / 100003
    wave = torch.arange(1, count + 1, dtype=torch.float64).mul_(12.9898).add_(phase).sin_().mul_(43758.5453123)
    return wave.frac_().add_(wave < 0).mul_(2).sub_(1)


@torch.no_grad()
def fill(module: nn.Module, gain: float = 1.0) -> nn.Module:
    """Fill every floating tensor of the state dict by its key; buffers that follow from the sizes stay."""
    for key, tensor in module.state_dict().items():
        if key.endswith(("num_batches_tracked", "relative_position_index", "attn_mask")):
            continue
        values = sequence(key, tensor.numel()).view(tensor.shape)
        tensor.copy_(scaled(key, values, gain))
    return module.eval()


def scaled(key: str, values: Tensor, gain: float) -> Tensor:
    if key.endswith("running_var"):
        return 1 + 0.1 * values
    if key.endswith("embedding.weight"):
        return 0.5 * values
    if values.ndim >= 2:
        return values * (gain * math.sqrt(3 / math.prod(values.shape[1:])))
    if "prelu" in key:
        return 0.25 + 0.1 * values
    if key.endswith("weight"):
        return 1 + 0.1 * values
    return 0.1 * values


def waves() -> Tensor:
    """Waves in -1…1, one frequency per channel. [1, 3, 512, 512]"""
    steps = torch.arange(512, dtype=torch.float64) / 512
    channels = torch.arange(3, dtype=torch.float64)[:, None, None]
    image = torch.sin(2 * math.pi * (3 * (channels + 1) * steps[None, :, None] + 2 * steps[None, None, :]) + 3.0)
    return image[None].float()
