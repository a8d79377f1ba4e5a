"""Time and memory against pixels, texture size, photos in a batch and bands of the light.

Usage: python -m benchmarks.growth [--axes pixels texture photos bands] [--pictures FOLDER]

One axis at a time, everything else at a crop of 256 pixels, 512² maps, one photo and nine bands, self-shadowing on. The photos
are synthetic with faces that fill their crops. Each point runs in a process of its own, so that its peak memory is its own.
Times are CPU time on one thread: other work on the machine changes it little, and two free cores take about half. A stage
counts with its middle iteration at full size, fastest of two runs. Each curve is fitted by a + b·x, relative errors counting
alike. Prints Markdown and draws growth.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.plot import Curve, Panel, panels

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
DEFAULT = {"side": 256, "texture": 512, "photos": 1, "bands": 9}
DIFFERENT = 4
"""Photos that a batch is made of; a larger one repeats them."""

Point = dict[str, float]


@dataclass(frozen=True)
class Axis:
    """setting: the key of `DEFAULT` that varies; abscissa: what time and memory are compared with, and its unit"""

    name: str
    setting: str
    values: Sequence[int]
    abscissa: str
    x: Callable[[int, Point], float]
    shown: Callable[[int, Point], str]


AXES = (
    Axis(
        "pixels",
        "side",
        (128, 256, 384, 512, 768, 1024),
        "thousand covered pixels",
        lambda value, point: point["covered"] / 1e3,
        lambda value, point: f"{value}, {point['covered'] / 1e3:.1f}",
    ),
    Axis(
        "texture",
        "texture",
        (256, 512, 1024, 2048, 4096),
        "million texels",
        lambda value, point: value**2 / 1e6,
        lambda value, point: f"{value}²",
    ),
    Axis(
        "photos",
        "photos",
        (1, 2, 4, 8, 16, 32, 64),
        "photos in a batch",
        lambda value, point: value,
        lambda value, point: str(value),
    ),
    Axis(
        "bands",
        "bands",
        tuple(range(2, 11)),
        "coefficients of the light",
        lambda value, point: value**2,
        lambda value, point: f"{value}, {value**2}",
    ),
)

TIMES = {"statistical": "statistical, ms", "maps": "maps, ms"}
"""Of one iteration."""
ONCE = {"shadows": "shadows", "baking": "baking", "maps, once": "maps stage", "export": "export of maps"}
"""Seconds; of one photo, shadows and the maps stage of all."""
MEMORY = {
    "memory, statistical": "MB, statistical",
    "memory": "MB, with maps",
    "memory, export": "MB, with export",
}


@dataclass(frozen=True)
class Line:
    """y = start + slope · x, and the largest relative error of a point."""

    start: float
    slope: float
    error: float

    @classmethod
    def through(cls, x: Sequence[float], y: Sequence[float]) -> Line:
        across, up = np.asarray(x), np.asarray(y)
        rows = np.stack([np.ones_like(across), across], 1) / up[:, None]
        start, slope = np.linalg.lstsq(rows, np.ones_like(up), rcond=None)[0]
        return cls(float(start), float(slope), float(np.abs((start + slope * across) / up - 1.0).max()))

    def __call__(self, x: float) -> float:
        return self.start + self.slope * x


def child(*arguments: object) -> str:
    """What a process of `benchmarks.growth_point` prints. This process stays small: a child's peak begins at its parent's."""
    command = [sys.executable, "-m", "benchmarks.growth_point", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout


def measured(axis: Axis, folder: Path) -> list[Point]:
    """Its points; the table of them is printed as they come."""
    columns = [*TIMES.values(), *(f"{label}, s" for label in ONCE.values()), *MEMORY.values()]
    print(f"\n### {axis.name}\n\n| {axis.name} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    points = []
    for value in axis.values:
        setting = {**DEFAULT, axis.setting: value}
        sizes = (setting[name] for name in ("side", "texture", "photos", "bands"))
        point: Point = json.loads(child("measure", folder, *sizes).splitlines()[-1])
        points.append(point)
        times = [f"{1e3 * point[name]:.1f}" for name in TIMES]
        once = [f"{point[name]:.2f}" for name in ONCE]
        memory = [f"{point[name]:.0f}" for name in MEMORY]
        print(f"| {' | '.join([axis.shown(value, point), *times, *once, *memory])} |", flush=True)
    return points


def explained(axis: Axis, points: list[Point]) -> list[Panel]:
    """Print the lines through the points, and plot both."""
    x = [axis.x(value, point) for value, point in zip(axis.values, points, strict=True)]
    plots: dict[str, list[Curve]] = {"ms per iteration": [], "seconds, once": [], "MB at most": []}
    print(f"\n| against x = {axis.abscissa} | line | largest error |\n|---|---|---|")
    groups = ((TIMES, 1e3, "ms per iteration"), (ONCE, 1.0, "seconds, once"), (MEMORY, 1.0, "MB at most"))
    for names, unit, title in groups:
        for name, label in names.items():
            y = [unit * point[name] for point in points]
            line = Line.through(x, y)
            print(f"| {label if unit > 1 or names is MEMORY else f'{label}, s'} ", end="")
            print(f"| {line.start:.3g} + {line.slope:.3g} x | {line.error:.0%} |", flush=True)
            plots[title].append(Curve(label.removesuffix(", ms").removeprefix("MB, "), x, y, line))
    return [Panel(f"{axis.name}: {title}", axis.abscissa, curves) for title, curves in plots.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axes", nargs="+", default=[axis.name for axis in AXES], choices=[axis.name for axis in AXES])
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="folder of growth.png")
    arguments = parser.parse_args()
    chosen = [axis for axis in AXES if axis.name in arguments.axes]
    sides = sorted({DEFAULT["side"], *(value for axis in chosen if axis.setting == "side" for value in axis.values)})
    with TemporaryDirectory() as folder:
        wanted = [f"{side}:{DIFFERENT if side == DEFAULT['side'] else 1}" for side in sides]
        child("prepare", folder, *wanted)
        rows = [explained(axis, measured(axis, Path(folder))) for axis in chosen]
    arguments.pictures.mkdir(parents=True, exist_ok=True)
    panels(rows).save(arguments.pictures / "growth.png", optimize=True)


if __name__ == "__main__":
    main()
