"""Fit real photos with and without the prior and lay the results side by side.

Usage: python -m benchmarks.prior_photos PHOTO... --prior FILE [--out output/prior_photos] [--weights 0.3 1 1 1] [--mode uv]

Of each photo the folder gets a strip of two rows, without and with the prior (photo | fit | diffuse | specular | roughness |
normal | relit), and the face, enlarged, for counting moles (photo | diffuse without | diffuse with). Pose and statistical stages
run once per photo. Printed is how much farther from the photo's skin the fit with the prior is.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.fidelity import face_pixels
from benchmarks.map_arms import USUAL, Arm, fitted
from benchmarks.map_scores import photo_residual
from benchmarks.shared_scenes import CONFIG, SharedScene, real_scene
from nextface.errors import NextfaceError
from nextface.export.images import as_rgb, encode_linear, encode_normal, encode_srgb, over
from nextface.export.lights import STUDIO_LIGHTS
from nextface.morphable import MorphableModel, load_model
from nextface.rendering.render import render
from nextface.rendering.transport import Transport
from nextface.scene import Scene

Picture = NDArray[np.uint8]

RESIDUAL_CHANGE = 0.02
"""The photo residual on skin may rise by this share."""
ENLARGED = 4
_MARGIN = 6
"""Pixels around the face."""
_RELIT = STUDIO_LIGHTS[1]


def row(image: Tensor, scene: Scene, model: MorphableModel) -> dict[str, Picture]:
    """The pictures of one fit. image: the photo's crop, linear, [H, W, 3] -> [H, W, 3] each"""
    with torch.no_grad():
        transport = Transport.of_head(scene, model)
        drawn = render(scene, model, transport=transport)
        relit = render(scene, model, radiance=_RELIT.radiance(scene.bands), transport=transport)
    mask, black = drawn.mask[0], image.new_zeros(3)
    return {
        "photo": encode_srgb(image),
        "fit": encode_srgb(over(drawn.image[0], mask, image)),
        "diffuse": encode_srgb(over(drawn.diffuse[0], mask, black)),
        "specular": as_rgb(encode_linear(over(drawn.specular[0], mask, black[:1]))),
        "roughness": as_rgb(encode_linear(over(drawn.roughness[0], mask, black[:1]))),
        "normal": encode_normal(over(drawn.normal[0], mask, -torch.ones(3))),
        "relit": encode_srgb(over(relit.image[0], mask, black)),
    }


def enlarged_face(shared: SharedScene, model: MorphableModel, pictures: Sequence[Picture]) -> Image.Image:
    """The part of each picture that shows the face, side by side, `ENLARGED` times."""
    rows, columns = torch.nonzero(face_pixels(shared.scene, model), as_tuple=True)
    top, left = max(0, int(rows.min()) - _MARGIN), max(0, int(columns.min()) - _MARGIN)
    window = slice(top, int(rows.max()) + _MARGIN), slice(left, int(columns.max()) + _MARGIN)
    faces = Image.fromarray(np.concatenate([picture[window] for picture in pictures], 1))
    return faces.resize((ENLARGED * faces.width, ENLARGED * faces.height), Image.Resampling.BICUBIC)


def compare(shared: SharedScene, model: MorphableModel, arms: Sequence[Arm], prior: Path, out: Path) -> list[float]:
    """Write both pictures of a photo. Returns the photo residual of each arm, without the prior first."""
    image = shared.observation.image[0]
    scenes = [fitted(shared, arm, model, prior)[0] for arm in arms]
    fits = [row(image, scene, model) for scene in scenes]
    strip = np.concatenate([np.concatenate(list(fit.values()), 1) for fit in fits])
    Image.fromarray(strip).save(out / f"{shared.name}_strip.png")
    faces = [fits[0]["photo"], *(fit["diffuse"] for fit in fits)]
    enlarged_face(shared, model, faces).save(out / f"{shared.name}_face.png")
    return [photo_residual(scene, shared.observation, model, CONFIG.self_shadowing) for scene in scenes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--prior", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("output/prior_photos"))
    parser.add_argument("--weights", type=float, nargs=4, default=USUAL)
    parser.add_argument("--mode", choices=("uv", "image"), default="uv")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    model = load_model(CONFIG.path)
    arms = [Arm("none"), Arm("prior", tuple(arguments.weights), arguments.mode)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    print("| photo | residual without | with | change | bound | |\n|---|---|---|---|---|---|")
    for path in arguments.photos:
        try:
            shared = real_scene(model, arguments.out / "scenes", path)
        except NextfaceError as error:
            logging.warning("%s", error)
            continue
        without, own = compare(shared, model, arms, arguments.prior, arguments.out)
        rise = own / without - 1.0
        verdict = "met" if rise <= RESIDUAL_CHANGE else "MISSED"
        print(
            f"| {path.name} | {without:.5f} | {own:.5f} | {rise:+.1%} | ≤ {RESIDUAL_CHANGE:+.0%} | {verdict} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
