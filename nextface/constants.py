"""Small constant tensors, kept per device: copying one to a GPU anew would make the host wait each time."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """The values as a tensor of the type and on the device of another one. Not to be written to. `[len(values)]`"""
    return _kept(values, like.dtype, like.device)


@lru_cache(maxsize=64)
def _kept(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
