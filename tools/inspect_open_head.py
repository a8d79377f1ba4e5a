"""Draw sheets of the open head and measure how sound random heads are.

    python tools/inspect_open_head.py FOLDER [--heads 500]

FOLDER receives open_head_people.jpg (24 random people in three views), open_head_expressions.jpg (every unit fully
active) and open_head_tones.jpg (the first albedo component); the numbers of docs/open_head.md are printed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "tools"), str(REPOSITORY)]

import h5py
import numpy as np
import torch
from open_head.drawing import Portrait, sheet
from open_head.probe import HeadProbe, mirror_errors, random_coefficients
from open_head.skin_tone import typology_angle
from PIL import Image

from nextface.morphable.model import MorphableModel
from nextface.morphable.open_head import read_open_head

MODEL = REPOSITORY / "baselMorphableModel/open_head.h5"
PEOPLE = 24
VIEWS = (0.0, -40.0, -85.0)
TONES = np.linspace(-2.3, 2.7, 11)
LUMA = np.array([0.2126, 0.7152, 0.0722])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--heads", type=int, default=500)
    parser.add_argument("--model", type=Path, default=MODEL)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    model = read_open_head(arguments.model)
    with h5py.File(arguments.model) as file:
        names = [name.decode() for name in file["expression/model/names"][:]]
    portrait = Portrait(model)

    def save(name: str, image: np.ndarray) -> None:
        Image.fromarray(image).save(arguments.folder / name, quality=84, optimize=True)

    generator = torch.Generator().manual_seed(7)
    shapes = random_coefficients(PEOPLE, len(model.shape_basis), generator)
    skins = random_coefficients(PEOPLE, len(model.diffuse_basis), generator)
    people = [portrait.draw(shape, skin, yaw=yaw) for shape, skin in zip(shapes, skins, strict=True) for yaw in VIEWS]
    save("open_head_people.jpg", sheet(people, 12))

    faces = []
    for unit in range(len(names)):
        expression = torch.zeros(len(names))
        expression[unit] = model.expression_upper[unit]
        faces.append(portrait.draw(expression=expression, zoom=1.35, label=names[unit]))
    save("open_head_expressions.jpg", sheet(faces, 8))

    tones = []
    for value in TONES:
        skin = torch.zeros(len(model.diffuse_basis))
        skin[0] = float(value)
        tones.append(portrait.draw(skin=skin))
    save("open_head_tones.jpg", sheet(tones, len(tones)))

    print_tones(model)
    probe = HeadProbe(model)
    print("mirror", mirror_errors(model))
    rest = torch.zeros(1, len(names))
    reports = [
        probe.examine(model.vertices(shape[None], rest)[0].numpy())
        for shape in random_coefficients(arguments.heads, len(model.shape_basis), torch.Generator().manual_seed(0))
    ]
    print(f"{len(reports)} random heads at rest")
    for what in ("lid_cuts", "lip_cuts", "worn", "flipped"):
        values = np.array([getattr(report, what) for report in reports])
        print(f"  {what}: in {np.mean(values > 0):.1%} of the heads, at most {values.max()} triangles")
    for what in ("lip_gap", "lip_overlap"):
        values = np.array([getattr(report, what) for report in reports])
        print(f"  {what} mm: median {np.median(values):.3f}, largest {values.max():.3f}")
    stretch = np.array([report.stretch for report in reports])
    print(f"  edges on skin: {stretch[:, 0].min():.3f} to {stretch[:, 1].max():.2f} of their mean length")
    print(f"  99.9% of them: {np.median(stretch[:, 2]):.2f} to {np.median(stretch[:, 3]):.2f} in the median head")
    print("units that cut, at full activation on the mean head (lids, lips)")
    for unit, name in enumerate(names):
        vertices = (model.mean + model.expression_upper[unit] * model.expression_basis[unit]).numpy()
        cuts = probe.lid_cuts(vertices), probe.lip_cuts(vertices)
        if max(cuts):
            print(f"  {name}: {cuts}")


def print_tones(model: MorphableModel) -> None:
    """Range of skin colour along the first component."""
    skin = model.regions["skin"] > 0.9
    mean, axis = (values[skin].mean(0).numpy() for values in (model.diffuse_mean, model.diffuse_basis[0]))
    for value in (TONES[0], 0.0, TONES[-1]):
        colour = np.clip(mean + value * axis, 1e-3, 1.0)
        print(
            f"tone {value:+.1f}: linear {colour.round(3)}, Y {colour @ LUMA:.3f}, ITA {float(typology_angle(colour)):+.0f}"
        )


if __name__ == "__main__":
    main()
