"""Time the whole command on the shipped portrait, and the share of each part.

Usage: python -m benchmarks.speed [--sizes 256:512 512:1024] [--threads N]

Prints Markdown: wall seconds of the command as a user types it, seconds and milliseconds per iteration of each stage, peak
memory, and the ratio to NextFace's own figures on the same two cores; then a profile of one more run inside this process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PORTRAIT = ROOT / "resources" / "portrait.png"

NEXTFACE_SECONDS = {(256, 512): 22 * 60.0, (512, 1024): 69 * 60.0}
"""Its whole command on the same two cores; 1.6 s per statistical iteration and 1 GB at the smaller size."""


def peak_gigabytes() -> float:
    """Largest resident set of any child process so far."""
    unit = 1.0 if platform.system() == "Darwin" else 1024.0
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e9


def command(size: int, texture: int, threads: int, folder: Path) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "optimizer.py"),
        "--input",
        str(PORTRAIT),
        "--output",
        str(folder),
        *("--maxResolution", str(size), "--textureResolution", str(texture), "--threads", str(threads)),
    ]


def import_seconds() -> float:
    """Start of Python and import of the library, as every run pays it."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import nextface, nextface.fitting.driver"], cwd=ROOT, check=True)
    return time.perf_counter() - start


def flattened(timings: dict[str, float | dict[str, float]]) -> dict[str, float]:
    """Seconds by part; a part that lists its own parts counts as their sum."""
    return {name: sum(part.values()) if isinstance(part, dict) else part for name, part in timings.items()}


def inside(size: int, texture: int, threads: int) -> None:
    """Fit once in this process with clocks on the parts of an iteration, and print their share of the stages."""
    os.environ.update(OMP_WAIT_POLICY="PASSIVE", KMP_BLOCKTIME="0", GOMP_SPINCOUNT="0")  # as the command does

    import torch

    import nextface
    from nextface.config import OptimConfig
    from nextface.fitting.appearance import Painter
    from nextface.rendering.cpu import CpuRasterizer

    if threads:
        torch.set_num_threads(threads)
    spent: dict[str, float] = {}

    def clock(owner: type, method: str, label: str) -> None:
        original = getattr(owner, method)

        def timed(*arguments: object, **options: object) -> object:
            start = time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                spent[label] = spent.get(label, 0.0) + time.perf_counter() - start

        setattr(owner, method, timed)

    clock(CpuRasterizer, "visible_triangles", "rasterize (all stages)")
    clock(Painter, "draw", "draw the statistical head, with its rasterizing")
    clock(torch.Tensor, "backward", "backward (statistical and maps)")
    clock(torch.optim.Adam, "step", "Adam")
    config = OptimConfig(device="cpu", max_resolution=size, texture_resolution=texture)
    found = nextface.reconstruct(PORTRAIT, config)
    print("\n| part of the fit | seconds |\n|---|---|")
    for label, seconds in {**found.timings, **spent}.items():
        print(f"| {label} | {seconds:.2f} |")


def measure(size: int, texture: int, threads: int) -> None:
    """Run the command once in a process of its own and print its row."""
    with tempfile.TemporaryDirectory() as folder:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        start, busy = time.perf_counter(), os.times()
        subprocess.run(
            command(size, texture, threads, Path(folder)),
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wall, after = time.perf_counter() - start, os.times()
        cores = (after.children_user + after.children_system - busy.children_user - busy.children_system) / wall
        metrics = json.loads(next(Path(folder).rglob("metrics.json")).read_text())
    reference = NEXTFACE_SECONDS[size, texture]
    print(f"\n## maxResolution {size}, texture {texture}\n")
    print(f"load before: {load:.2f}; cores kept busy: {cores:.2f}; threads: {threads or 'all'}\n")
    print("| part | seconds | share | ms per iteration |\n|---|---|---|---|")
    known = 0.0
    for part, seconds in flattened(metrics["timings_seconds"]).items():
        count = metrics["losses"].get(part, {}).get("iterations")
        iteration = f"{1000.0 * seconds / count:.1f} ({count})" if count else ""
        known += seconds
        print(f"| {part} | {seconds:.2f} | {seconds / wall:.0%} | {iteration} |")
    print(f"| start, imports and rest | {wall - known:.2f} | {(wall - known) / wall:.0%} | |")
    print(f"| **whole command** | **{wall:.1f}** | | |\n")
    print(
        f"Peak memory {peak_gigabytes():.2f} GB. NextFace needed {reference / 60:.0f} minutes: {reference / wall:.0f} times as long."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["256:512", "512:1024"], metavar="SIDE:TEXTURE")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; start and import {import_seconds():.2f} s"
    )
    for text in arguments.sizes:
        size, texture = (int(part) for part in text.split(":"))
        measure(size, texture, arguments.threads)
        inside(size, texture, arguments.threads)


if __name__ == "__main__":
    main()
