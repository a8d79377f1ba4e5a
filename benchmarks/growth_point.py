"""One point of `benchmarks.growth`, measured in a process of its own; and the photos that all points share.

Times are the process's own CPU time on one thread, which other work on the machine changes little.

Usage: python -m benchmarks.growth_point prepare FOLDER SIDE:PHOTOS ...
       python -m benchmarks.growth_point measure FOLDER SIDE TEXTURE PHOTOS BANDS
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nextface.config import OptimConfig
    from nextface.fitting.observation import Observation
    from nextface.morphable.model import MorphableModel
    from nextface.scene import Scene

FILLING = 3.2 / 1024
"""Scale of the synthetic photo per pixel of the crop that its face fills."""
ITERATIONS = {"statistical": 12, "maps": 7}
MANY = 16
"""Photos from which on nothing is repeated: a batch averages by itself."""
PHOTO_TEXTURE = 512


@dataclass
class Subject:
    """A batch of crops with the heads placed on them by the pose stage."""

    model: MorphableModel
    observation: Observation
    scene: Scene


def prepare(folder: Path, side: int, photos: int) -> None:
    """Make synthetic photos whose faces fill crops of `side` pixels, and keep the crops."""
    from PIL import Image
    from safetensors.torch import save_file
    from torch import Tensor

    from benchmarks import fidelity, synthetic
    from nextface.config import OptimConfig
    from nextface.morphable import load_model
    from nextface.photo import crop_to_face, load_image
    from nextface.pipeline import observation_of

    config = OptimConfig(device="cpu")
    model = load_model(config.path)
    for number in range(photos):
        truth = synthetic.make(model, number, scale=FILLING * side, texture=PHOTO_TEXTURE)
        path = folder / "photo.png"
        Image.fromarray(truth.pixels).save(path, compress_level=1)
        photo = crop_to_face(load_image(path), fidelity.projected_landmarks(truth.scene, model), side)
        seen = observation_of(photo, model, config)
        tensors = {field.name: getattr(seen, field.name) for field in fields(seen)}
        kept = {name: tensor.contiguous() for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
        save_file(kept, crop_path(folder, side, number), metadata={"convention": seen.convention})


def crop_path(folder: Path, side: int, number: int) -> Path:
    return folder / f"crop_{side}_{number}.safetensors"


def subject(folder: Path, side: int, photos: int, config: OptimConfig) -> Subject:
    """A batch of the prepared crops, repeated where there are fewer."""
    from safetensors import safe_open

    from nextface.fitting.observation import Observation
    from nextface.fitting.pose import fit_pose, start
    from nextface.fitting.progress import Progress
    from nextface.morphable import load_model
    from nextface.scene import Scene

    model = load_model(config.path)
    placed: list[tuple[Observation, Scene]] = []
    while len(placed) < photos and crop_path(folder, side, len(placed)).exists():
        with safe_open(crop_path(folder, side, len(placed)), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            seen = Observation(**tensors, convention=file.metadata()["convention"])
        scene = fit_pose(start(seen, model, config.bands), seen, model, config, Progress("pose", 0, quiet=True))
        placed.append((seen, scene))
    batch = [placed[number % len(placed)] for number in range(photos)]
    crops, scenes = zip(*batch, strict=True)
    return Subject(model, Observation.join(crops), Scene.join(scenes))


def stage_times(stage: str, of: Subject, config: OptimConfig, repeats: int) -> tuple[float, float, Scene]:
    """Seconds of an iteration, the middle one of the last third, each with its fastest time; of all else; and the scene."""
    from nextface.fitting.maps import fit_maps
    from nextface.fitting.progress import Progress
    from nextface.fitting.statistical import fit_statistical

    fit = {"statistical": fit_statistical, "maps": fit_maps}[stage]
    steps, rest = [], []
    for _ in range(repeats):
        times: list[float] = []

        class Clock(Progress):
            def step(self, *told: object, times: list[float] = times) -> None:
                times.append(time.process_time())

        scene = of.scene  # lets go of the maps of the run before
        began = time.process_time()
        scene = fit(of.scene, of.observation, of.model, config, Clock(stage, 0, quiet=True))
        rest.append(time.process_time() - began - (times[-1] - times[0]))
        steps.append([after - before for before, after in zip(times[:-1], times[1:], strict=True)])
    fastest = [min(same) for same in zip(*steps, strict=True)]
    return statistics.median(fastest[-len(fastest) // 3 :]), min(rest), scene


def fastest(call: Callable[[], object], repeats: int) -> float:
    """Seconds."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return min(seconds)


def peak_megabytes() -> float:
    """Largest resident set of this process so far."""
    unit = 1.0 if platform.system() == "Darwin" else 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure(folder: Path, side: int, texture: int, photos: int, bands: int) -> dict[str, float]:
    """Seconds and megabytes of every part, by name."""
    from nextface.cli import set_threads
    from nextface.config import OptimConfig

    config = OptimConfig(
        device="cpu",
        threads=1,
        bands=bands,
        texture_resolution=texture,
        iter_step2=ITERATIONS["statistical"],
        iter_step3=ITERATIONS["maps"],
    )
    set_threads(config, os.environ)
    repeats = 1 if photos >= MANY else 2

    from nextface.export.images import map_pictures, png
    from nextface.rendering.backend import rasterizer_for
    from nextface.rendering.camera import Camera
    from nextface.rendering.skin import statistical_maps
    from nextface.rendering.transport import Transport

    of = subject(folder, side, photos, config)
    found = {"memory at first": peak_megabytes()}
    found["statistical"], _, of.scene = stage_times("statistical", of, config, repeats)
    found["memory, statistical"] = peak_megabytes()
    vertices = of.scene.vertices_camera(of.model)
    pixels = rasterizer_for(vertices.device).visible_triangles(vertices, of.model.triangles, Camera.of(of.scene))
    found["covered"] = len(pixels)
    found["shadows"] = fastest(lambda: Transport.of_head(of.scene, of.model), repeats)
    found["maps"], found["maps, once"], mapped = stage_times("maps", of, config, repeats)
    found["memory"] = peak_megabytes()
    found["baking"] = fastest(lambda: statistical_maps(of.scene.select(0), of.model, texture), repeats)
    first = mapped.select(0).maps
    del mapped
    assert first is not None
    found["export"] = fastest(lambda: [png(picture) for picture in map_pictures(first, 0).values()], repeats)
    found["memory, export"] = peak_megabytes()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    making = actions.add_parser("prepare")
    making.add_argument("folder", type=Path)
    making.add_argument("sides", nargs="+", metavar="SIDE:PHOTOS")
    measuring = actions.add_parser("measure")
    measuring.add_argument("folder", type=Path)
    measuring.add_argument("setting", nargs=4, type=int, help="side, texture, photos, bands")
    arguments = parser.parse_args()
    if arguments.action == "measure":
        print(json.dumps(measure(arguments.folder, *arguments.setting)))
        return
    for text in arguments.sides:
        side, photos = (int(part) for part in text.split(":"))
        prepare(arguments.folder, side, photos)


if __name__ == "__main__":
    main()
