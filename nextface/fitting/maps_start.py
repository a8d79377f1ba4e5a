"""The skin maps that the maps stage starts from: the statistical model's, or those that the reflectance prior makes of the photo."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nextface.config import OptimConfig
from nextface.errors import InputError, NextfaceError
from nextface.fitting.observation import Observation
from nextface.fitting.pull import prior_file, stamp
from nextface.fitting.surface import CHANNELS, Surface
from nextface.morphable.model import MorphableModel
from nextface.rendering.bake import bake
from nextface.rendering.camera import Camera
from nextface.rendering.skin import statistical_maps
from nextface.scene import Scene
from nextface.textures import LaplacianTexture, SkinMaps, relief, resized

if TYPE_CHECKING:
    from nextface.prior.swapping import Swapping

log = logging.getLogger(__name__)

_WITHOUT = "%s; the maps start from the statistical ones"


def starting_maps(
    scene: Scene, surface: Surface, observation: Observation, model: MorphableModel, config: OptimConfig
) -> SkinMaps:
    """One row per identity, confidence 0. surface: what the photos show"""
    maps = statistical_maps(scene, model, config.texture_resolution)
    if config.maps_init == "statistical":
        return maps
    with torch.no_grad():
        try:
            maker = _Maker.of(surface, model, config)
            rows = [maker.maps(row, scene.select(row), observation, maps) for row in range(len(maps.confidence))]
        except NextfaceError as error:
            log.warning(_WITHOUT, error)
            return maps
    textures = {
        name: LaplacianTexture([torch.cat(level) for level in zip(*(each[name].levels for each in rows), strict=True)])
        for name in CHANNELS
    }
    return SkinMaps(**textures, confidence=maps.confidence)


@dataclass(frozen=True)
class _Maker:
    """Makes maps of photos by one prior."""

    swapping: Swapping
    surface: Surface
    model: MorphableModel

    @classmethod
    def of(cls, surface: Surface, model: MorphableModel, config: OptimConfig) -> _Maker:
        """Raises NextfaceError where no prior can swap for this model."""
        path = prior_file(config)
        if path is None:
            raise InputError("mapsInit = prior, but there is no prior; set priorCheckpoint to its file")
        files = (path,) + ((Path(config.identity_checkpoint).expanduser(),) if config.identity_checkpoint else ())
        stamps = tuple(stamp(file) for file in files)
        return cls(_read(_Wanted(files, stamps, str(surface.radiance.device), model.name, model)), surface, model)

    def maps(
        self, row: int, scene: Scene, observation: Observation, statistical: SkinMaps
    ) -> dict[str, LaplacianTexture]:
        """Of photo `row`, whose scene alone is `scene`. One image."""
        from nextface.prior.crops import alignment
        from nextface.prior.pictures import seen_crop
        from nextface.prior.views import CropViews, head_points

        swapping, model = self.swapping, self.model
        faces, encoding = swapping.bundle.faces, swapping.bundle.projection.encoding
        height, width = scene.height, scene.width
        image = observation.image[row, :height, :width].permute(2, 0, 1)[None]
        shown = observation.valid[row, :height, :width][None, None].to(image)
        points = head_points(model, scene.vertices_camera(model), Camera.of(scene))
        identity = swapping.identity(
            seen_crop(image, shown, alignment(points, faces.crop, faces.image_size), "shared", faces)
        )
        views = CropViews.of(scene, model, encoding.crop, encoding.image_size)
        template = swapping.templates.closest(identity)
        log.info("the maps start from template %d of %d of the prior", template + 1, swapping.templates.count)
        swapped = swapping.swap_views(template, views, model, identity)
        made = swapping.maps(template, views, model, swapped).maps[None]
        return self._started(row, made, statistical)

    def _started(self, row: int, made: Tensor, statistical: SkinMaps) -> dict[str, LaplacianTexture]:
        """Maps of the prior in the photo's tone, as a start. made: [1, R, R, 7]"""
        finest = statistical.confidence.shape[1]
        made = resized(made, min(made.shape[1], finest))
        size = made.shape[1]
        own = {
            name: [level[row : row + 1] for level in texture.levels] for name, texture in statistical.textures().items()
        }
        coarse = {name: [level for level in levels if level.shape[1] <= size] for name, levels in own.items()}
        base = torch.cat([LaplacianTexture(levels).full() for levels in coarse.values()], -1)
        skin = self.surface.seen.interpolate(self.model.regions["skin"][None, :, None])[:, 0]
        seen = self.surface.shown(skin, size)[row : row + 1]
        made[..., CHANNELS["diffuse"]] = in_tone(made[..., CHANNELS["diffuse"]], base[..., CHANNELS["diffuse"]], seen)
        apart = bake(self.model.apart_from_skin()[None], self.model, size)
        start = LaplacianTexture.from_image(torch.lerp(made, base, apart))
        found = {}
        for name, where in CHANNELS.items():
            levels = [level[..., where].contiguous() for level in start.levels]
            if name == "normal":
                levels = relief(levels)
            found[name] = LaplacianTexture([*levels, *own[name][len(levels) :]])
        return found


def in_tone(albedo: Tensor, wanted: Tensor, seen: Tensor) -> Tensor:
    """Albedo with the gain per channel that gives it another's mean over seen skin.

    albedo, wanted: linear, [1, R, R, 3]; seen: how far the photo shows skin at each texel, 0…1, [1, R, R, 1]
    """
    mean, other = ((seen * each).sum((1, 2), keepdim=True) for each in (wanted, albedo))
    gain = torch.where(seen.sum() > 0.0, mean / other.clamp_min(1e-6), 1.0)
    return albedo * gain


@dataclass(frozen=True)
class _Wanted:
    """files: of the prior, and of the encoder of identities where it is not the prior's own; stamps: what changes with them;
    heads: name of the model"""

    files: tuple[Path, ...]
    stamps: tuple[tuple[int, int], ...]
    device: str
    heads: str
    model: MorphableModel = field(compare=False)


@lru_cache(maxsize=1)
def _read(wanted: _Wanted) -> Swapping:
    """The prior, read once for a whole folder of photos. Raises NextfaceError."""
    from nextface.prior.bundle import Bundle
    from nextface.prior.swapping import Swapping

    path = wanted.files[0]
    return Swapping(Bundle.read(path, torch.device(wanted.device), *wanted.files[1:]), path).for_model(wanted.model)
