"""One small portrait, fitted once per session; the tests of the stages look at its parts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from synthetic_photo import BANDS, Portrait, known_scene, portrait_of

from nextface.config import OptimConfig
from nextface.fitting.maps import fit_maps
from nextface.fitting.pose import fit_pose, start
from nextface.fitting.progress import Progress
from nextface.fitting.statistical import fit_statistical
from nextface.morphable.model import MorphableModel
from nextface.scene import Scene


@dataclass(frozen=True)
class Step:
    """A stage's input, output and what it reported."""

    before: Scene
    after: Scene
    progress: Progress


@pytest.fixture(scope="session")
def quick() -> OptimConfig:
    """Settings of a fit that takes seconds."""
    return OptimConfig(
        device="cpu",
        bands=BANDS,
        texture_resolution=256,
        max_resolution=96,
        iter_step1=30,
        iter_step2=30,
        iter_step3=12,
    )


@pytest.fixture(scope="session")
def portrait(head: MorphableModel) -> Portrait:
    return portrait_of(known_scene(head, seed=1), head)


@pytest.fixture(scope="session")
def posed(portrait: Portrait, head: MorphableModel, quick: OptimConfig) -> Step:
    return run(fit_pose, start(portrait.observation, head, BANDS), portrait, head, quick)


@pytest.fixture(scope="session")
def lit(posed: Step, portrait: Portrait, head: MorphableModel, quick: OptimConfig) -> Step:
    return run(fit_statistical, posed.after, portrait, head, quick)


@pytest.fixture(scope="session")
def mapped(lit: Step, portrait: Portrait, head: MorphableModel, quick: OptimConfig) -> Step:
    return run(fit_maps, lit.after, portrait, head, quick)


def run(stage, scene: Scene, portrait: Portrait, model: MorphableModel, config: OptimConfig) -> Step:  # type: ignore[no-untyped-def]
    torch.manual_seed(config.seed)
    progress = Progress(stage.__name__, 1)
    before = scene.detached()
    return Step(before, stage(scene, portrait.observation, model, config, progress), progress)
