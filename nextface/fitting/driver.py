"""Runs the stages one after the other on a batch of photos, saving each scene after each, so that a killed run goes on where
it stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nextface.config import OptimConfig
from nextface.errors import InputError
from nextface.fitting.maps import fit_maps
from nextface.fitting.observation import Observation
from nextface.fitting.pose import fit_pose
from nextface.fitting.progress import Progress
from nextface.fitting.statistical import fit_statistical
from nextface.morphable.model import MorphableModel
from nextface.scene import Scene

log = logging.getLogger(__name__)

Stage = Callable[[Scene, Observation, MorphableModel, OptimConfig, Progress], Scene]
Watch = Callable[[int, int, Scene], None]
"""Called with the stage's number, the iteration and the photo's scene so far, every `debugFrequency` iterations."""


@dataclass(frozen=True)
class StagePlan:
    """One stage: its number on the command line, its name, the function and the config field with its iterations."""

    number: int
    name: str
    fit: Stage
    iterations: str


STAGES = (
    StagePlan(1, "pose", fit_pose, "iter_step1"),
    StagePlan(2, "statistical", fit_statistical, "iter_step2"),
    StagePlan(3, "maps", fit_maps, "iter_step3"),
)


@dataclass
class FitRecord:
    """What the stages left behind for one photo, by stage name: its loss curves, seconds without debug pictures (its share of
    the batch's), and why a stage ended early."""

    losses: dict[str, list[float]] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)


@dataclass
class Fit:
    """One photo on its way through the stages.

    scene:       before the first stage, and after each the fitted one
    observation: of this photo alone
    name:        of the photo, for messages
    folder:      where each stage's scene is saved and, when its fingerprint is the same, taken from instead of being
                 fitted again; every stage is a function of its input alone, so the end result is the same
    fingerprint: identifies photo, landmarks and settings
    notes:       more JSON values for the header of each saved scene
    """

    scene: Scene
    observation: Observation
    name: str = ""
    folder: Path | None = None
    fingerprint: str = ""
    notes: dict[str, object] = field(default_factory=dict)
    watch: Watch | None = None
    record: FitRecord = field(default_factory=FitRecord)


def checkpoint_path(folder: Path, stage: int) -> Path:
    return folder / f"stage{stage}_output.safetensors"


def run_stages(
    fits: Sequence[Fit],
    model: MorphableModel,
    config: OptimConfig,
    *,
    skip: Collection[int] = (),
    show_progress: bool = False,
) -> None:
    """Fit photos together, in place, by all stages whose number is not in `skip`.

    Landmarks follow one convention. A stage takes as one batch those photos that have no checkpoint of it: results do not
    depend on who else is in the batch.
    """
    for stage in STAGES:
        if stage.number not in skip:
            pending = [fit for fit in fits if not _resumed(fit, stage)]
            if pending:
                _run(stage, pending, model, config, show_progress)


def _run(stage: StagePlan, fits: list[Fit], model: MorphableModel, config: OptimConfig, show_progress: bool) -> None:
    names = tuple(fit.name for fit in fits)
    progress = Progress(stage.name, getattr(config, stage.iterations), quiet=not show_progress, names=names)
    watchers = [(row, fit.watch) for row, fit in enumerate(fits) if fit.watch is not None]
    if watchers and config.debug_frequency:

        def watch(iteration: int, scene: Scene) -> None:
            for row, call in watchers:
                call(stage.number, iteration, scene.select(row))

        progress.watch(config.debug_frequency, watch)
    scene, observation = Scene.join([fit.scene for fit in fits]), Observation.join([fit.observation for fit in fits])
    began = time.perf_counter()
    try:
        scene = stage.fit(scene, observation, model, config, progress)
        curves = progress.losses
    finally:
        progress.close()
    seconds = (time.perf_counter() - began - progress.watched) / len(fits)
    for row, (fit, losses) in enumerate(zip(fits, curves, strict=True)):
        fit.scene = scene.select(row)
        _note(fit, stage, losses, seconds, progress.stopped.get(row, ""))
        if fit.folder is not None:
            fit.scene.save(
                checkpoint_path(fit.folder, stage.number),
                stage=stage.name,
                fingerprint=fit.fingerprint,
                losses=losses,
                seconds=seconds,
                stopped=progress.stopped.get(row, ""),
                **fit.notes,
            )


def _note(fit: Fit, stage: StagePlan, losses: list[float], seconds: float, stopped: str) -> None:
    fit.record.losses[stage.name], fit.record.timings[stage.name] = losses, seconds
    if stopped:
        fit.record.stopped[stage.name] = stopped


def _resumed(fit: Fit, stage: StagePlan) -> bool:
    """Take the stage's scene from its checkpoint, if there is one of the same run."""
    path = None if fit.folder is None else checkpoint_path(fit.folder, stage.number)
    if path is None or not path.is_file() or not fit.fingerprint:
        return False
    try:
        scene, header = Scene.load(path)
    except InputError:
        return False
    if header.get("fingerprint") != fit.fingerprint:
        return False
    log.info("%sstage %s: taken from the interrupted run", f"{fit.name}: " if fit.name else "", stage.name)
    fit.scene = scene.to(fit.scene.device)
    _note(fit, stage, header.get("losses", []), header.get("seconds", 0.0), header.get("stopped", ""))  # type: ignore[arg-type]
    return True
