"""Train the prior that is shipped, stage by stage: python tools/train_default_prior.py FOLDER [STAGE …]

Processes train together under torchrun: torchrun --nproc-per-node 2 tools/train_default_prior.py FOLDER. Stages that are
complete are left; one that was broken off goes on where it was saved.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nextface.prior.batch import BatchSource
from nextface.prior.data.source import GeneratedFaces
from nextface.prior.train.loop import WEIGHTS, train
from nextface.prior.train.processes import joined_processes
from nextface.prior.train.sizes import Sizes
from nextface.prior.train.sources import beside_fits, faces_of, open_generator, with_fits
from nextface.prior.train.stages import Start
from nextface.train_config import TrainSettings

logger = logging.getLogger(__name__)

STAGES: dict[str, dict[str, Any]] = {
    "stage1": {"iterations": 1500, "learning_rate": 6e-4, "final_rate": 3e-4},
    "stage2": {"iterations": 2600, "learning_rate": 5e-4, "final_rate": 3e-5},
    "fusion": {"iterations": 400, "learning_rate": 3e-4, "final_rate": 2e-5},
    "denoise": {"iterations": 1500, "learning_rate": 3e-4, "final_rate": 1e-5},
    "identity": {"batch": 16, "iterations": 1200, "learning_rate": 2e-3, "final_rate": 2e-5},
    "swapper": {"iterations": 700, "learning_rate": 1e-3, "final_rate": 4e-5, "weight_identity": 0.5},
}
"""What differs from the stages' own defaults: short schedules, for two cores."""
BEFORE = {"stage2": "stage1", "fusion": "stage2", "denoise": "fusion", "swapper": "fusion"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], metavar="STAGE")
    parser.add_argument("--fits", default="", help="folder of tools/fit_generated.py, for the stage denoise")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with joined_processes(options.device) as (processes, device):
        if processes.world > 1:
            torch.set_num_threads(1)
        faces: list[GeneratedFaces] = []

        def source(stage: str, settings: TrainSettings, sizes: Sizes, device: torch.device) -> BatchSource:
            rows = beside_fits(settings) if settings.fits else settings.batch
            if not faces:
                faces.append(open_generator(stage, settings, sizes, rows, device))
            generated = faces[0].anew(faces_of(stage, settings, rows))
            return with_fits(generated, settings) if settings.fits else generated

        for stage in options.stages or STAGES:
            settings = replace(
                TrainSettings.of(stage, "small"),
                **STAGES[stage],
                device=device.type,
                precision="bfloat16",
                save_every=400,
                fits=options.fits if stage == "denoise" else "",
            )
            before = BEFORE.get(stage)
            files = (options.folder / before / WEIGHTS,) if before else ()
            start = Start(files, options.folder / "identity" / WEIGHTS if stage == "swapper" else None)
            logger.info("%s", train(stage, settings, options.folder / stage, start, source))


if __name__ == "__main__":
    main()
