"""The reflectance prior's place in the maps stage. Nothing of the prior is imported where none is used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nextface import paths
from nextface.config import OptimConfig
from nextface.errors import NextfaceError
from nextface.fitting.surface import Surface
from nextface.morphable.model import MorphableModel
from nextface.scene import Scene
from nextface.textures import LaplacianTexture

if TYPE_CHECKING:
    from nextface.prior.projection import Projection
    from nextface.prior.regulariser import Regulariser
    from nextface.prior.views import CropViews

log = logging.getLogger(__name__)

SHIPPED = "prior.safetensors"
_WITHOUT = "%s; the maps are fitted without the prior"
_LONG = 20.0
"""Seconds in the network from which the wait is announced to everybody."""


def prior_file(config: OptimConfig) -> Path | None:
    """The checkpoint of the prior that a run uses; None where the settings or the absence of a shipped one leave it out."""
    return installed_prior(config.prior_checkpoint) if config.maps_init == "prior" or _wanted(config) else None


def installed_prior(checkpoint: str) -> Path | None:
    """The file that the setting priorCheckpoint means: the shipped one where it is empty, None where there is none."""
    if checkpoint:
        return Path(checkpoint).expanduser()
    shipped = paths.resource(SHIPPED)
    return shipped if shipped.is_file() else None


def prior_weights(config: OptimConfig) -> dict[str, float]:
    return {
        "diffuse": config.weight_prior_diffuse,
        "specular": config.weight_prior_specular,
        "roughness": config.weight_prior_roughness,
        "normal": config.weight_prior_normal,
    }


@dataclass
class Pull:
    """Adds the prior's gradients to the photos', photo by photo.

    views: of each photo's head; surface: what the photos show; finer: levels of the maps beyond those that move
    """

    projection: Projection
    views: list[CropViews]
    surface: Surface
    finer: Sequence[Tensor]
    model: MorphableModel
    config: OptimConfig
    _pulls: list[Regulariser] = field(default_factory=list)

    @classmethod
    def of(
        cls, scene: Scene, surface: Surface, finer: Sequence[Tensor], model: MorphableModel, config: OptimConfig
    ) -> Pull | None:
        """None where there is no prior, or where one does not fit: then a warning says why."""
        path = prior_file(config)
        refreshes = sum(_asks(number, config) for number in range(config.iter_step3))
        if path is None or not refreshes or not _wanted(config):
            return None
        projection = _read(path, stamp(path), str(scene.device))
        if projection is None:
            return None
        domains = len(_asked(config, projection))
        if not domains:
            return None
        from nextface.prior.views import CropViews

        crop, size, photos = projection.encoding.crop, projection.encoding.image_size, range(scene.batch)
        try:
            views = [CropViews.of(scene.select(row), model, crop, size) for row in photos]
        except NextfaceError as error:
            log.warning(_WITHOUT, error)
            return None
        seconds = projection.seconds * domains * sum(each.count for each in views)
        log.log(
            logging.WARNING if seconds * refreshes > _LONG else logging.INFO,
            "the prior %s is asked %d times in the maps stage, about %.1f s each; a larger priorEvery than %d asks less often",
            *(path.name, refreshes, seconds, config.prior_every),
        )
        return cls(projection, views, surface, finer, model, config)

    def add(self, number: int, levels: Sequence[Tensor], gradients: Sequence[Tensor], weight: Tensor) -> None:
        """Add to the gradients, in place, what the prior wants in iteration `number`.

        levels: that move, coarse to fine, [B, s, s, 7]; gradients: of the photos' cost, alike; weight: how far each pixel
        counts, [P]
        """
        with torch.no_grad():
            if number == 0:
                self._pulls = self._begun(levels, gradients, weight)
            for row, pull in enumerate(self._pulls):
                own = [level.detach()[row] for level in levels]
                if _asks(number, self.config):
                    pull.refresh(own)
                for gradient, more in zip(gradients, pull.gradients(own), strict=False):
                    gradient[row] += more

    def tinted(self, scene: Scene) -> Scene:
        """The scene with the tint that the prior gives each skin, and the gains of its light the less for it.

        Skin of one colour under light of another looks like both exchanged, so that fitting cannot tell. The photo stays explained but
        for highlights, which have the light's colour alone.
        """
        assert scene.maps is not None
        if not self._pulls:  # all photos were lost at once
            return scene
        tint = torch.stack([pull.tint for pull in self._pulls]) ** self.config.prior_tint
        tint = torch.where(tint.isfinite().all(1, keepdim=True), tint, 1.0)  # of a photo that was lost on the way
        diffuse = LaplacianTexture([level * tint[:, None, None] for level in scene.maps.diffuse.levels])
        red, green, blue = tint.log().unbind(-1)
        return replace(
            scene,
            maps=replace(scene.maps, diffuse=diffuse),
            exposure=scene.exposure - green,
            white_balance=scene.white_balance - torch.stack([red - green, blue - green], -1),
        )

    def _begun(self, levels: Sequence[Tensor], gradients: Sequence[Tensor], weight: Tensor) -> list[Regulariser]:
        from nextface.prior.answers import Answers
        from nextface.prior.regulariser import Regulariser

        weights, config = _asked(self.config, self.projection), self.config
        seen = self.surface.shown(weight, self.views[0].resolution)
        pulls = []
        for row, views in enumerate(self.views):
            answers = Answers.of(self.projection, views, self.model, seen[row], [level[row] for level in self.finer])
            pull = Regulariser(answers, config.prior_mode, weights, config.seed)
            pull.begin([level.detach()[row] for level in levels], [gradient[row] for gradient in gradients])
            pulls.append(pull)
        return pulls


def _wanted(config: OptimConfig) -> bool:
    """Whether the settings let the prior act on the maps as they are fitted."""
    return config.prior_tint > 0.0 or any(prior_weights(config).values())


def _asked(config: OptimConfig, projection: Projection) -> dict[str, float]:
    """The weights of the domains that the prior is asked about: those of the settings, less what the prior's file leaves out. The albedo
    may be asked about for its tint alone."""
    weights = {name: weight * projection.weights[name] for name, weight in prior_weights(config).items()}
    tinted = config.prior_tint > 0.0 and projection.weights["diffuse"] > 0.0
    return {name: weight for name, weight in weights.items() if weight > 0.0 or (tinted and name == "diffuse")}


def _asks(number: int, config: OptimConfig) -> bool:
    """Whether the prior is asked in an iteration: first after half a period, when the maps have taken from the photo what it is
    to judge, and last with half a period to go at least."""
    return number % config.prior_every == config.prior_every // 2


def stamp(path: Path) -> tuple[int, int]:
    """What changes with the file. Zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=1)
def _read(path: Path, stamp: tuple[int, int], device: str) -> Projection | None:
    """The prior, read once for a whole folder of photos; None, said once, where the file is no such."""
    from nextface.prior.projection import Projection

    try:
        projection = Projection.read(path, torch.device(device))
    except NextfaceError as error:
        log.warning(_WITHOUT, error)
        return None
    left_out = [name for name, weight in projection.weights.items() if weight == 0.0]
    if left_out:
        log.info(
            "the prior %s has no say in %s: its answers there are not nearer to the truth", path, ", ".join(left_out)
        )
    return projection
