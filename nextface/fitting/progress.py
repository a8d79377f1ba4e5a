"""What a stage reports while it runs: its loss curve and a bar."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tqdm import tqdm

from nextface.scene import Scene

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """One stage's loss per iteration, its tqdm bar, the reason if it had to stop early, and seconds spent on watchers."""

    name: str
    total: int
    quiet: bool = True
    losses: list[float] = field(default_factory=list)
    stopped: str | None = None
    watched: float = 0.0

    def __post_init__(self) -> None:
        self._every = 1
        self._call: Callable[[int, Scene], None] | None = None
        self._bar = tqdm(total=self.total, desc=self.name, unit="it", disable=self.quiet, leave=True)

    def watch(self, every: int, call: Callable[[int, Scene], None]) -> None:
        """Hand the scene to `call` every so many iterations."""
        self._every, self._call = every, call

    def step(self, loss: float, scene: Callable[[], Scene] | None = None) -> None:
        """Record one iteration's loss; `scene` makes the scene so far when somebody watches."""
        if scene is not None and self._call is not None and len(self.losses) % self._every == 0:
            began = time.perf_counter()
            self._call(len(self.losses), scene())
            self.watched += time.perf_counter() - began
        self.losses.append(loss)
        self._bar.update()
        if len(self.losses) % 10 == 1:
            self._bar.set_postfix(loss=f"{loss:.4g}", refresh=False)

    def stop(self, reason: str) -> None:
        """Say why the stage ended before its time."""
        self.stopped = reason
        log.warning("%s: %s", self.name, reason)

    def close(self) -> None:
        self._bar.total = len(self.losses)
        self._bar.close()
