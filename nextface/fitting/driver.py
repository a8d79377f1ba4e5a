"""Runs the stages one after the other, saving the scene after each, so that a killed run goes on where it stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
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
"""Called with the stage's number, the iteration and the scene so far, every `debugFrequency` iterations."""


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
    """What the stages left behind: loss curves, seconds without debug pictures, and why a stage ended early (by stage name)."""

    losses: dict[str, list[float]] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)


def checkpoint_path(folder: Path, stage: int) -> Path:
    return folder / f"stage{stage}_output.safetensors"


def run_stages(
    scene: Scene,
    observation: Observation,
    model: MorphableModel,
    config: OptimConfig,
    *,
    skip: Collection[int] = (),
    folder: Path | None = None,
    fingerprint: str = "",
    notes: dict[str, object] | None = None,
    watch: Watch | None = None,
    show_progress: bool = False,
) -> tuple[Scene, FitRecord]:
    """Fit `scene` by all stages whose number is not in `skip`.

    folder:      where each stage's scene is saved and, when its fingerprint is the same, taken from instead of being
                 fitted again; every stage is a function of its input alone, so the end result is the same
    fingerprint: identifies photo, landmarks and settings
    notes:       more JSON values for the header of each saved scene
    """
    record = FitRecord()
    for stage in STAGES:
        if stage.number in skip:
            continue
        saved = None if folder is None else _resumed(checkpoint_path(folder, stage.number), fingerprint)
        if saved is not None:
            scene, losses, seconds, stopped = saved
            log.info("stage %s: taken from the interrupted run", stage.name)
            record.losses[stage.name], record.timings[stage.name] = losses, seconds
            if stopped:
                record.stopped[stage.name] = stopped
            continue
        progress = Progress(stage.name, getattr(config, stage.iterations), quiet=not show_progress)
        if watch is not None and config.debug_frequency:
            progress.watch(config.debug_frequency, partial(watch, stage.number))
        began = time.perf_counter()
        try:
            scene = stage.fit(scene, observation, model, config, progress)
        finally:
            progress.close()
        record.losses[stage.name] = progress.losses
        record.timings[stage.name] = time.perf_counter() - began - progress.watched
        if progress.stopped:
            record.stopped[stage.name] = progress.stopped
        if folder is not None:
            scene.save(
                checkpoint_path(folder, stage.number),
                stage=stage.name,
                fingerprint=fingerprint,
                losses=progress.losses,
                seconds=record.timings[stage.name],
                stopped=progress.stopped or "",
                **(notes or {}),
            )
    return scene, record


def _resumed(path: Path, fingerprint: str) -> tuple[Scene, list[float], float, str] | None:
    if not path.is_file():
        return None
    try:
        scene, header = Scene.load(path)
    except InputError:
        return None
    if header.get("fingerprint") != fingerprint or not fingerprint:
        return None
    losses, seconds, stopped = header.get("losses", []), header.get("seconds", 0.0), header.get("stopped", "")
    return scene, losses, seconds, stopped  # type: ignore[return-value]
