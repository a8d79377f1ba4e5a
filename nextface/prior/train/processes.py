"""Several processes train as one: averaged gradients, and batch statistics of the whole batch.

Every process holds the whole network and its share of the rows of each batch. Losses are means over rows, so gradients
averaged over the processes are those of the whole batch. One averaging per optimiser step, of all gradients in one buffer,
takes the place of a wrapper around the network: networks keep their names, and may run several times a step, in parts, or
under `torch.autograd.grad`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.modules.batchnorm import _BatchNorm

from nextface.prior.blocks import at_least_single


@dataclass(frozen=True)
class Processes:
    """This process among those that train together. The methods are collective: all processes call them in one order.

    Gloo and NCCL add up in a fixed order for a given number of processes.
    """

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type and device by their means over the processes."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.world
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over the processes, differentiable. Any shape."""
        return tensor if self.world == 1 else _Total.apply(tensor)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes in the order of their ranks, differentiable. [B, …] -> [world·B, …]"""
        if self.world == 1:
            return rows
        spread = rows.new_zeros(self.world, *rows.shape)
        spread[self.rank] = rows
        return self.total(spread).flatten(0, 1)

    def own(self, rows: Tensor) -> Tensor:
        """This process's rows of the whole batch, the inverse of `gather`. [world·B, …] -> [B, …]"""
        return rows.chunk(self.world)[self.rank]

    def broadcast(self, tensor: Tensor) -> None:
        """Replace a tensor by the leading process's."""
        if self.world > 1:
            dist.broadcast(tensor, 0)

    def meet(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()

    def synchronise_norms(self, module: nn.Module) -> None:
        """Make batch norms in `module` take their statistics of the whole batch; their keys stay."""
        for child in module.modules():
            for name, norm in list(child.named_children()):
                if isinstance(norm, _BatchNorm) and self.world > 1:
                    shared = SharedBatchNorm(norm.num_features, self, norm.eps, norm.momentum)
                    shared.to(norm.weight).load_state_dict(norm.state_dict())
                    setattr(child, name, shared.train(norm.training))


class _Total(torch.autograd.Function):
    """Sum over the processes. What each makes of the sum is part of the loss, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:  # type: ignore[override]
        total = tensor.detach().clone().contiguous()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.clone().contiguous()
        dist.all_reduce(total)
        return total


class SharedBatchNorm(_BatchNorm):
    """Batch norm of 2 or 4 dimensions, on any device, with the mean and variance of all processes' rows.

    torch's own `SyncBatchNorm` works on GPUs alone.
    """

    def __init__(self, channels: int, processes: Processes, eps: float, momentum: float | None) -> None:
        super().__init__(channels, eps, momentum)
        self.processes = processes

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        wide = at_least_single(features)
        kept = [0, *range(2, wide.ndim)]
        shape = [1, -1, *[1] * (wide.ndim - 2)]
        count = wide.numel() // wide.shape[1] * self.processes.world
        mean = self.processes.total(wide.sum(kept)) / count
        centred = wide - mean.view(shape)
        variance = self.processes.total(centred.square().sum(kept)) / count
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        return (normal * self.weight.view(shape) + self.bias.view(shape)).to(features.dtype)


@contextmanager
def joined_processes(device: str) -> Iterator[tuple[Processes, torch.device]]:
    """The processes that `torchrun` started, or this one alone, and the device of this one.

    A process group that is already there is used and left. device: "cuda" or "cpu"; on GPUs each process takes the one of
    its local rank.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = torch.device(device, int(os.environ.get("LOCAL_RANK", "0"))) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(local)
    if dist.is_available() and dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size()), local
        return
    if world == 1:
        yield Processes(), local
        return
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), world), local
    finally:
        dist.destroy_process_group()
