"""The result of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from nextface.config import OptimConfig
from nextface.morphable.model import MorphableModel
from nextface.photo import Photo
from nextface.scene import Scene


@dataclass
class Reconstruction:
    """A relightable head and how it came about.

    photo:   what was fitted
    scene:   pose, shape, expression, light and skin maps; see `Scene` for shapes and units
    model:   the morphable model that the scene's coefficients belong to
    config:  the settings as resolved
    losses:  per stage ("pose", "statistical", "maps"), the objective at every iteration
    timings: seconds per part
    report:  anything else that metrics.json carries, JSON values
    """

    photo: Photo
    scene: Scene
    model: MorphableModel
    config: OptimConfig
    losses: dict[str, list[float]] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    report: dict[str, object] = field(default_factory=dict)
