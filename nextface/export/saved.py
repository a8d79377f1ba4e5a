"""Results from a saved scene alone: what its header must carry, and the reconstruction that it gives back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nextface.config import OptimConfig
from nextface.errors import InputError
from nextface.export.writer import write
from nextface.fitting.driver import STAGES, checkpoint_path
from nextface.landmarks.points import Landmarks
from nextface.morphable.cache import model_key
from nextface.morphable.model import MorphableModel
from nextface.paths import model_folder
from nextface.photo import Crop, Photo, cut, load_image
from nextface.reconstruction import Reconstruction
from nextface.scene import Scene


def notes(photo: Photo, config: OptimConfig, model: MorphableModel | None = None) -> dict[str, object]:
    """What a saved scene's header carries so that it can be exported with nothing else but photo and model at hand.

    model: of the fit; its fingerprint lets `load` refuse another one. Without it only the numbers of coefficients are checked.
    """
    marks = photo.landmarks
    return {
        "photo": str(photo.source.path.absolute()),
        "faces": photo.faces,
        "crop": asdict(photo.crop),
        "landmarks": {
            "convention": marks.convention,
            "index": marks.index.tolist(),
            "points": marks.points.tolist(),
            "confidence": marks.confidence.tolist(),
        },
        "model": str(model_folder(config.path).absolute()),
        "model_fingerprint": "" if model is None else model_key(model),
        "settings": config.as_keys(),
    }


def load(scene_path: Path | str, photo_path: Path | str | None = None) -> Reconstruction:
    """The reconstruction of a scene that was saved with `notes`.

    Loss curves and timings are those of the same run's stages up to this one, as far as their files lie beside it.
    photo_path: where the photo is now, when it was moved. Raises InputError and ModelError.
    """
    from nextface.morphable import load_model  # brings the readers of every model format

    scene, header = Scene.load(scene_path)
    try:
        crop, landmarks = Crop(**_part(header, "crop")), _landmarks(_part(header, "landmarks"))
        settings = _part(header, "settings")
        stored, folder, faces = Path(str(header["photo"])), str(header["model"]), int(str(header["faces"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{scene_path}: the scene carries no usable record of its photo and settings ({error}); "
            "give one from the checkpoints folder of a result"
        ) from error
    path = stored if photo_path is None else Path(photo_path)
    if not path.is_file():
        raise InputError(f"{path}: the photo that {scene_path} was fitted to is gone; say with --input where it is now")
    source = load_image(path)
    if (source.width, source.height) != (crop.full_width, crop.full_height):
        raise InputError(
            f"{path}: {source.width} x {source.height} pixels, but {scene_path} was fitted to a photo of "
            f"{crop.full_width} x {crop.full_height}; give that photo with --input"
        )
    config = OptimConfig().with_texts({key: str(value) for key, value in settings.items()})
    model = load_model(folder if Path(folder).is_dir() else model_folder(config.path), trim_pca=config.trim_pca)
    _check_model(scene, model, str(header.get("model_fingerprint", "")), scene_path)
    losses, timings = _record(Path(scene_path), header)
    return Reconstruction(cut(source, crop, landmarks, faces), scene, model, config, losses, timings)


def export_scene(
    scene_path: Path | str,
    output_folder: Path | str,
    only: Collection[str] | None = None,
    photo_path: Path | str | None = None,
) -> list[Path]:
    """Write the results of a saved scene; see `write` for `only` and `load` for `photo_path`."""
    return write(load(scene_path, photo_path), output_folder, only)


def _check_model(scene: Scene, model: MorphableModel, fingerprint: str, scene_path: Path | str) -> None:
    counts = [len(basis) for basis in (model.shape_basis, model.diffuse_basis, model.expression_basis)]
    fitted = [tensor.shape[1] for tensor in (scene.shape, scene.albedo, scene.expression)]
    if counts != fitted or (fingerprint and fingerprint != model_key(model)):
        raise InputError(
            f"{scene_path}: fitted with another model than {model.name!r} as it is now; "
            "put that model's files back or run the reconstruction again"
        )


def _record(scene_path: Path, header: Mapping[str, Any]) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Loss curves and seconds by stage name."""
    losses: dict[str, list[float]] = {}
    timings: dict[str, float] = {}
    for stage in STAGES:
        of_stage = header
        if header.get("stage") != stage.name:
            beside = checkpoint_path(scene_path.parent, stage.number)
            of_stage = Scene.load(beside)[1] if beside.is_file() else {}
        if of_stage.get("fingerprint") == header.get("fingerprint") and "losses" in of_stage:
            losses[stage.name] = [float(value) for value in of_stage["losses"]]
            timings[stage.name] = float(of_stage["seconds"])
        if of_stage is header:
            break
    return losses, timings


def _part(header: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = header[name]
    if not isinstance(part, dict):
        raise TypeError(f"{name} is no table")
    return part


def _landmarks(part: Mapping[str, Any]) -> Landmarks:
    return Landmarks(
        convention=str(part["convention"]),
        index=torch.tensor(part["index"], dtype=torch.int64),
        points=torch.tensor(part["points"], dtype=torch.float32),
        confidence=torch.tensor(part["confidence"], dtype=torch.float32),
    )
