"""What a run shows while it trains: a progress bar, curves and samples. Only the leading process has them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from nextface.errors import FitError
from nextface.prior.train.processes import Processes

SHOWN = 8
"""Crops in a row of a sample picture."""
CURVES = "losses.csv"


class Writer(Protocol):
    """The part of TensorBoard's `SummaryWriter` that is used."""

    def add_scalar(self, tag: str, scalar_value: Any, global_step: Any) -> None: ...

    def add_image(self, tag: str, img_tensor: Any, global_step: Any, *, dataformats: str) -> None: ...

    def close(self) -> None: ...


class Records:
    """losses.csv, samples/*.png, and the same for TensorBoard where that is installed."""

    def __init__(self, folder: Path, name: str, total: int, done: int, processes: Processes, quiet: bool) -> None:
        """done: steps of an earlier part of the run; what it wrote of later ones is dropped"""
        self.folder, self.processes, self.name = folder, processes, name
        self.bar = tqdm(total=total, initial=done, desc=name, unit="step", disable=quiet or not processes.leads)
        self.pending: list[dict[str, Tensor]] = []
        self.writer = tensorboard(folder) if processes.leads else None
        self.curve = _read_until(folder / CURVES, done) if processes.leads else []

    def add(self, told: dict[str, Tensor]) -> None:
        """Note the scalars of one step; nothing waits for the device."""
        self.pending.append(told)
        self.bar.update()

    def flush(self, step: int) -> None:
        """Write the means since the last time. Collective. Raises FitError when the loss is no number."""
        means = _means(self.pending, self.processes)
        self.pending = []
        if not np.isfinite(means.get("loss", 0.0)):
            raise FitError(
                f"{self.name} diverged before step {step}; the last checkpoint in {self.folder} is kept; "
                "start again from it with a lower learningRate"
            )
        if not self.processes.leads or not means:
            return
        self.curve.append({"step": step, **means})
        _write_curves(self.folder / CURVES, self.curve)
        self.bar.set_postfix(loss=f"{means['loss']:.4g}", refresh=False)
        if self.writer is not None:
            for name, value in means.items():
                self.writer.add_scalar(name, value, step)

    def show(self, step: int, rows: list[Tensor]) -> None:
        """Write a picture of sample crops. rows: each [B, 3, S, S] in -1…1"""
        if not self.processes.leads:
            return
        picture = grid(rows)
        path = self.folder / "samples" / f"{self.name}_{step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path, compress_level=1)
        if self.writer is not None:
            self.writer.add_image("samples", picture, step, dataformats="HWC")

    def close(self) -> None:
        self.bar.close()
        if self.writer is not None:
            self.writer.close()


def tensorboard(folder: Path) -> Writer | None:
    """A writer of event files in `folder`, None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: Writer = SummaryWriter(str(folder / "tensorboard"))
    return writer


def grid(rows: list[Tensor]) -> np.ndarray:
    """Rows of crops as one picture. Each [B, 3, S, S] in -1…1 -> uint8 [rows·S, min(B, SHOWN)·S, 3]"""
    picture = torch.cat([torch.cat(list(row[:SHOWN].float().cpu()), 2) for row in rows], 1)
    return ((picture.clamp(-1.0, 1.0) + 1.0) * 127.5 + 0.5).to(torch.uint8).movedim(0, -1).numpy()


def _means(told: list[dict[str, Tensor]], processes: Processes) -> dict[str, float]:
    """Mean of each scalar over the steps that told it and over the processes, in the order of first appearance."""
    names = list(dict.fromkeys(name for step in told for name in step))
    if not names:
        return {}
    means = torch.stack([torch.stack([step[name] for step in told if name in step]).mean().double() for name in names])
    processes.average([means])
    return dict(zip(names, means.tolist(), strict=True))


def _read_until(path: Path, done: int) -> list[dict[str, Any]]:
    """Lines of an earlier part of the run up to step `done`."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [line for line in csv.DictReader(file) if int(line["step"]) <= done]


def _write_curves(path: Path, curve: list[dict[str, Any]]) -> None:
    """A column for every scalar that any line has."""
    columns = list(dict.fromkeys(name for line in curve for name in line))
    partial = path.with_suffix(".part")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(curve)
    partial.replace(path)
