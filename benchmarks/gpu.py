"""What a GPU makes of it: one large photo, a batch of small ones, large maps.

Usage: python -m benchmarks.gpu [--check] [--force-cpu-path]

--check           run the tests that need a GPU first, and stop when one fails or is skipped
--force-cpu-path  the same walk on the CPU, on the plain torch code that a GPU runs, at a size that takes minutes

The photos are synthetic and their landmarks projected from the truth, so that no detector has to be installed. Every case runs
once before it is timed. The time is that from the read photos to the results on the host, ready to be written: mesh, light
and full maps in their ranges. Prints Markdown.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nextface.config import OptimConfig
    from nextface.morphable import MorphableModel
    from nextface.photo import Photo

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("tests/rendering/test_rasterizer_parity.py", "tests/test_devices.py")
DIFFERENT = 8
"""Photos that a batch is made of; a larger one repeats them."""
LARGE = 1.6
"""Scale of the synthetic frame, so that a crop of 512 pixels is not enlarged."""


@dataclass(frozen=True)
class Case:
    """side: of the crops in pixels; texture: of the maps in texels; bound: what a GPU of the H200's class is held to"""

    name: str
    photos: int
    side: int
    texture: int
    bound: str


CASES = (
    Case("one photo", 1, 512, 1024, "5 s"),
    Case("batch", 32, 256, 512, "4 photos a second"),
    Case("large maps", 1, 512, 2048, "10 s"),
)
REDUCED = (
    Case("one photo", 1, 128, 256, ""),
    Case("batch", 3, 96, 256, ""),
    Case("large maps", 1, 128, 512, ""),
)
REDUCED_STEPS = (20, 12, 6)
"""Iterations of the three stages on the CPU."""


def photos_of(case: Case, model: MorphableModel, folder: Path) -> list[Photo]:
    """The case's photos as a user's files would be read."""
    from PIL import Image

    from benchmarks import fidelity, synthetic
    from nextface.photo import crop_to_face, load_image

    found = []
    for number in range(min(case.photos, DIFFERENT)):
        truth = synthetic.make(model, number, texture=512, scale=max(0.5, LARGE * case.side / 512))
        path = folder / f"{truth.name}.png"
        Image.fromarray(truth.pixels).save(path, compress_level=1)
        landmarks = fidelity.projected_landmarks(truth.scene, model)
        found.append(crop_to_face(load_image(path), landmarks, case.side))
    return [found[number % len(found)] for number in range(case.photos)]


def run(photos: list[Photo], config: OptimConfig, model: MorphableModel) -> tuple[float, dict[str, float]]:
    """Wall seconds until all results are on the host, and of each stage for all photos."""
    from nextface.pipeline import reconstruct_many

    began = time.perf_counter()
    results = reconstruct_many(photos, config, model=model)
    for result in results:
        scene = result.scene.to("cpu")
        assert scene.maps is not None
        scene.maps.images()
        scene.vertices_model(model)
    seconds = time.perf_counter() - began
    stages = ("pose", "statistical", "maps")
    return seconds, {name: sum(result.timings[name] for result in results) for name in stages}


def measure(cases: tuple[Case, ...], config: OptimConfig) -> None:
    import torch

    from nextface.morphable import load_model
    from nextface.paths import model_folder

    on_gpu = config.device == "cuda"
    model = load_model(model_folder(config.path))
    print("| case | photos | crop | maps | seconds | photos/s | pose | statistical | maps | GPU memory | wanted |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        for case in cases:
            photos = photos_of(case, model, Path(folder))
            settings = replace(config, texture_resolution=case.texture, batch_size=case.photos)
            run(photos, settings, model)
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            seconds, stages = run(photos, settings, model)
            memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GB" if on_gpu else "–"
            sides = f"{photos[0].width} × {photos[0].height}"
            parts = " | ".join(f"{stages[name]:.2f} s" for name in stages)
            print(
                f"| {case.name} | {case.photos} | {sides} | {case.texture}² | {seconds:.2f} | {case.photos / seconds:.2f} "
                f"| {parts} | {memory} | {case.bound} |",
                flush=True,
            )


def checked() -> bool:
    """Whether the tests that need a GPU all ran and passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    print(done.stdout[-4000:])
    return done.returncode == 0 and " skipped" not in done.stdout.splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="run the tests that need a GPU first")
    parser.add_argument("--force-cpu-path", action="store_true", help="plain torch on the CPU at a reduced size")
    arguments = parser.parse_args()

    import torch

    from nextface import gpu
    from nextface.config import OptimConfig
    from nextface.rendering.jit import plain_torch

    missing = gpu.missing()
    if missing and not arguments.force_cpu_path:
        sys.exit(f"no GPU can be used: {missing}; --force-cpu-path runs on the CPU")
    if arguments.check and not checked():
        sys.exit("a test failed or was skipped")
    path: AbstractContextManager[None]
    if arguments.force_cpu_path:
        pose, statistical, maps = REDUCED_STEPS
        config = OptimConfig(device="cpu", iter_step1=pose, iter_step2=statistical, iter_step3=maps)
        cases, path, device = REDUCED, plain_torch(), f"{platform.processor() or platform.machine()} (CPU, plain torch)"
    else:
        config, cases, path, device = OptimConfig(), CASES, nullcontext(), torch.cuda.get_device_name()
    try:
        nvdiffrast = version("nvdiffrast")
    except PackageNotFoundError:
        nvdiffrast = "none"
    print(f"{device}; torch {torch.__version__}, CUDA {torch.version.cuda}, nvdiffrast {nvdiffrast}; ", end="")
    print(f"{config.iter_step1}, {config.iter_step2} and {config.iter_step3} iterations at most\n")
    with path:
        measure(cases, config)


if __name__ == "__main__":
    main()
