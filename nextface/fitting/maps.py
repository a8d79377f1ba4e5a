"""Stage 3: per-texel diffuse, specular, roughness and normal maps from the photo; pose, shape and light stay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from nextface.config import OptimConfig
from nextface.fitting import per_image
from nextface.fitting.evidence import Evidence
from nextface.fitting.fill import confidence_map, fill_unseen
from nextface.fitting.last_good import LastGood
from nextface.fitting.losses import encode, robust
from nextface.fitting.maps_start import starting_maps
from nextface.fitting.observation import Observation
from nextface.fitting.progress import Progress
from nextface.fitting.pull import Pull
from nextface.fitting.surface import CHANNELS, Surface
from nextface.fitting.texels import Penalties, TexelAdam
from nextface.morphable.model import MorphableModel
from nextface.rendering.raster import VisiblePixels
from nextface.scene import Scene
from nextface.textures import COARSEST, MAP_CHANNELS, RELIEF_FROM, LaplacianTexture, SkinMaps

MOVES = ("maps",)
MOVES_WITH_PRIOR = (*MOVES, "exposure", "white_balance")

_SIGN = (1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0)

_PHOTO_SD = 0.02
_ROBUST_SCALE = 0.06
_RATE = {"diffuse": 0.01, "specular": 0.01, "roughness": 0.01, "normal": 0.01}
_DEVIATION_SD = {"diffuse": 0.15, "specular": 0.15, "roughness": 0.05, "normal": 0.15}
_SYMMETRY_SD = {"diffuse": 0.05, "specular": 0.05, "roughness": 0.03, "normal": 0.05}
_CHROMA_SD = 0.05
_RANGE_SD = 0.02
"""Spreads of the coarsest level's texels: about the statistical map, about the mirror image, of colour shifts; of finer
levels by the square root of their texels' side less, as in natural images; and of values beyond 0…1."""

_EPSILON = 0.3
"""Share of the typical gradient below which a texel moves in proportion instead of at full rate."""
_KEEP_EVERY = 20
_COVERED = 0.4
"""Share of the map's texels that a photo shows, about."""


def fit_maps(
    scene: Scene, observation: Observation, model: MorphableModel, config: OptimConfig, progress: Progress
) -> Scene:
    """Move `MOVES`, or `MOVES_WITH_PRIOR`, so that the drawn skin meets the photo texel by texel.

    Texels that no accepted pixel saw are filled afterwards, level by level: by their mirror image where that was
    seen, else by what the coarser levels say.
    """
    scene = scene.detached()
    maps, scene = scene.maps, replace(scene, maps=None)
    resolution = config.texture_resolution if maps is None else maps.diffuse.resolution
    surface = Surface.of(scene, model, resolution, config.self_shadowing)
    maps = maps or starting_maps(scene, surface, observation, model, config)
    start, confidence = _stack(maps), maps.confidence
    del maps  # at 4096² every copy counts
    reached = surface.lookup.reached(start)
    finer = start.levels[len(reached) :]

    def assembled(levels: list[Tensor], confidence: Tensor = confidence) -> Scene:
        return replace(scene, maps=_unstack(LaplacianTexture([*levels, *finer]), confidence))

    pull = Pull.of(scene, surface, finer, model, config)
    levels, weight = _optimised(reached, surface, pull, observation, model, config, progress, assembled)
    seen = surface.shown(weight)
    filled = fill_unseen(LaplacianTexture(levels), LaplacianTexture(reached), seen, seen.new_tensor(_SIGN))
    found = assembled(filled.levels, confidence_map(seen))
    return found if pull is None else pull.tinted(found)


