"""The rasterizer of a device."""

from __future__ import annotations

from functools import cache

import torch

from nextface.rendering.cpu import CpuRasterizer
from nextface.rendering.cuda import NvdiffrastRasterizer
from nextface.rendering.raster import Rasterizer


@cache
def rasterizer_for(device: torch.device) -> Rasterizer:
    """The rasterizer that draws vertices on `device`: nvdiffrast on CUDA, else the CPU's, which copies to and fro.

    Raises MissingPackageError where CUDA is asked for without nvdiffrast.
    """
    return NvdiffrastRasterizer(device) if device.type == "cuda" else CpuRasterizer()
