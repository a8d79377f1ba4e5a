"""What a stage reports while it runs: its loss curves and a bar."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile

import torch
from torch import Tensor
from tqdm import tqdm

from nextface.scene import Scene

log = logging.getLogger(__name__)

_SHOWN_EVERY = 20
"""Iterations between looks at the loss: reading it makes the host wait for the device."""


@dataclass
class Progress:
    """One stage's loss per iteration and photo, its tqdm bar, and seconds spent on watchers.

    names:   of the photos of the batch, for messages; may be left out
    stopped: by row of the batch, why a photo's fit ended early
    """

    name: str
    total: int
    quiet: bool = True
    names: tuple[str, ...] = ()
    stopped: dict[int, str] = field(default_factory=dict)
    watched: float = 0.0

    def __post_init__(self) -> None:
        self._every = 1
        self._call: Callable[[int, Scene], None] | None = None
        self._steps: list[Tensor] = []
        self._bar = tqdm(total=self.total, desc=self.name, unit="it", disable=self.quiet, leave=True)

    def watch(self, every: int, call: Callable[[int, Scene], None]) -> None:
        """Hand the scene to `call` every so many iterations."""
        self._every, self._call = every, call

    def step(self, loss: Tensor, scene: Callable[[], Scene] | None = None) -> None:
        """Record one iteration.

        loss: of each photo, NaN from where its fit has ended, [B]; scene: makes the scene so far when somebody watches
        """
        number = len(self._steps)
        if scene is not None and self._call is not None and number % self._every == 0:
            began = time.perf_counter()
            self._call(number, scene())
            self.watched += time.perf_counter() - began
        self._steps.append(loss.detach())
        self._bar.update()
        if not self.quiet and number % _SHOWN_EVERY == 0:
            self._bar.set_postfix(loss=f"{float(loss.nanmean()):.4g}", refresh=False)

    @property
    def losses(self) -> list[list[float]]:
        """The loss curve of each photo, as far as its fit went. Waits for the device."""
        if not self._steps:
            return [[] for _ in range(max(1, len(self.names)))]
        curves = torch.stack(self._steps, 1).tolist()
        return [list(takewhile(math.isfinite, curve)) for curve in curves]

    def stop(self, photo: int, reason: str) -> None:
        """Say why the fit of a photo, by its row in the batch, ended before its time."""
        self.stopped[photo] = reason
        whose = f"{self.names[photo]}: " if self.names else ""
        log.warning("%s%s: %s", whose, self.name, reason)

    def diverged(self, photos: list[int], kept: str) -> None:
        """`stop` for photos whose loss curve ends in a number that is none. kept: what is left of them, in words"""
        curves = self.losses
        for photo in photos:
            self.stop(
                photo, f"the {self.name} stage diverged at iteration {len(curves[photo])}; kept the last good {kept}"
            )

    def close(self) -> None:
        self._bar.total = len(self._steps)
        self._bar.close()
