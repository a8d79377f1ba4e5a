"""A fixed sparse matrix that averages, and its transpose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from nextface.rendering.jit import array, compiled


@dataclass(frozen=True)
class Resampler:
    """y = A x. On the CPU a product is one row after the other, so that its bytes do not depend on the number of threads.

    matrix: A, compressed rows; on_device: the same for other devices
    """

    matrix: sparse.csr_matrix
    on_device: Tensor | None

    @classmethod
    def averaging(cls, row: Tensor, column: Tensor, weight: Tensor, shape: tuple[int, int]) -> Resampler:
        """Each row the weighted mean of some columns; rows without entries stay empty.

        row, column: int64 [E]; weight: not negative, entries of one place add up. [E]
        """
        entries = [array(part.cpu()) for part in (weight, row, column)]
        matrix = sparse.coo_matrix((entries[0], (entries[1], entries[2])), shape=shape).tocsr()
        total = np.asarray(matrix.sum(1)).ravel()
        matrix.data /= np.repeat(total, np.diff(matrix.indptr)).astype(matrix.dtype)
        return cls(matrix, None if weight.device.type == "cpu" else _as_tensor(matrix).to(weight.device))

    @property
    def device(self) -> torch.device:
        return torch.device("cpu") if self.on_device is None else self.on_device.device

    def apply(self, values: Tensor) -> Tensor:
        """A x, differentiable in x. `[columns, C] -> [rows, C]`"""
        return _Product.apply(values, self)

    def adjoint(self, values: Tensor) -> Tensor:
        """Aᵀ y. `[rows, C] -> [columns, C]`"""
        return self._product(values.detach(), transposed=True)

    def _product(self, values: Tensor, transposed: bool) -> Tensor:
        if compiled(values):
            matrix = self.matrix.T if transposed else self.matrix
            return torch.from_numpy(matrix @ array(values))
        own = _as_tensor(self.matrix) if self.on_device is None else self.on_device
        return torch.sparse.mm(own.t() if transposed else own, values)


def _as_tensor(matrix: sparse.csr_matrix) -> Tensor:
    entries = matrix.tocoo()
    place = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    values = torch.from_numpy(entries.data)
    return torch.sparse_coo_tensor(place, values, matrix.shape, check_invariants=True).coalesce()


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, resampler: Resampler) -> Tensor:  # type: ignore[override]
        ctx.resampler = resampler  # type: ignore[attr-defined]
        return resampler._product(values.detach(), transposed=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, cotangent: Tensor):  # type: ignore[override, no-untyped-def]
        return ctx.resampler.adjoint(cotangent), None  # type: ignore[attr-defined]
