"""Compiled CPU kernels: one decorator and the views they work on.

Kernels run on one thread in a fixed order, so that the same input gives the same bytes. Each has a plain torch twin, which
also serves every device other than the CPU; `compiled` is the one place that chooses between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from torch import Tensor

# Reassociation and fused multiply-add vectorise sums; NaN and infinity keep their meaning.
_RELAXED = {"reassoc", "contract", "arcp", "nsz"}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for the CPU, cached on disk. Division by zero yields inf or NaN as in numpy."""
    return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_RELAXED)(function)


def array(tensor: Tensor) -> np.ndarray:
    """A contiguous numpy view (or copy, when not contiguous) of a CPU tensor, without its gradient."""
    return tensor.detach().contiguous().numpy()


_kernels_on = True


def compiled(tensor: Tensor) -> bool:
    """Whether the compiled kernel works on this tensor; else its plain torch twin does."""
    return _kernels_on and tensor.device.type == "cpu"


@contextmanager
def plain_torch() -> Iterator[None]:
    """Take the twins on the CPU too, as an accelerator would: for tests and benchmarks. Holds for all threads."""
    global _kernels_on
    before, _kernels_on = _kernels_on, False
    try:
        yield
    finally:
        _kernels_on = before
