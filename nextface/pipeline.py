"""The walk of one photo: photo → landmarks → scene → stages → results."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from nextface import paths
from nextface.config import OptimConfig, fallback_device
from nextface.errors import InputError, OutputError
from nextface.export import debug_strip, notes, write
from nextface.fitting.driver import FitRecord, checkpoint_path, run_stages
from nextface.fitting.observation import Observation, observe
from nextface.fitting.pose import start
from nextface.landmarks import Landmarks, read_photo
from nextface.morphable import LandmarkEmbedding, MorphableModel, load_model
from nextface.morphable.cache import model_key, with_landmarks
from nextface.photo import Photo
from nextface.reconstruction import Reconstruction
from nextface.scene import Scene

log = logging.getLogger(__name__)

PORTRAIT_LENS_MM = 50.0
"""35 mm equivalent of the lens that an unknown photo is taken to be from."""
_FULL_FRAME_DIAGONAL_MM = 43.27
_UNKNOWN_SD = 0.4
_KNOWN_SD = 0.05
"""Spreads of log focal length: of an unknown lens, and of one that EXIF or the user names."""


def reconstruct(
    photo: Photo | str | Path,
    config: OptimConfig | None = None,
    *,
    model: MorphableModel | None = None,
    checkpoint: Path | str | None = None,
    skip: Collection[int] = (),
    show_progress: bool = False,
) -> Reconstruction:
    """Fit a relightable head to the largest face of a photo; nothing is written to disk.

    photo:      a file, or a `Photo` that was read before
    config:     settings, NextFace's defaults if left out
    model:      a morphable model loaded before; else the one that `config.path` names
    checkpoint: a saved scene to start from instead of the mean head
    skip:       numbers of stages not to run: 1 pose, 2 statistical, 3 maps
    Raises NextfaceError: no face, unreadable file, missing model.
    """
    config = config or OptimConfig()
    began = time.perf_counter()
    if not isinstance(photo, Photo):
        photo = read_photo(photo, config)
    run = _Run(photo, config, model, checkpoint)
    seconds = {"prepare": time.perf_counter() - began}
    scene, record = run_stages(run.scene, run.observation, run.model, config, skip=skip, show_progress=show_progress)
    return run.result(scene, record, seconds)


def reconstruct_file(
    path: Path | str,
    output_folder: Path | str,
    config: OptimConfig,
    *,
    landmarks_file: Path | None = None,
    checkpoint: Path | None = None,
    skip: Collection[int] = (),
    model: MorphableModel | None = None,
    show_progress: bool = True,
) -> Reconstruction:
    """Reconstruct a photo into `output_folder/<file name>/`, saving the scene after every stage.

    An interrupted run of the same photo and settings is taken up after its last complete stage.
    """
    began = time.perf_counter()
    path = Path(path)
    folder = Path(output_folder) / path.name
    _make_folder(folder / "checkpoints")
    photo = read_photo(path, config, landmarks_file)
    seconds = {"photo": time.perf_counter() - began}
    began = time.perf_counter()
    run = _Run(photo, config, model, checkpoint)
    seconds["model"] = time.perf_counter() - began
    carried = notes(photo, config, run.model)

    def watch(stage: int, iteration: int, scene: Scene) -> None:
        debug_strip(folder, stage, iteration, photo, scene, run.model)

    fingerprint = _fingerprint(run, checkpoint, skip)
    finished = folder / "checkpoints" / "finished"
    if finished.exists():
        _forget(folder / "checkpoints")
    scene, record = run_stages(
        run.scene,
        run.observation,
        run.model,
        config,
        skip=skip,
        folder=folder / "checkpoints",
        fingerprint=fingerprint,
        notes=carried,
        watch=watch,
        show_progress=show_progress,
    )
    result = run.result(scene, record, seconds)
    if config.save_intermediate_stage:
        _write_intermediate(result, folder, skip)
    write(result, folder)
    finished.touch()
    return result


class _Run:
    """A photo made ready for the stages."""

    def __init__(
        self, photo: Photo, config: OptimConfig, model: MorphableModel | None, checkpoint: Path | str | None
    ) -> None:
        device = fallback_device(config)
        self.photo = photo
        self.config = config
        model = model or load_model(paths.model_folder(config.path), config.trim_pca)
        self.model = _with_convention(model, photo.landmarks.convention, config).to(device)
        self.observation = observation_of(photo, self.model, config).to(device)
        if checkpoint is None:
            self.scene = start(self.observation, self.model, config.bands)
        else:
            scene, header = Scene.load(checkpoint)
            _check(scene, str(header.get("model_fingerprint", "")), self, checkpoint)
            self.scene = scene.to(device)

    def result(self, scene: Scene, record: FitRecord, seconds: dict[str, float]) -> Reconstruction:
        report: dict[str, object] = {"faces": self.photo.faces}
        if record.stopped:
            report["stopped"] = dict(record.stopped)
        timings = {**seconds, **record.timings}
        return Reconstruction(self.photo, scene, self.model, self.config, record.losses, timings, report)


def observation_of(photo: Photo, model: MorphableModel, config: OptimConfig) -> Observation:
    """What the stages see of one photo, with the focal length from the first source that knows it."""
    known = photo.known_focal(config)
    full_diagonal = math.hypot(photo.crop.full_width, photo.crop.full_height) * photo.crop.scale
    focal = PORTRAIT_LENS_MM / _FULL_FRAME_DIAGONAL_MM * full_diagonal if known is None else known
    spread = _UNKNOWN_SD if known is None else _KNOWN_SD
    if not config.optimize_focal_length:
        spread = 0.0
    return observe([photo], model, torch.tensor([focal]), torch.tensor([spread]))


def _with_convention(model: MorphableModel, convention: str, config: OptimConfig) -> MorphableModel:
    """The model with an embedding of the photo's landmarks, placed on the mean head where the file has none."""

    def place(bare: MorphableModel) -> LandmarkEmbedding:
        from nextface.landmarks import annotate

        return annotate.place(bare, convention, config.landmarks_model)

    return with_landmarks(model, convention, place)


