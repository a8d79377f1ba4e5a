"""Compiled CPU kernels: one decorator, the views they work on, and how they share the cores.

A kernel takes the range of its work, [start, stop), and writes nothing that another range writes, so that the same input
gives the same bytes however many threads work. Each has a plain torch twin, which also serves every device other than the
CPU; `compiled` is the one place that chooses between them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

# Reassociation and fused multiply-add vectorise sums; NaN and infinity keep their meaning.
_RELAXED = {"reassoc", "contract", "arcp", "nsz"}

GRAIN = 2048
"""Fewest pixels or vertices that are worth another thread's waking, some 20 µs."""

_STRIPS = 4
"""Most strips into which an image's pixels are cut where a kernel sums over them: each strip has sums of its own."""


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for the CPU, cached on disk. Division by zero yields inf or NaN as in numpy."""
    return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_RELAXED)(function)


def array(tensor: Tensor) -> np.ndarray:
    """A contiguous numpy view (or copy, when not contiguous) of a CPU tensor, without its gradient."""
    return tensor.detach().contiguous().numpy()


def untouched_zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Zeros on the CPU that take no memory until they are written: the system hands out pages of them as they are touched."""
    return torch.from_numpy(np.zeros(tuple(shape), torch.empty(0, dtype=dtype).numpy().dtype))


Call = tuple[Callable[..., Any], tuple[Any, ...]]


def spread(work: Callable[..., Any], count: int, *arguments: Any, grain: int = GRAIN) -> None:
    """work(start, stop, *arguments) over 0…count, one contiguous share per thread of at least `grain`."""
    shares = max(1, min(torch.get_num_threads(), count // grain))
    edges = [count * share // shares for share in range(shares + 1)]
    together([(work, (start, stop, *arguments)) for start, stop in zip(edges[:-1], edges[1:], strict=True)])


def together(calls: Sequence[Call]) -> None:
    """Make independent calls of kernels on as many threads as torch uses; returns when all are done.

    The threads are the interpreter's own and sleep while they wait. Numba's would be a second pool that spins beside
    torch's, which costs a factor of 20 on few cores, and its built-in scheduler ends the process when two callers meet.
    """
    helpers = min(torch.get_num_threads(), len(calls)) - 1
    queue = iter(calls)

    def drain() -> None:
        for work, arguments in queue:
            work(*arguments)

    waiting = [_pool(os.getpid(), helpers).submit(drain) for _ in range(helpers)]
    try:
        drain()
    finally:
        wait(waiting)
    for helper in waiting:
        helper.result()


def image_starts(image: Tensor, batch: int) -> np.ndarray:
    """First pixel of each image, and the end. image: ascending, [P] -> [B + 1]"""
    if batch == 1:
        return np.array([0, len(image)])
    return np.searchsorted(array(image), np.arange(batch + 1))


def strips(starts: np.ndarray) -> list[tuple[int, int, int]]:
    """The images' pixels cut into contiguous strips: image, start, stop. As many whatever the number of threads."""
    found = []
    for number, (start, stop) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
        count = int(min(max((stop - start) // GRAIN, 1), _STRIPS))
        edges = [int(start + (stop - start) * strip // count) for strip in range(count + 1)]
        found += [(number, *pair) for pair in zip(edges[:-1], edges[1:], strict=True)]
    return found


@lru_cache(maxsize=2)
def _pool(process: int, helpers: int) -> ThreadPoolExecutor:
    """Threads do not survive a fork, so each process has its own."""
    return ThreadPoolExecutor(helpers, thread_name_prefix="nextface")


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
