"""Where tests run the package beside the compiled kernels: each context yields a device.

`twins` are the plain torch twins on the CPU, `pretended` an accelerator played by the CPU that finds tensors left behind on
the host, `cuda` a real one where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from pretend_device import PRETEND, PretendDevice

from nextface import gpu
from nextface.rendering.jit import plain_torch


@contextmanager
def twins() -> Iterator[str]:
    with plain_torch():
        yield "cpu"


@contextmanager
def pretended() -> Iterator[torch.device]:
    with PretendDevice():
        yield PRETEND


@contextmanager
def cuda() -> Iterator[str]:
    if gpu.missing():
        pytest.skip(gpu.missing())
    yield "cuda"
