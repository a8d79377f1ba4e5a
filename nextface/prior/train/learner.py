"""One network being trained: its optimiser, its learning rate, its moving average, and all of it in a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nextface.errors import InputError
from nextface.prior.train.processes import Processes

BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Cosine:
    """Learning rates from `first` to `last` along half a cosine of `period` steps, `last` from there on."""

    first: float
    last: float
    period: int

    def at(self, step: int) -> float:
        """step: 1 is the first"""
        share = min(max(step - 1, 0) / self.period, 1.0)
        return self.last + 0.5 * (self.first - self.last) * (1.0 + math.cos(math.pi * share))


class Learner:
    """Adam on some parameters of a module. The others are frozen: no gradient is computed for them.

    average: moving average of the trained parameters by name; it starts as a copy. Empty without `decay`.
    """

    def __init__(
        self,
        module: nn.Module,
        rate: Cosine,
        processes: Processes,
        trained: tuple[str, ...] = ("",),
        decay: float | None = None,
    ) -> None:
        """trained: beginnings of the names of parameters that learn; decay: of the moving average, None for none"""
        self.module, self.rate, self.decay, self.processes = module, rate, decay, processes
        self.trained = {name: each for name, each in module.named_parameters() if name.startswith(trained)}
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in self.trained)
        processes.synchronise_norms(module)
        self.trained = {name: each for name, each in module.named_parameters() if name in self.trained}
        self.optimizer = torch.optim.Adam(self.trained.values(), lr=rate.at(1), betas=BETAS)
        self.average: dict[str, Tensor] = {}
        if decay is not None:
            self.average = {name: each.detach().clone() for name, each in self.trained.items()}

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def descend(self, step: int) -> None:
        """One step of Adam and of the moving average along the gradients of the whole batch.

        A parameter that no row of this process reached has gradient 0, as one that no row of any process reached.
        """
        for parameter in self.trained.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.processes.average([each.grad for each in self.trained.values() if each.grad is not None])
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate.at(step)
        self.optimizer.step()
        if self.decay is not None:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.values()), list(self.trained.values()), 1.0 - self.decay)

    @torch.no_grad()
    def restarted(self, name: str, rows: Tensor) -> None:
        """Rows of a parameter were replaced: their average follows, their momenta are forgotten. rows: int64 [R]"""
        parameter = self.trained[name]
        if name in self.average:
            self.average[name][rows] = parameter[rows]
        for momentum in self.optimizer.state.get(parameter, {}).values():
            if momentum.shape == parameter.shape:
                momentum[rows] = 0.0

    def weights(self) -> dict[str, Tensor]:
        """The module's state as it is. Keys as in `state_dict`."""
        return {name: each.detach() for name, each in self.module.state_dict().items()}

    @contextmanager
    @torch.no_grad()
    def averages_in_place(self) -> Iterator[None]:
        """Inside the context the module has its averaged weights."""
        own = {name: self.trained[name].clone() for name in self.average}
        for name, each in self.average.items():
            self.trained[name].copy_(each)
        try:
            yield
        finally:
            for name, each in own.items():
                self.trained[name].copy_(each)

    def averaged(self) -> dict[str, Tensor]:
        """The module's state with averages in place of the parameters that have one."""
        return self.weights() | self.average

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next step depends on."""
        state = {f"weights.{name}": each for name, each in self.weights().items()}
        state |= {f"average.{name}": each for name, each in self.average.items()}
        for name, parameter in self.trained.items():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                state[f"adam.{kind}.{name}"] = value
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state_dict`. Raises InputError when it is another network's."""
        weights = under(state, "weights.")
        own = self.module.state_dict()
        if {name: each.shape for name, each in own.items()} != {name: each.shape for name, each in weights.items()}:
            raise InputError("the saved training is that of another network")
        self.module.load_state_dict(weights)
        for name, each in under(state, "average.").items():
            self.average[name].copy_(each)
        for name, parameter in self.trained.items():
            kinds = ("step", "exp_avg", "exp_avg_sq")
            found = {kind: state[f"adam.{kind}.{name}"] for kind in kinds if f"adam.{kind}.{name}" in state}
            if found:
                # Adam keeps its step count on the host.
                self.optimizer.state[parameter] = {
                    kind: each.clone() if kind == "step" else each.to(parameter, copy=True)
                    for kind, each in found.items()
                }


def under(state: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """The part of a state whose keys begin so, without the beginning."""
    return {name.removeprefix(start): each for name, each in state.items() if name.startswith(start)}
