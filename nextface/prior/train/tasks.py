"""What the stages of training share: a run's surroundings, the promise of a stage, and the opponent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from nextface.prior.batch import Batch
from nextface.prior.train.learner import Cosine, Learner
from nextface.prior.train.losses import fooling, telling_apart
from nextface.prior.train.perceptual import PerceptualLoss
from nextface.prior.train.processes import Processes
from nextface.train_config import TrainSettings


@dataclass
class Run:
    """draws: the run's random numbers, on the CPU and the same in every process"""

    settings: TrainSettings
    processes: Processes
    device: torch.device
    perceptual: PerceptualLoss
    draws: torch.Generator

    def autocast(self) -> AbstractContextManager:
        """Where networks run: in half precision if the settings say so. Losses stay outside."""
        if self.settings.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def learner(self, module: nn.Module, trained: tuple[str, ...] = ("",)) -> Learner:
        """The stage's network in training."""
        settings = self.settings
        rate = Cosine(settings.learning_rate, settings.final_rate, settings.iterations)
        return Learner(module, rate, self.processes, trained, settings.average)


class Task(Protocol):
    """One stage: how it starts, its step, and all that it remembers between steps."""

    learner: Learner

    def start(self, batches: Callable[[], Batch]) -> None:
        """Before the first step of a new run. Collective. batches: gives the next batch"""

    def step(self, batch: Batch, number: int) -> dict[str, Tensor]:
        """Train on a batch; tells scalars by name, `loss` among them. Collective. number: 1 is the first"""

    def pictures(self, batch: Batch) -> list[Tensor]:
        """Rows of a picture of samples, made with the averaged weights, each [B, 3, S, S]."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class Opponent:
    """A discriminator, the loss that it gives, and its own training.

    Real and made images pass through it apart, so that its batch norms see each by itself, as published.
    """

    def __init__(self, module: nn.Module, run: Run, trained: tuple[str, ...] = ("",)) -> None:
        settings = run.settings
        rate = Cosine(settings.discriminator_rate, settings.discriminator_final_rate, settings.iterations)
        self.run, self.first = run, settings.adversarial_start
        self.learner = Learner(module, rate, run.processes, trained)

    def active(self, step: int) -> bool:
        return step >= self.first

    def fooled(self, made: Tensor) -> Tensor:
        """What the generator minimises. made: [B, 3, S, S] -> []"""
        return fooling(self._logits(made))

    def descend(self, real: Tensor, made: Tensor, step: int) -> Tensor:
        """One step of its own; returns its loss."""
        self.learner.clear()
        loss = telling_apart(self._logits(real), self._logits(made.detach()))
        loss.backward()
        self.learner.descend(step)
        return loss.detach()

    def _logits(self, image: Tensor) -> Tensor:
        with self.run.autocast():
            logits = self.learner.module(image)
        return logits.to(image.dtype)