def _optimised(
    start: list[Tensor],
    surface: Surface,
    pull: Pull | None,
    observation: Observation,
    model: MorphableModel,
    config: OptimConfig,
    progress: Progress,
    snapshot: Callable[[list[Tensor]], Scene],
) -> tuple[list[Tensor], Tensor]:
    """The levels that some pixel looks up, moved so that they explain the photo, and how far each pixel counted. [P]"""
    pixels, device = surface.seen.pixels, surface.radiance.device
    target = encode(pixels.pack(observation.image))
    evidence = Evidence.of(surface, observation, model)
    weight = evidence.believed
    optimisers = [
        TexelAdam(level, _penalties(level.shape[1], config, device), _rates(level.shape[1], device), touched)
        for level, touched in zip(start, surface.lookup.touched(LaplacianTexture(start)), strict=True)
    ]
    levels = [optimiser.level for optimiser in optimisers]
    fates = LastGood(levels)
    for number in range(config.iter_step3):
        leaves = [level.requires_grad_(True) for level in levels]
        values = surface.lookup.lookup(LaplacianTexture(leaves))
        residual = encode(surface.shade(values)) - target
        if number == 0:
            weight = evidence.weigh(residual.detach(), surface)
        loss = _photo_cost(residual, values, weight, pixels)
        progress.step(fates.judge(loss), lambda: snapshot(levels))
        if number % _KEEP_EVERY == 0:
            if fates.all_lost():
                break
            fates.keep()
        gradients = torch.autograd.grad(loss.sum(), leaves)
        decay = 0.5 + 0.5 * math.cos(math.pi * number / config.iter_step3)
        steps = list(zip(levels, optimisers, gradients, strict=True))
        typical = [optimiser.typical(gradient) for _, optimiser, gradient in steps]
        if pull is not None:
            pull.add(number, levels, gradients, weight)
        for (level, optimiser, gradient), usual in zip(steps, typical, strict=True):
            level.requires_grad_(False)
            optimiser.step(gradient, decay, _EPSILON * usual + 1e-12)
    fates.judge_state()
    lost = fates.lost()
    if lost:
        fates.restore()
        progress.diverged(lost, "maps")
    return [level.detach() for level in levels], weight


def _photo_cost(residual: Tensor, values: Tensor, weight: Tensor, pixels: VisiblePixels) -> Tensor:
    """Each photo's weighted mean of the robust residual and of departures from 0…1, in units of their spreads. [B]"""
    ranged = values[:, : CHANNELS["normal"].start]
    beyond = (torch.relu(-ranged) + torch.relu(ranged - 1.0)).square().sum(-1) / _RANGE_SD**2
    photo = robust(residual.square().sum(-1), _ROBUST_SCALE) / _PHOTO_SD**2
    return per_image.mean(photo + beyond, weight, pixels)


def _penalties(size: int, config: OptimConfig, device: torch.device) -> Penalties:
    """Weights of one level; NextFace's stock settings stand for the spreads given above."""
    fine = size > COARSEST
    smooth = {
        "diffuse": config.weight_diffuse_smoothness_reg / 0.001 if fine else 0.25,
        "specular": config.weight_specular_smoothness_reg / 0.001
        if fine
        else config.weight_specular_consistency_reg / 2.0,
        "roughness": config.weight_roughness_smoothness_reg / 0.002 + config.weight_roughness_consistency_reg,
        "normal": 1.0,
    }
    symmetry = {
        "diffuse": config.weight_diffuse_symmetry_reg / 300.0,
        "specular": config.weight_specular_symmetry_reg / 200.0,
        "roughness": config.weight_roughness_symmetry_reg / 200.0,
        "normal": 1.0,
    }
    share = 0.5 / (_COVERED * size * size) * (size / COARSEST)
    return Penalties(
        deviation=_per_channel(
            {name: share * smooth[name] / _DEVIATION_SD[name] ** 2 for name in MAP_CHANNELS}, device
        ),
        symmetry=_per_channel(
            {name: 0.5 * share * symmetry[name] / _SYMMETRY_SD[name] ** 2 for name in MAP_CHANNELS}, device
        ),
        sign=torch.tensor(_SIGN, device=device),
        chroma=share * config.weight_diffuse_consistency_reg / 100.0 / _CHROMA_SD**2,
    )


def _rates(size: int, device: torch.device) -> Tensor:
    return _per_channel({**_RATE, "normal": _RATE["normal"] if size >= RELIEF_FROM else 0.0}, device)


def _per_channel(values: dict[str, float], device: torch.device) -> Tensor:
    return torch.tensor([values[name] for name, count in MAP_CHANNELS.items() for _ in range(count)], device=device)


def _stack(maps: SkinMaps) -> LaplacianTexture:
    """The four maps as one of seven channels: one lookup instead of four."""
    parts = [texture.levels for texture in maps.textures().values()]
    return LaplacianTexture([torch.cat(level, -1).contiguous() for level in zip(*parts, strict=True)])


def _unstack(stacked: LaplacianTexture, confidence: Tensor) -> SkinMaps:
    """The four maps again, sharing nothing with the stack."""
    parts = {
        name: LaplacianTexture(
            [level[..., where].detach().clone(memory_format=torch.contiguous_format) for level in stacked.levels]
        )
        for name, where in CHANNELS.items()
    }
    return SkinMaps(**parts, confidence=confidence)