def _check(scene: Scene, fitted_model: str, run: _Run, checkpoint: Path | str) -> None:
    """Refuse a saved scene of another model or photo. fitted_model: key of its model, empty where it is not known."""
    model, observation = run.model, run.observation
    expected = {
        "shape": model.shape_basis.shape[0],
        "albedo": model.diffuse_basis.shape[0],
        "expression": model.expression_basis.shape[0],
        "light": run.config.bands**2,
    }
    for name, count in expected.items():
        found = getattr(scene, name).shape[1]
        if found != count:
            raise InputError(
                f"{checkpoint}: {found} {name} coefficients, but the model and settings of this run have {count}; "
                "use the model, trimPca and bands that the checkpoint was made with"
            )
    if fitted_model and fitted_model != model_key(model):
        raise InputError(
            f"{checkpoint}: made with another model than {model.name!r} as it is now; put that model's files back, "
            "or start without the checkpoint"
        )
    if (scene.height, scene.width) != (observation.height, observation.width):
        raise InputError(
            f"{checkpoint}: made for a crop of {scene.width} x {scene.height} pixels, this photo's is "
            f"{observation.width} x {observation.height}; use the same photo and maxResolution"
        )


def _fingerprint(run: _Run, checkpoint: Path | None, skip: Collection[int]) -> str:
    """Identifies everything that the result depends on."""
    photo, config = run.photo, run.config
    digest = hashlib.sha256(model_key(run.model).encode())
    settings = {key: value for key, value in config.as_keys().items() if key not in ("debugFrequency", "verbose")}
    digest.update(json.dumps([settings, sorted(skip), photo.known_focal(config)], sort_keys=True).encode())
    landmarks: Landmarks = photo.landmarks
    for array in (photo.image, photo.valid, landmarks.points, landmarks.index, landmarks.confidence):
        digest.update(np.ascontiguousarray(array.numpy()).tobytes())
    if checkpoint is not None:
        digest.update(Path(checkpoint).read_bytes())
    return digest.hexdigest()[:32]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created ({error.strerror}); choose another --output folder") from error


def _forget(folder: Path) -> None:
    """Drop the checkpoints of a finished run: running again means fitting again."""
    (folder / "finished").unlink()
    for stage in (1, 2, 3):
        checkpoint_path(folder, stage).unlink(missing_ok=True)


def _write_intermediate(result: Reconstruction, folder: Path, skip: Collection[int]) -> None:
    """The results of stages 1 and 2 in folders of their own."""
    for stage in (1, 2):
        if stage not in skip:
            scene, _ = Scene.load(checkpoint_path(folder / "checkpoints", stage))
            earlier = Reconstruction(result.photo, scene, result.model, result.config)
            write(earlier, folder / f"stage{stage}", {"strip", "maps", "mesh"})
