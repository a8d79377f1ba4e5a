"""The walk of a photo, or of several side by side: photo → landmarks → scene → stages → results."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nextface import paths
from nextface.config import OptimConfig, fallback_device
from nextface.errors import InputError, OutputError
from nextface.export import debug_strip, notes, write
from nextface.fitting.driver import Fit, checkpoint_path, run_stages
from nextface.fitting.observation import Observation, observe
from nextface.fitting.pose import start
from nextface.fitting.pull import prior_file
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
_WITHOUT_EFFECT = ("batchSize", "debugFrequency", "verbose")
"""Settings that the result does not depend on: a run may be taken up with others."""


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
    run = _read(photo, config, model, checkpoint)
    run_stages([run.fit], run.model, config, skip=skip, show_progress=show_progress)
    return run.result()


def reconstruct_many(
    photos: Sequence[Photo | str | Path],
    config: OptimConfig | None = None,
    *,
    model: MorphableModel | None = None,
    skip: Collection[int] = (),
    show_progress: bool = False,
) -> list[Reconstruction]:
    """Fit a head to each of several independent photos, `config.batch_size` at a time; nothing is written to disk.

    The results are those of `reconstruct` on each, to within the tolerance that docs/fitting.md states. The landmarks of one
    call follow one convention. Parameters and errors as there.
    """
    config = config or OptimConfig()
    results: list[Reconstruction] = []
    for first in range(0, len(photos), config.batch_size):
        runs: list[_Run] = []
        for photo in photos[first : first + config.batch_size]:
            runs.append(_read(photo, config, model))
            model = runs[-1].model
        run_stages([run.fit for run in runs], runs[0].model, config, skip=skip, show_progress=show_progress)
        results += [run.result() for run in runs]
    return results


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
    run = _FileRun(Path(path), Path(output_folder), config, model, landmarks_file, checkpoint, skip)
    run_stages([run.fit], run.model, config, skip=skip, show_progress=show_progress)
    return run.finish()


def reconstruct_files(
    paths: Sequence[Path],
    output_folder: Path | str,
    config: OptimConfig,
    *,
    skip: Collection[int] = (),
    model: MorphableModel | None = None,
    show_progress: bool = True,
) -> list[Reconstruction | Exception]:
    """`reconstruct_file` for several photos, fitted together as one batch.

    A photo that fails, in whatever way, leaves its exception in its place. When the batch fails as a whole, for want of
    memory say, its photos are fitted one by one.
    """
    outcomes: dict[int, Reconstruction | Exception] = {}
    runs: dict[int, _FileRun] = {}
    for number, path in enumerate(paths):
        with _kept(outcomes, number):
            runs[number] = _FileRun(path, Path(output_folder), config, model, skip=skip)
            model = runs[number].model
    batches = [list(runs)] if runs else []
    while batches:
        batch = batches.pop(0)
        try:
            fits = [runs[number].fit for number in batch]
            run_stages(fits, runs[batch[0]].model, config, skip=skip, show_progress=show_progress)
        except Exception as error:
            if len(batch) > 1:
                log.warning("%d photos cannot be fitted together (%s); they are fitted one by one", len(batch), error)
                batches = [[number] for number in batch]
            else:
                outcomes[batch[0]] = error
            continue
        for number in batch:
            with _kept(outcomes, number):
                outcomes[number] = runs.pop(number).finish()
    return [outcomes[number] for number in range(len(paths))]


@contextmanager
def _kept(outcomes: dict[int, Reconstruction | Exception], number: int) -> Iterator[None]:
    """Keep what goes wrong within as the outcome of photo `number`."""
    try:
        yield
    except Exception as error:
        outcomes[number] = error


class _Run:
    """A photo made ready for the stages."""

    def __init__(
        self,
        photo: Photo,
        config: OptimConfig,
        model: MorphableModel | None = None,
        checkpoint: Path | str | None = None,
    ) -> None:
        began = time.perf_counter()
        device = fallback_device(config)
        self.photo = photo
        self.config = config
        model = model or load_model(paths.model_folder(config.path), config.trim_pca)
        self.model = _with_convention(model, photo.landmarks.convention, config).to(device)
        self.observation = observation_of(photo, self.model, config).to(device)
        if checkpoint is None:
            scene = start(self.observation, self.model, config.bands)
        else:
            scene, header = Scene.load(checkpoint)
            _check(scene, str(header.get("model_fingerprint", "")), self, checkpoint)
            scene = scene.to(device)
        self.fit = Fit(scene, self.observation, photo.name)
        self.seconds = {"model": time.perf_counter() - began}

    def result(self) -> Reconstruction:
        record = self.fit.record
        report: dict[str, object] = {"faces": self.photo.faces}
        if record.stopped:
            report["stopped"] = dict(record.stopped)
        timings = {**self.seconds, **record.timings}
        return Reconstruction(self.photo, self.fit.scene, self.model, self.config, record.losses, timings, report)


def _read(
    photo: Photo | str | Path,
    config: OptimConfig,
    model: MorphableModel | None = None,
    checkpoint: Path | str | None = None,
) -> _Run:
    began = time.perf_counter()
    if not isinstance(photo, Photo):
        photo = read_photo(photo, config)
    run = _Run(photo, config, model, checkpoint)
    run.seconds = {"prepare": time.perf_counter() - began}
    return run


class _FileRun(_Run):
    """A photo file made ready for the stages, and the folder of its results, which holds a checkpoint of each stage."""

    def __init__(
        self,
        path: Path,
        output_folder: Path,
        config: OptimConfig,
        model: MorphableModel | None = None,
        landmarks_file: Path | None = None,
        checkpoint: Path | None = None,
        skip: Collection[int] = (),
    ) -> None:
        began = time.perf_counter()
        self.folder = output_folder / path.name
        self.skip = skip
        saved = self.folder / "checkpoints"
        _make_folder(saved)
        photo = read_photo(path, config, landmarks_file)
        seconds = {"photo": time.perf_counter() - began}
        super().__init__(photo, config, model, checkpoint)
        self.seconds = {**seconds, **self.seconds}
        if self._finished.exists():
            _forget(saved)
        self.fit.folder = saved
        self.fit.fingerprint = _fingerprint(self, checkpoint, skip)
        self.fit.notes = notes(photo, config, self.model)
        self.fit.watch = self._watch

    @property
    def _finished(self) -> Path:
        return self.folder / "checkpoints" / "finished"

    def _watch(self, stage: int, iteration: int, scene: Scene) -> None:
        debug_strip(self.folder, stage, iteration, self.photo, scene, self.model)

    def finish(self) -> Reconstruction:
        """Write the results."""
        result = self.result()
        if self.config.save_intermediate_stage:
            _write_intermediate(result, self.folder, self.skip)
        write(result, self.folder)
        self._finished.touch()
        return result


def observation_of(photo: Photo, model: MorphableModel, config: OptimConfig) -> Observation:
    """What the stages see of one photo, with the focal length from the first source that knows it."""
    known = photo.known_focal(config)
    full_diagonal = math.hypot(photo.crop.full_width, photo.crop.full_height) * photo.crop.scale
    focal = PORTRAIT_LENS_MM / _FULL_FRAME_DIAGONAL_MM * full_diagonal if known is None else known
    spread = _UNKNOWN_SD if known is None else _KNOWN_SD
    if not config.optimize_focal_length:
        spread = 0.0
    return observe(photo, model, focal, spread)


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
    settings = {key: value for key, value in config.as_keys().items() if key not in _WITHOUT_EFFECT}
    digest.update(json.dumps([settings, sorted(skip), photo.known_focal(config)], sort_keys=True).encode())
    landmarks: Landmarks = photo.landmarks
    for array in (photo.image, photo.valid, landmarks.points, landmarks.index, landmarks.confidence):
        digest.update(np.ascontiguousarray(array.numpy()).tobytes())
    encoder = Path(config.identity_checkpoint).expanduser() if config.identity_checkpoint else None
    for file in (checkpoint, prior_file(config), encoder):
        if file is not None and file.is_file():
            digest.update(file.read_bytes())
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
