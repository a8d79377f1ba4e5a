"""The rasterizer of a device."""

from __future__ import annotations

import torch

from nextface.rendering.cpu import CpuRasterizer
from nextface.rendering.raster import Rasterizer


def rasterizer_for(device: torch.device) -> Rasterizer:
    """The rasterizer that draws vertices on `device`."""
    return CpuRasterizer()
