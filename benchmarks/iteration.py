"""Time one iteration of the statistical and of the maps stage on a face that fills its crop.

Usage: python -m benchmarks.iteration [--sizes 256:512 512:1024] [--statistical N] [--maps N] [--repeats N] [--threads N]

The photo is synthetic, its landmarks projected from the truth, so that the figures can be repeated anywhere. The stages run
as they do for a user; each iteration counts with its fastest time of all repeats, which leaves out what other work on the
machine cost, and the figure is the mean over the iterations: all levels of the ladder and all occasional work included.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nextface.config import OptimConfig
    from nextface.fitting.observation import Observation
    from nextface.fitting.progress import Progress
    from nextface.morphable.model import MorphableModel
    from nextface.scene import Scene

PHOTO = 0
"""Number of the synthetic photo: a face from the front."""
SCALE = 1.6
"""Makes the face large enough for a crop of 512 pixels."""
STAGES = ("statistical", "maps")


@dataclass
class Subject:
    """A crop of the photo with the head placed on it by the pose stage."""

    model: MorphableModel
    observation: Observation
    scene: Scene


def clocked() -> tuple[Progress, list[float]]:
    """A stage's progress that keeps the time at every step."""
    from nextface.fitting.progress import Progress

    times: list[float] = []

    class Clock(Progress):
        def step(self, *told: object) -> None:
            times.append(time.perf_counter())

    return Clock("clock", 0), times


def subjects(sizes: list[tuple[int, int]], config: OptimConfig) -> list[Subject]:
    """The photo at each size, faces filling the crops."""
    from PIL import Image

    from benchmarks import fidelity, synthetic
    from nextface.fitting.pose import fit_pose, start
    from nextface.morphable import load_model
    from nextface.photo import crop_to_face, load_image
    from nextface.pipeline import observation_of

    model = load_model(config.path)
    truth = synthetic.make(model, PHOTO, scale=SCALE)
    found = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "photo.png"
        Image.fromarray(truth.pixels).save(path, compress_level=1)
        for size, _ in sizes:
            photo = crop_to_face(load_image(path), fidelity.projected_landmarks(truth.scene, model), size)
            observation = observation_of(photo, model, config)
            scene = fit_pose(start(observation, model, config.bands), observation, model, config, clocked()[0])
            found.append(Subject(model, observation, scene))
    return found


def milliseconds(stage: str, subject: Subject, config: OptimConfig, repeats: int) -> tuple[float, float, Scene]:
    """Per iteration; of all else that the stage does; and the scene that it leaves."""
    from nextface.fitting.maps import fit_maps
    from nextface.fitting.statistical import fit_statistical

    fit = {"statistical": fit_statistical, "maps": fit_maps}[stage]
    steps: list[list[float]] = []
    rest = []
    for _ in range(repeats):
        progress, times = clocked()
        began = time.perf_counter()
        scene = fit(subject.scene, subject.observation, subject.model, config, progress)
        wall = time.perf_counter() - began
        steps.append([after - before for before, after in zip(times[:-1], times[1:], strict=True)])
        rest.append(wall - (times[-1] - times[0]))
    fastest = [min(same) for same in zip(*steps, strict=True)]
    return 1000.0 * sum(fastest) / len(fastest), 1000.0 * min(rest), scene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["256:512", "512:1024"], metavar="SIDE:TEXTURE")
    parser.add_argument("--statistical", type=int, default=100, help="iterations")
    parser.add_argument("--maps", type=int, default=20, help="iterations")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    arguments = parser.parse_args()

    from nextface.cli import set_threads
    from nextface.config import OptimConfig

    stock = OptimConfig(
        device="cpu", threads=arguments.threads, iter_step2=arguments.statistical, iter_step3=arguments.maps
    )
    set_threads(stock, os.environ)

    import numba
    import torch

    sizes = [(int(side), int(texture)) for side, texture in (text.split(":") for text in arguments.sizes)]
    print(f"threads: torch {torch.get_num_threads()}, numba {numba.get_num_threads()}; {os.cpu_count()} cores\n")
    print("| crop | maps | stage | ms per iteration | rest of the stage, ms | load before |\n|---|---|---|---|---|---|")
    for (_, texture), subject in zip(sizes, subjects(sizes, stock), strict=True):
        config = replace(stock, texture_resolution=texture)
        crop = f"{subject.scene.width} × {subject.scene.height}"
        for stage in STAGES:
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
            iteration, rest, subject.scene = milliseconds(stage, subject, config, arguments.repeats)
            print(f"| {crop} | {texture}² | {stage} | {iteration:.1f} | {rest:.0f} | {load:.2f} |", flush=True)


if __name__ == "__main__":
    main()
