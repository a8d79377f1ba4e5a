"""Crops of maps that were fitted to generated photos, with the true ones beside them: what fits leave, as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from nextface.errors import ConfigError, InputError
from nextface.prior.batch import UNKNOWN, Batch
from nextface.prior.checkpoint import read_notes, read_weights, save_tensors
from nextface.prior.crops import masked
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS
from nextface.prior.train.folders import mirrored, shard_rows

_KEYS = {"known", *(f"{part}.{domain}" for part in ("fitted", "true") for domain in DOMAINS[1:])}


def save_fit(
    path: Path, encoding: Encoding, known: Tensor, fitted: Mapping[str, Tensor], true: Mapping[str, Tensor]
) -> None:
    """One person's crops. known: 1 where the photo showed the maps, [N, 1, S, S]; fitted, true: encoded crops of each domain
    of reflectance, [N, 3, S, S]"""
    crops = {f"fitted.{domain}": fitted[domain] for domain in DOMAINS[1:]}
    crops |= {f"true.{domain}": true[domain] for domain in DOMAINS[1:]}
    tensors = {name: each.half().contiguous() for name, each in {"known": known, **crops}.items()}
    save_tensors(tensors, path, {"encoding": encoding.notes()})


@dataclass
class FitSource:
    """A `BatchSource` of what `save_fit` wrote: `image` is true, `corrupted` is fitted.

    batch: rows over all processes; rows: that this process takes of each batch, all if left out
    """

    files: tuple[Path, ...]
    encoding: Encoding
    batch: int
    seed: int
    rows: range | None = None
    step: int = 0

    @classmethod
    def of(cls, folder: Path, encoding: Encoding, batch: int, seed: int) -> FitSource:
        """encoding: of the training. Raises InputError, ConfigError."""
        files = tuple(sorted(folder.glob("*.safetensors"))) if folder.is_dir() else ()
        if not files:
            raise InputError(f"{folder}: holds no fits; make them with python -m tools.fit_generated {folder}")
        for path in files:
            notes = read_notes(path).get("encoding")
            if not isinstance(notes, dict):
                raise InputError(f"{path}: not a fit of tools/fit_generated.py; take it out of the folder")
            found = Encoding.from_notes(notes)
            if found != replace(encoding, norm_groups=found.norm_groups, noise_floor=found.noise_floor):
                raise ConfigError(f"{path}: its crops are encoded as {found}, not as {encoding}; make the fits again")
        return cls(files, encoding, batch, seed)

    def __iter__(self) -> FitSource:
        return self

    def __next__(self) -> Batch:
        rows = [self._row(row) for row in (range(self.batch) if self.rows is None else self.rows)]
        self.step += 1
        return Batch.joined(rows)

    def state_dict(self) -> dict[str, Tensor]:
        return {"step": torch.tensor(self.step)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.step = int(state["step"])

    def shard(self, rank: int, world: int) -> FitSource:
        return replace(self, rows=shard_rows(self.batch, rank, world))

    def _row(self, row: int) -> Batch:
        draw = torch.Generator().manual_seed(((self.seed + 1) * 1_000_003 + self.step) * self.batch + row)

        def drawn(count: int) -> int:
            return int(torch.randint(count, (1,), generator=draw))

        path = self.files[drawn(len(self.files))]
        crops = read_weights(path)
        if set(crops) != _KEYS:
            raise InputError(f"{path}: not a fit of tools/fit_generated.py; take it out of the folder")
        view, domain, flipped = drawn(len(crops["known"])), 1 + drawn(len(DOMAINS) - 1), drawn(2)
        name = DOMAINS[domain]
        known, fitted, true = (crops[key][view, None].float() for key in ("known", f"fitted.{name}", f"true.{name}"))
        if flipped:
            known, fitted, true = known.flip(-1), mirrored(fitted, name), mirrored(true, name)
        return Batch(
            image=masked(true, known),
            domain=torch.tensor([domain]),
            identity=torch.tensor([UNKNOWN]),
            mask=known,
            corrupted=masked(fitted, known),
        )
