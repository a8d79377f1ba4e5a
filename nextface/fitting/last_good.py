"""Photos of a batch that diverge go back to their last good state and stay there, while the others go on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class LastGood:
    """Which photos are still finite, and a good state to return the others to. Only `lost` and `all_lost` wait for the device.

    tensors: the unknowns of the optimisation, one row per photo. [B, ...] each
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        self._kept = [tensor.detach().clone() for tensor in tensors]
        self._alive = torch.ones(len(tensors[0]), dtype=torch.bool, device=tensors[0].device)

    def judge(self, loss: Tensor) -> Tensor:
        """Lose the photos whose loss is not finite; returns it with NaN for all that are lost. `[B] -> [B]`"""
        loss = loss.detach()
        self._alive = self._alive & torch.isfinite(loss)
        return loss.masked_fill(~self._alive, torch.nan)

    def judge_state(self) -> None:
        """Lose the photos whose unknowns are not finite numbers, or have no finite sum."""
        sums = torch.stack([tensor.detach().reshape(len(tensor), -1).sum(1) for tensor in self._tensors])
        self._alive = self._alive & torch.isfinite(sums).all(0)

    @torch.no_grad()
    def keep(self) -> None:
        """Take the present state of all photos that are not lost for a good one."""
        for tensor, kept in zip(self._tensors, self._kept, strict=True):
            torch.where(self._rows(tensor), tensor.detach(), kept, out=kept)

    @torch.no_grad()
    def restore(self) -> None:
        """Put lost photos back to their good state, in place."""
        for tensor, kept in zip(self._tensors, self._kept, strict=True):
            state = tensor.detach()
            torch.where(self._rows(tensor), state, kept, out=state)

    def lost(self) -> list[int]:
        """Rows of the photos that have diverged."""
        return torch.nonzero(~self._alive)[:, 0].tolist()

    def all_lost(self) -> bool:
        return not bool(self._alive.any())

    def _rows(self, tensor: Tensor) -> Tensor:
        """`_alive` as it broadcasts to a tensor of one row per photo."""
        return self._alive.view(-1, *[1] * (tensor.ndim - 1))
