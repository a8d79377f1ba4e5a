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

NEXTFACE = {(256, 512): (22 * 60.0, 1.6, 1.0), (512, 1024): (69 * 60.0, None, None)}
"""Measured on the same two cores: seconds of the command, seconds per statistical iteration, peak memory in GB."""


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
    reference, reference_iteration, reference_memory = NEXTFACE[size, texture]
    print(f"\n## maxResolution {size}, texture {texture}\n")
    print(f"load before: {load:.2f}; cores kept busy: {cores:.2f}; threads: {threads or 'all'}\n")
    print("| part | seconds | share | ms per iteration |\n|---|---|---|---|")
    known = 0.0
    for part, seconds in metrics["timings"].items():
        curve = metrics.get("losses", {}).get(part)
        iteration = f"{1000.0 * seconds / len(curve):.1f} ({len(curve)})" if curve else ""
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


if __name__ == "__main__":
    main()
