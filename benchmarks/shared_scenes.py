"""Photos of unseen faces with the scene that pose and statistical stages find, kept in files, so that ways to fit the maps can
be compared from the same start.

Usage: python -m benchmarks.shared_scenes --folder output/prior_maps/scenes [--photos 0 32] [--subjects 32 40]

A folder per photo holds the truth, what the stages see, and the statistical scene. What is there is not made again; several
calls can share a folder as long as their photos differ.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import nextface
from benchmarks.fidelity import photo_of
from benchmarks.unseen.faces import LIGHTS, relit_photo, unseen_photo
from nextface.config import OptimConfig
from nextface.fitting.observation import Observation
from nextface.landmarks import read_photo
from nextface.morphable import MorphableModel, load_model
from nextface.photo import Photo
from nextface.pipeline import observation_of
from nextface.scene import Scene
from nextface.textures import LaplacianTexture, SkinMaps

CONFIG = OptimConfig(device="cpu")
MAPS_STAGE = 3
_COMPLETE = "fit.safetensors"
_TENSORS = ("image", "valid", "points", "confidence", "principal", "focal", "focal_sd")


@dataclass(frozen=True)
class SharedScene:
    """One photo before the maps stage.

    scene: of the statistical stage; truth: the full frame's, its maps at the resolution of the fitted ones, None for a real
    photo; tone: typology angle of the truth, degrees; light: its name
    """

    name: str
    observation: Observation
    scene: Scene
    truth: Scene | None = None
    tone: float = 0.0
    light: str = ""

    def save(self, folder: Path) -> None:
        """Into a folder of its own, which is complete when the scene is there."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.truth is not None:
            self.truth.save(folder / "truth.safetensors", tone=self.tone, light=self.light)
        tensors = {name: getattr(self.observation, name).contiguous() for name in _TENSORS}
        save_file(tensors, folder / "observation.safetensors", metadata={"convention": self.observation.convention})
        self.scene.save(folder / _COMPLETE)

    @classmethod
    def load(cls, folder: Path) -> SharedScene:
        """Raises NextfaceError."""
        with safe_open(folder / "observation.safetensors", framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
            observation = Observation(convention=file.metadata()["convention"], **tensors)
        scene, _ = Scene.load(folder / _COMPLETE)
        if not (folder / "truth.safetensors").is_file():
            return cls(folder.name, observation, scene)
        truth, notes = Scene.load(folder / "truth.safetensors")
        return cls(folder.name, observation, scene, truth, float(str(notes["tone"])), str(notes["light"]))


def photo_name(number: int, light: int | None = None) -> str:
    """Of an unseen photo, or of its person under one of the common lights."""
    return f"unseen_{number:02d}" + ("" if light is None else f"_light_{light}")


def unseen_scene(model: MorphableModel, folder: Path, number: int, light: int | None = None) -> SharedScene:
    """Unseen photo `number`, or its person under common light `light`; made where the folder does not have it yet."""
    own = folder / photo_name(number, light)
    if not (own / _COMPLETE).is_file():
        own.mkdir(parents=True, exist_ok=True)
        photo = unseen_photo(model, number) if light is None else relit_photo(model, number, light)
        picture, _ = photo_of(photo, model, CONFIG, own)
        assert photo.scene.maps is not None
        truth = replace(photo.scene, maps=_coarser(photo.scene.maps, CONFIG.texture_resolution))
        replace(_fitted(picture, model), truth=truth, tone=photo.tone, light=photo.light).save(own)
    return SharedScene.load(own)


def real_scene(model: MorphableModel, folder: Path, path: Path) -> SharedScene:
    """A user's photo; fitted where the folder does not have it yet. Raises NextfaceError."""
    own = folder / path.stem
    if not (own / _COMPLETE).is_file():
        _fitted(read_photo(path, CONFIG), model).save(own)
    return SharedScene.load(own)


def _fitted(photo: Photo, model: MorphableModel) -> SharedScene:
    found = nextface.reconstruct(photo, CONFIG, model=model, skip={MAPS_STAGE})
    return SharedScene(photo.name, observation_of(photo, found.model, CONFIG), found.scene)


def _coarser(maps: SkinMaps, resolution: int) -> SkinMaps:
    """Their means over the texels of a coarser map: the levels up to it."""
    textures = {
        name: LaplacianTexture([level for level in texture.levels if level.shape[1] <= resolution])
        for name, texture in maps.textures().items()
    }
    return SkinMaps(**textures, confidence=torch.ones(1, resolution, resolution, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("output/prior_maps/scenes"))
    parser.add_argument("--photos", type=int, nargs=2, default=(0, 0), metavar=("FIRST", "END"))
    parser.add_argument(
        "--subjects", type=int, nargs=2, default=(0, 0), metavar=("FIRST", "END"), help="under three lights"
    )
    arguments = parser.parse_args()
    model = load_model(CONFIG.path)
    wanted: list[tuple[int, int | None]] = [(number, None) for number in range(*arguments.photos)]
    wanted += [(number, light) for number in range(*arguments.subjects) for light in range(LIGHTS)]
    for number, light in wanted:
        began = time.perf_counter()
        shared = unseen_scene(model, arguments.folder, number, light)
        print(f"{shared.name}: {shared.light}, {shared.tone:.0f}°, {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
