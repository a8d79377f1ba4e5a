"""Ways to fit the maps of one scene: alone, with the prior, or pulled by the prior's own machinery to maps that are known."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from benchmarks.shared_scenes import CONFIG, SharedScene
from nextface.config import OptimConfig
from nextface.fitting.maps import fit_maps
from nextface.fitting.progress import Progress
from nextface.fitting.pull import Pull, prior_weights
from nextface.morphable import MorphableModel
from nextface.prior.answers import Answers
from nextface.prior.checkpoint import read_notes
from nextface.prior.data.source import FacesSettings, draw_population
from nextface.prior.data.unwrapped import unwrapped
from nextface.prior.projection import Answer
from nextface.prior.regulariser import Regulariser
from nextface.scene import Scene
from nextface.textures import MAP_CHANNELS, SkinMaps, resized

KINDS = ("none", "prior", "mean", "truth")
"""Without a prior; with it; pulled to the mean of the people that the prior learns from; pulled to the truth, which no prior can beat."""
PEOPLE = 64
"""Whose mean that is."""
_MEANS: dict[tuple[str, int], Tensor] = {}
ONES = (1.0,) * len(MAP_CHANNELS)
USUAL = tuple(prior_weights(OptimConfig()).values())
TINT = OptimConfig().prior_tint
"""Weights and tint of the settings' defaults."""


@dataclass(frozen=True)
class Arm:
    """kind: of `KINDS`; weights: of the pull by domain, in the order of `MAP_CHANNELS`; mode: `priorMode`; tint: `priorTint`"""

    kind: str
    weights: tuple[float, ...] = ONES
    mode: str = "uv"
    tint: float = TINT

    def __str__(self) -> str:
        """Names the arm in files and tables."""
        if self.kind == "none":
            return self.kind
        return f"{self.kind} {self.mode} {','.join(f'{w:g}' for w in self.weights)} tint {self.tint:g}"

    def needs(self, prior: Path | None) -> str:
        """What of a prior's file an arm depends on, in short: the whole, only its encoding, or nothing."""
        if self.kind == "none" or prior is None:
            return ""
        if self.kind == "prior":
            return hashlib.sha256(prior.read_bytes()).hexdigest()[:12]
        encoding = json.dumps(read_notes(prior).get("encoding"), sort_keys=True)
        return hashlib.sha256(encoding.encode()).hexdigest()[:12]

    def config(self, prior: Path | None, settings: OptimConfig) -> OptimConfig:
        """The settings with this arm's own."""
        weights = (0.0,) * len(MAP_CHANNELS) if self.kind == "none" else self.weights
        tint = 0.0 if self.kind == "none" else self.tint
        named = {f"weight_prior_{name}": weight for name, weight in zip(MAP_CHANNELS, weights, strict=True)}
        return replace(settings, prior_checkpoint=str(prior or ""), prior_mode=self.mode, prior_tint=tint, **named)  # type: ignore[arg-type]


def fitted(
    shared: SharedScene, arm: Arm, model: MorphableModel, prior: Path | None, settings: OptimConfig = CONFIG
) -> tuple[Scene, float]:
    """The scene after the maps stage, and the seconds that it took. prior: may be None only for the kind "none"."""
    config = arm.config(prior, settings)
    known = arm.kind in ("mean", "truth")
    pull = pulled_to(known_maps(shared, arm.kind, model, config.texture_resolution)) if known else nullcontext()
    began = time.perf_counter()
    with pull:
        scene = fit_maps(shared.scene, shared.observation, model, config, Progress("maps", config.iter_step3))
    return scene, time.perf_counter() - began


def known_maps(shared: SharedScene, kind: str, model: MorphableModel, resolution: int) -> Tensor:
    """The maps that an arm is pulled to, stacked as in `MAP_CHANNELS`. [T, T, 7]"""
    if kind == "truth":
        if shared.truth is None or shared.truth.maps is None:
            raise ValueError(f"{shared.name}: the truth of a real photo is not known")
        return stacked(shared.truth.maps)
    return mean_maps(model, resolution)


def mean_maps(model: MorphableModel, resolution: int) -> Tensor:
    """Of generated people, drawn once. [T, T, 7]"""
    key = model.name, resolution
    if key not in _MEANS:
        _MEANS[key] = _mean_maps(model, resolution)
    return _MEANS[key]


def _mean_maps(model: MorphableModel, resolution: int) -> Tensor:
    zones, noise, people = draw_population(model, FacesSettings(people=PEOPLE), torch.Generator().manual_seed(0))
    rows = (people.rows(torch.tensor([number])) for number in range(PEOPLE))
    return torch.stack([unwrapped(row, zones, noise, model, resolution)[0] for row in rows]).mean(0)


def stacked(maps: SkinMaps) -> Tensor:
    """All maps as one, slopes instead of normals. [T, T, 7]"""
    return torch.cat([texture.full() for texture in maps.textures().values()], -1)[0]


@dataclass(frozen=True)
class KnownAnswers(Answers):
    """Answers as if the codes knew nothing but certain maps. target: crops of these, [N, 7, S, S]"""

    target: Tensor

    def ask(self, domain: str, crop: Tensor, generator: torch.Generator) -> Answer:
        known = self.encoded(domain, self.target)
        return Answer(known, known)

    def wish(self, domain: str, crop: Tensor, answer: Tensor) -> Tensor:
        """Nothing is held back: these answers have no noise."""
        return answer - crop


@contextmanager
def pulled_to(target: Tensor) -> Iterator[None]:
    """Within, where the maps stage would ask the prior it takes these maps, [T, T, 7], for the answer."""
    begun = Pull._begun

    def known(pull: Pull, levels: Sequence[Tensor], gradients: Sequence[Tensor], weight: Tensor) -> list[Regulariser]:
        found = []
        for row, asking in enumerate(begun(pull, levels, gradients, weight)):
            answers = asking.answers
            crops = answers.views.crops(resized(target[None], answers.views.resolution)[0])
            own = {name: getattr(answers, name) for name in answers.__dataclass_fields__}
            weights = prior_weights(pull.config)  # also where the prior has no say
            known = Regulariser(KnownAnswers(**own, target=crops), pull.config.prior_mode, weights, pull.config.seed)
            known.begin([level.detach()[row] for level in levels], [gradient[row] for gradient in gradients])
            found.append(known)
        return found

    with mock.patch.object(Pull, "_begun", known):
        yield
