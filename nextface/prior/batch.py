"""What the prior's networks are trained on: batches of aligned crops, and what makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from nextface.prior.encoding import Encoding

UNKNOWN = -1
"""Identity label of a person who cannot be told from others."""


@dataclass(frozen=True)
class Batch:
    """Crops of one training step, on any device.

    image:     what is to be reconstructed, RGB in the encoding of its domain. -1…1, [B, 3, S, S]
    domain:    index in `nextface.prior.fusion.DOMAINS`; 0 is a photo. int64 [B]
    identity:  label of the person, UNKNOWN for none. int64 [B]
    mask:      1 where a pixel counts, 0 where `image` was filled with mid-grey; None = all count. [B, 1, S, S]
    corrupted: the same crops with what a fit leaves in them (shading, highlights, tint, blur); None = the training makes
               its own. [B, 3, S, S]
    partner:   another crop of the same person and domain, for the swapper and the identity encoder. [B, 3, S, S]
    stranger:  a photo of another person. [B, 3, S, S]
    exchanged: `image` with the stranger's skin: what a swapper is to make of both. [B, 3, S, S]
    """

    image: Tensor
    domain: Tensor
    identity: Tensor
    mask: Tensor | None = None
    corrupted: Tensor | None = None
    partner: Tensor | None = None
    stranger: Tensor | None = None
    exchanged: Tensor | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """On `device`, the pictures as `dtype`."""
        parts = {}
        for item in fields(self):
            tensor = getattr(self, item.name)
            if tensor is not None:
                parts[item.name] = tensor.to(device, dtype if tensor.is_floating_point() else None, non_blocking=True)
        return Batch(**parts)

    @staticmethod
    def joined(parts: list[Batch]) -> Batch:
        """One batch of the rows of several. A mask counts as 1 where a part has none; what is optional beside it is
        kept when every part has it."""
        joined: dict[str, Tensor] = {}
        masked = any(part.mask is not None for part in parts)
        for item in fields(Batch):
            tensors = [getattr(part, item.name) for part in parts]
            if item.name == "mask" and masked:
                tensors = [
                    torch.ones_like(part.image[:, :1]) if part.mask is None else part.mask.to(part.image)
                    for part in parts
                ]
            if all(tensor is not None for tensor in tensors):
                joined[item.name] = torch.cat(tensors)
        return Batch(**joined)


class BatchSource(Iterator[Batch], Protocol):
    """An endless stream of batches that can be stopped, gone on with, and shared among processes.

    A batch follows from the source's settings and seed and from how many batches came before it, and from nothing else:
    not from the number of processes, worker threads or earlier runs.

    encoding: how crops are cut and encoded; it goes into the checkpoint
    """

    @property
    def encoding(self) -> Encoding: ...

    def state_dict(self) -> dict[str, Tensor]:
        """Where the stream is."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state_dict` was taken, with any number of processes."""

    def shard(self, rank: int, world: int) -> BatchSource:
        """The part of every batch that process `rank` of `world` trains on, from where this stream is.

        The shards' rows are together those of the whole batch, the same number in each. Raises ConfigError when the batch
        cannot be split evenly.
        """
