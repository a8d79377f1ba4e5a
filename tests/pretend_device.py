"""An accelerator played by the CPU: finds tensors left on the wrong device and counts launches, waits and uploads.

Its tensors say that they live on the device "meta", so the package takes the path of a GPU; their values lie in ordinary CPU
tensors. As on a GPU, an operation on tensors of both devices fails, and so does `numpy()`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

PRETEND = torch.device("meta")

_aten = torch.ops.aten
_WAITS = {_aten._local_scalar_dense.default, _aten.nonzero.default, _aten.masked_select.default, _aten.equal.default}
_INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}
_COPIES = {_aten._to_copy.default, _aten.copy_.default}


class DistantTensor(torch.Tensor):
    """A tensor of the pretended device. `near`: its values on the CPU."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> DistantTensor:
        tensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, near.shape, near.stride(), near.storage_offset(), dtype=near.dtype, device=PRETEND
        )
        tensor.near = near
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError("a tensor of the pretended device was used outside `with PretendDevice()`")


class _Values(TorchFunctionMode):
    """Python numbers become tensors, and tensors lists, by way of the CPU: on the device "meta" torch would refuse."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.Tensor.tolist and isinstance(args[0], DistantTensor):
            return args[0].cpu().tolist()
        if function is torch.Tensor.new_tensor and isinstance(args[0], DistantTensor):
            like, values = args
            return torch.tensor(values, dtype=kwargs.get("dtype", like.dtype)).to(PRETEND)
        if function in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu") == PRETEND:
            return torch.tensor(*args, **{**kwargs, "device": "cpu"}).to(PRETEND)
        return function(*args, **kwargs)


class PretendDevice(TorchDispatchMode):
    """`with PretendDevice() as device: …`; tensors reach it by `.to(PRETEND)`.

    launches: operations that a GPU would start a kernel for, by name
    waits:    places where the host waits for a result
    uploads:  places where values travel from the host
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self._values = _Values()

    def __enter__(self) -> PretendDevice:
        self._values.__enter__()
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._values.__exit__(kind, error, trace)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        distant = [leaf for leaf in leaves if isinstance(leaf, DistantTensor)]
        target = kwargs.get("device")
        arriving = target is not None and torch.device(target) == PRETEND
        if not distant and not arriving:
            return function(*args, **kwargs)
        leaving = function is _aten._to_copy.default and target is not None and not arriving
        self._check(function, leaves, bool(distant))
        self._count(function, args, leaving, arriving and not distant)
        near_args, near_kwargs = tree_map(_near, (args, kwargs))
        if arriving:
            near_kwargs["device"] = torch.device("cpu")
        result = function(*near_args, **near_kwargs)
        if leaving:
            return result.clone()
        if (arriving and not distant) or function is _aten._conj.default:
            return _distant(result.resolve_conj())
        return return_and_correct_aliasing(function, args, kwargs, tree_map(_distant, result))

    def _check(self, function: Any, leaves: list[Tensor], on_device: bool) -> None:
        if not on_device or function in _COPIES | _INDEXED:
            return
        for leaf in leaves:
            if leaf.device.type == "cpu" and leaf.ndim > 0:
                raise RuntimeError(f"{function}: a tensor {list(leaf.shape)} on the CPU beside one on the device")

    def _count(self, function: Any, args: Any, leaving: bool, arriving: bool) -> None:
        masked = function in _INDEXED and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        )
        counted = function is _aten.repeat_interleave.Tensor
        if leaving or function in _WAITS or masked or counted:
            self.waits[_caller()] += 1
        tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        if any(leaf.device.type == "cpu" and (leaf.ndim > 0 or function in _COPIES) for leaf in tensors):
            self.uploads[_caller()] += 1
        views = [returned.alias_info for returned in function._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in views)
        if not is_view and "empty" not in str(function) and function not in (_aten.detach.default,):
            self.launches[str(function)] += 1


def _near(value: Any) -> Any:
    return value.near if isinstance(value, DistantTensor) else value


def _distant(value: Any) -> Any:
    return DistantTensor(value) if isinstance(value, Tensor) and not isinstance(value, DistantTensor) else value


def _caller() -> str:
    """File and line of the package that called."""
    frame: Any = sys._getframe(1)
    while frame is not None and "/nextface/" not in frame.f_code.co_filename.replace("\\", "/"):
        frame = frame.f_back
    if frame is None:
        return "elsewhere"
    return f"{frame.f_code.co_filename.rsplit('nextface', 1)[-1]}:{frame.f_lineno}"


def on_device(function: Callable[[], Any]) -> tuple[Any, PretendDevice]:
    """Run a function with the pretended device and return its result and what was counted."""
    with PretendDevice() as device:
        return function(), device
