"""Fit generated people as photos are fitted, for the denoiser to learn what fits leave: python -m tools.fit_generated FOLDER

The people are those that the default prior is trained on, under its environments. Each becomes a file of crops of the fitted maps and
of the true ones (`nextface.prior.train.fits`), half a minute's work on one core. Files that are there are left; several
calls can share a folder as long as their people differ.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import nextface
from benchmarks.fidelity import photo_of
from benchmarks.map_arms import Arm, stacked
from benchmarks.synthetic import make
from nextface.config import OptimConfig
from nextface.errors import NextfaceError
from nextface.morphable import MorphableModel, load_model
from nextface.prior.answers import ENOUGH, pixel_weight
from nextface.prior.crops import closed
from nextface.prior.data.lights import draw_lights
from nextface.prior.data.noise import NoiseVolume
from nextface.prior.data.people import People
from nextface.prior.data.source import FacesSettings, draw_population
from nextface.prior.data.unwrapped import unwrapped
from nextface.prior.data.zones import FaceZones
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS
from nextface.prior.train.fits import save_fit
from nextface.prior.views import CropViews
from nextface.textures import LaplacianTexture, SkinMaps, channels, resized

FIRST_PHOTO = 20_000
"""Number of the first photo in the series of synthetic ones, far from those that are measured."""
FIRST_SEED = 77_000
PHOTO_BANDS = 9
"""Of the light in the photos, finer than a fit's own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--people", type=int, nargs=2, default=(0, 200), metavar=("FIRST", "END"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    options.folder.mkdir(parents=True, exist_ok=True)
    config = Arm("none").config(None, OptimConfig(device="cpu"))
    model, encoding = load_model(config.path), Encoding()
    population = draw_population(model, FacesSettings(), torch.Generator().manual_seed(0))
    for number in range(*options.people):
        path = options.folder / f"{number:04d}.safetensors"
        if path.exists():
            continue
        try:
            fit(number, path, population, model, config, encoding)
        except NextfaceError as error:
            print(f"{path.name}: left out, {error}", flush=True)
        else:
            print(path, flush=True)


def fit(
    number: int,
    path: Path,
    population: tuple[FaceZones, NoiseVolume, People],
    model: MorphableModel,
    config: OptimConfig,
    encoding: Encoding,
) -> None:
    """Photograph a person of the generator, fit the photo, and save the crops of both maps. population: `draw_population`"""
    zones, noise, people = population
    draw = torch.Generator().manual_seed(FIRST_SEED + number)
    who = torch.randint(len(people), (1,), generator=draw)
    light = draw_lights(1, PHOTO_BANDS, draw)

    def skin(model: MorphableModel, albedo: Tensor, size: int, rng: np.random.Generator) -> SkinMaps:
        maps = unwrapped(people.rows(who), zones, noise, model, size)
        textures = {name: LaplacianTexture.from_image(maps[..., where]) for name, where in channels().items()}
        return SkinMaps(**textures, confidence=torch.ones(1, size, size, 1))

    truth = make(model, FIRST_PHOTO + number, light=("generated", light), skin=skin)
    with tempfile.TemporaryDirectory() as folder:
        photo, _ = photo_of(truth, model, config, Path(folder))
    scene = nextface.reconstruct(photo, config, model=model).scene
    assert scene.maps is not None and truth.scene.maps is not None
    views = CropViews.of(scene, model, encoding.crop, encoding.image_size)

    def crops(maps: Tensor) -> Tensor:
        return views.crops(resized(maps[None], views.resolution)[0])

    known = views.covered * closed(crops(scene.maps.confidence[0]) > 0.5)
    shown = pixel_weight(views, model, known).mean((1, 2, 3)) >= ENOUGH
    fitted, true = (
        {domain: views.encoded(encoding, domain, crops(stacked(maps)))[shown] for domain in DOMAINS[1:]}
        for maps in (scene.maps, truth.scene.maps)
    )
    save_fit(path, encoding, known[shown], fitted, true)


if __name__ == "__main__":
    main()
