"""Trains every stage for a few steps in double precision, alone or as one of several processes.

    python two_processes.py CROPS CHECKPOINTS OUTPUT

In double precision rounding is far below Adam's ε, so that parameters without gradient (a bias before a norm) stay put
instead of following the sign of rounding errors.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from training_data import toy_settings

from nextface import cli
from nextface.prior.train import loop
from nextface.prior.train.stages import Start, prepare

STEPS = 4
COMMAND = ("sizes", "device", "iterations", "batch", "perceptual", "startBatches", "restartEvery", "logEvery")
STARTS = {
    "stage1": (),
    "stage2": ("stage1",),
    "fusion": ("stage2",),
    "denoise": ("fusion",),
    "identity": (),
    "swapper": ("fusion",),
}
GAN = {"weight_adversarial": 0.8, "adversarial_start": 2}


def with_the_command(crops: Path, output: Path) -> None:
    """Stage 1 in single precision."""
    settings = toy_settings("stage1", crops, iterations=STEPS)
    words = ["train-prior", "stage1", "--photos", settings.photos, "--reflectance", settings.reflectance]
    for key in COMMAND:
        words += [f"--{key}", str(settings.as_keys()[key])]
    assert cli.main([*words, "--output", str(output)]) == 0


def run(crops: Path, checkpoints: Path, output: Path) -> None:
    torch.set_num_threads(1)

    def doubled(*arguments: object) -> object:
        prepared = prepare(*arguments)
        for each in (prepared.net, prepared.critic, prepared.encoder):
            if each is not None:
                each.double()
        return prepared

    with_the_command(crops, output / "command")
    if "WORLD_SIZE" in os.environ:
        # One group for all that follows: at a port that is closed and opened again, processes could miss each other.
        place = (output / "rendezvous").as_uri()
        dist.init_process_group("gloo", place, rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]))
    loop.prepare = doubled
    try:
        for stage, names in STARTS.items():
            more = GAN if stage in ("stage1", "stage2") else {}
            settings = replace(toy_settings(stage, crops, iterations=STEPS, **more), restart_every=2)
            start = tuple(checkpoints / name / loop.WEIGHTS for name in names)
            loop.train(stage, settings, output / stage, Start(start, checkpoints / "identity" / loop.WEIGHTS))
    finally:
        loop.prepare = prepare
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    run(*(Path(word) for word in sys.argv[1:]))
