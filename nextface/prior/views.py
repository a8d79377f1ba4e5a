"""Skin maps seen in aligned crops of their head, and crops brought back to maps.

The crops are those that the prior was trained on: the head turned to the front and to both sides, before a camera at the
distance of a portrait, or its surface laid out in one picture. All of it is linear in the maps, and fixed once the head's shape is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nextface.errors import InputError
from nextface.morphable.model import MorphableModel
from nextface.prior.crops import DISTANCE_MM, LAYOUTS, YAWS, alignment, model_points, seen_in_crop
from nextface.prior.encoding import Encoding, slopes
from nextface.prior.layouts import Placed, laid_out
from nextface.prior.resampler import Resampler
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import Fragments, interpolate
from nextface.rendering.tangents import PixelFrames
from nextface.rendering.texture import taps
from nextface.scene import Scene
from nextface.textures import COARSEST, channels

_SAMPLES = 3
"""Rays along each side of a crop's pixel."""
_STEADY = 4.0
"""Spread of a pixel's texels, in texels, from which it does not show one place. Head-on it is about 1."""


@dataclass(frozen=True)
class CropViews:
    """N square crops of one head of S pixels a side.

    size:       S
    resolution: R of the maps that the crops are drawn from; their texels are about as large as a crop's pixels or smaller
    pixels:     the crops' covered pixels, by the head that their centres see
    frames:     of the mesh at them, model axes
    facing:     `Placed.facing`: cosine to the viewer, or how little the surface is squeezed; 0 where nothing is covered. [N, 1, S, S]
    steady:     1 where a pixel sees one place of the map, 0 where it mixes what an edge hides with what it shows. [N, 1, S, S]
    resampler:  maps [R², C] to crops [N·S², C]; rows of covered pixels sum to 1, others are 0
    """

    size: int
    resolution: int
    pixels: Fragments
    frames: PixelFrames
    facing: Tensor
    steady: Tensor
    resampler: Resampler

    @classmethod
    def of(cls, scene: Scene, model: MorphableModel, crop: str, size: int, yaws: tuple[float, ...] = YAWS) -> CropViews:
        """The views of one scene's head, with its expression.

        crop: a name of `crops.WINDOWS` or `crops.LAYOUTS`; yaws: degrees by which the head is turned towards the right of the crop,
        of no meaning to a layout, which has one view. A pixel is the mean over its covered part of the map, looked up bilinearly.
        Raises InputError.
        """
        with torch.no_grad():
            if crop in LAYOUTS:
                placed = laid_out(crop, scene.vertices_model(model), model, size)
            else:
                placed = Placed.of(crop_scenes(scene, model, crop, size, yaws), model)
            count, resolution = len(placed.vertices), map_resolution(size)
            covered = placed.seen(model)
            frames = placed.frames(covered, model)
            facing = placed.facing(covered, frames)
            entries = [_rays(number, placed, model, resolution) for number in range(count)]
            row, texel, weight = (torch.cat(part) for part in zip(*entries, strict=True))
            shape = (count * size * size, resolution * resolution)
            resampler = Resampler.averaging(row, texel, weight, shape)
            steady = (_spread(resampler, resolution) < _STEADY).float()
            return cls(
                size=size,
                resolution=resolution,
                pixels=covered,
                frames=frames,
                facing=_channels_first(covered.pixels.unpack(facing)),
                steady=steady.view(count, 1, size, size),
                resampler=resampler,
            )

    @property
    def count(self) -> int:
        """N"""
        return len(self.facing)

    @property
    def covered(self) -> Tensor:
        """1 where the crops show the head, 0 elsewhere. [N, 1, S, S]"""
        return _channels_first(self.pixels.pixels.unpack(self.facing.new_ones(len(self.pixels), 1)))

    def draw(self, attributes: Tensor) -> Tensor:
        """Crops of values at the vertices. `[V, C] -> [N, C, S, S]`"""
        return _channels_first(self.pixels.pixels.unpack(self.pixels.interpolate(attributes[None])))

    def crops(self, maps: Tensor) -> Tensor:
        """Crops of maps, 0 where nothing is covered; differentiable. `[R, R, C] -> [N, C, S, S]`"""
        flat = self.resampler.apply(maps.flatten(0, 1))
        return _channels_first(flat.unflatten(0, (-1, self.size, self.size)))

    def adjoint(self, crops: Tensor) -> Tensor:
        """The transpose of `crops`. `[N, C, S, S] -> [R, R, C]`"""
        flat = crops.movedim(1, -1).flatten(0, 2)
        return self.resampler.adjoint(flat).unflatten(0, (self.resolution, self.resolution))

    def maps(self, crops: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Maps whose texels are weighted means over the pixels of all crops that show them, and the mean weight of those pixels.

        Texels that no pixel of positive weight shows are 0 in both.
        crops: [N, C, S, S]; weight: [N, 1, S, S] -> [R, R, C], [R, R, 1]
        """
        sums = self.adjoint(torch.cat([crops * weight, weight, torch.ones_like(weight)], 1))
        values, weights, pixels = sums[..., :-2], sums[..., -2:-1], sums[..., -1:]
        known = weights > _LEAST
        return (values / weights.clamp_min(_LEAST)) * known, (weights / pixels.clamp_min(_LEAST)) * known

    def normals(self, bends: Tensor) -> Tensor:
        """Unit normals, model axes, of tangent-space slopes; 0 where nothing is covered. `[N, 2, S, S] -> [N, 3, S, S]`"""
        pixels = self.pixels.pixels
        return _channels_first(pixels.unpack(self.frames.bend(pixels.pack(bends.movedim(1, -1)))))

    def slopes(self, normals: Tensor) -> Tensor:
        """The inverse of `normals`: what is left without the mesh's own. `[N, 3, S, S] -> [N, 2, S, S]`"""
        pixels = self.pixels.pixels
        return _channels_first(pixels.unpack(slopes(pixels.pack(normals.movedim(1, -1)), self.frames)))

    def encoded(self, encoding: Encoding, domain: str, crops: Tensor) -> Tensor:
        """One domain of crops of the maps as networks see it, whatever off the head. [N, 7, S, S] -> [N, 3, S, S] in -1…1"""
        values = crops[:, channels()[domain]]
        return encoding.encode(domain, self.normals(values) if domain == "normal" else values)

    def decoded(self, encoding: Encoding, domain: str, encoded: Tensor) -> Tensor:
        """The inverse of `encoded`. [N, 3, S, S] -> [N, C, S, S]"""
        values = encoding.decode(domain, encoded)
        return self.slopes(values) if domain == "normal" else values


_LEAST = 1e-6
"""Weight, in pixels of a crop, below which a texel counts as not shown."""


def map_resolution(size: int) -> int:
    """Side of the maps that crops of `size` pixels are drawn from: a power of two of at least twice as many texels.

    A face takes about half of the unwrap's width, so that a texel is about as large as a pixel that sees the skin head-on.
    """
    return COARSEST * 2 ** max(0, math.ceil(math.log2(2 * size / COARSEST)))


def crop_scenes(scene: Scene, model: MorphableModel, crop: str, size: int, yaws: tuple[float, ...]) -> Scene:
    """The head of one scene once per view, each as its crop sees it; without its maps. The parameters are those of `CropViews.of`."""
    count = len(yaws)
    turns = torch.tensor([[0.0, math.radians(yaw), 0.0] for yaw in yaws]).to(scene.rotation)
    place = scene.translation.new_tensor([[0.0, 0.0, DISTANCE_MM]])
    turned = replace(
        scene,
        expression=scene.expression.expand(count, -1),
        rotation=turns,
        translation=place.expand(count, -1),
        focal=place.new_full((count,), DISTANCE_MM),  # one pixel per millimetre
        principal=place.new_zeros(count, 2),
        light=scene.light.expand(count, -1, -1),
        exposure=scene.exposure.expand(count),
        white_balance=scene.white_balance.expand(count, -1),
        height=1,
        width=1,
        maps=None,
        sizes=(),
    )
    points = head_points(model, turned.vertices_camera(model), Camera.of(turned))
    return seen_in_crop(turned, alignment(points, crop, size), size)


def head_points(model: MorphableModel, vertices: Tensor, camera: Camera) -> Tensor:
    """The points that crops are aligned by, from the landmarks of the training where the model has them. [N, 5, 2]"""
    reason = "it has no landmarks"
    for convention in sorted(model.landmarks, key=lambda name: (name != "mediapipe", name)):
        try:
            return model_points(model, vertices, camera, convention)
        except InputError as error:
            reason = str(error)
    raise InputError(f"the model {model.name!r} has no points by which crops are aligned: {reason}")


def _rays(number: int, placed: Placed, model: MorphableModel, resolution: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the rays through the pixels of view `number` look up: row of the pixel, texel and weight, four of each a ray."""
    found, size = placed.rays(number, _SAMPLES, model), placed.camera.height
    rays = found.pixels
    uv = interpolate(model.uv[None], rays.image, model.uv_triangles[rays.triangle], found.barycentric)
    texel, across, down = taps(uv, resolution)
    row = (number * size + rays.row // _SAMPLES) * size + rays.column // _SAMPLES
    corners = (
        (texel, (1.0 - down) * (1.0 - across)),
        (texel + 1, (1.0 - down) * across),
        (texel + resolution, down * (1.0 - across)),
        (texel + resolution + 1, down * across),
    )
    return row.repeat(4), torch.cat([place for place, _ in corners]), torch.cat([share for _, share in corners])


def _spread(resampler: Resampler, resolution: int) -> Tensor:
    """Standard deviation of the places of the texels in each row, in texels. [rows]"""
    across = torch.arange(resolution, device=resampler.device) / resolution
    x, y = across.expand(resolution, -1).flatten(), across[:, None].expand(-1, resolution).flatten()
    mean_x, mean_y, squares = resampler.apply(torch.stack([x, y, x.square() + y.square()], 1)).unbind(1)
    return (squares - mean_x.square() - mean_y.square()).clamp_min(0.0).sqrt() * resolution


def _channels_first(images: Tensor) -> Tensor:
    return images.movedim(-1, 1)
