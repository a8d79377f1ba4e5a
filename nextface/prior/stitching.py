"""Crops of several views of a head become one set of complete skin maps without seams.

Views differ a little in tone, and each has its own edge. So their tones are matched where they overlap, and they are blended
level by level of a Laplacian pyramid: broadly what is coarse, narrowly what is fine (Burt and Adelson 1983). What no view shows
comes from maps that are known, in the tone of the skin beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from nextface.morphable.model import MorphableModel
from nextface.prior.answers import pixel_weight
from nextface.prior.views import CropViews
from nextface.rendering.bake import bake, fill
from nextface.textures import LaplacianTexture, channels, relief, resized, upsample

_FEATHER = 1.0 / 64.0
"""Width, as a share of the map's side, over which a view fades inside its edge."""
_CONFIDENT = 0.1
"""Mean weight of its pixels from which a texel is the views' alone."""
_DARKEST = 2e-3
"""Albedo below which ratios say nothing."""
_LOOSE = 1e-3
"""Weight on a view's change of tone itself, beside its overlaps."""
_CARRIED = 32
"""Side of the maps in which the tone of shown skin is carried on to the rest."""


@dataclass(frozen=True)
class Stitched:
    """maps: linear, channels as `MAP_CHANNELS`, [R, R, 7]; shown: how far each texel is from the crops, 0…1, [R, R, 1]"""

    maps: Tensor
    shown: Tensor


def stitch(crops: Tensor, views: CropViews, model: MorphableModel, known: Tensor) -> Stitched:
    """Complete maps from crops of them.

    crops: linear, channels as `MAP_CHANNELS`, what is off the head does not count, [N, 7, S, S]; views: where they look;
    known: maps that fill what skin the crops do not show, [R, R, 7] with R = `views.resolution`. Slopes lose what is coarser
    than `RELIEF_FROM`.
    """
    tones, below = _toned(crops.movedim(1, -1)).movedim(-1, 1), _toned(known)
    parts = [_of_view(row, tones, views, model) for row in range(views.count)]
    maps, weights = torch.stack([part for part, _ in parts]), torch.stack([weight for _, weight in parts])
    blended = _blended(_matched(maps, weights), weights)
    shown = (weights.sum(0) / _CONFIDENT).clamp_max(1.0)
    carried = _carried(blended - below, shown, model)
    mixed = below + torch.lerp(carried, blended - below, shown)
    mixed[..., channels()["normal"]] = _relief(mixed[..., channels()["normal"]])
    return Stitched(_as_maps(mixed), shown)


def _toned(maps: Tensor) -> Tensor:
    """With the logarithm of the albedo: tones differ by factors. [..., 7]"""
    toned = maps.clone()
    toned[..., channels()["diffuse"]] = maps[..., channels()["diffuse"]].clamp_min(_DARKEST).log()
    return toned


def _as_maps(toned: Tensor) -> Tensor:
    """The inverse of `_toned`, in range. [..., 7]"""
    maps = toned.clone()
    maps[..., channels()["diffuse"]] = toned[..., channels()["diffuse"]].exp()
    slopes = channels()["normal"].start
    maps[..., :slopes] = maps[..., :slopes].clamp(0.0, 1.0)
    return maps


def _relief(slopes: Tensor) -> Tensor:
    """Slopes less what is coarser than relief: what crops say of that is their networks' error about the mesh. [R, R, 2]"""
    return LaplacianTexture(relief(LaplacianTexture.from_image(slopes[None]).levels)).full()[0]


def _of_view(row: int, crops: Tensor, views: CropViews, model: MorphableModel) -> tuple[Tensor, Tensor]:
    """What view `row` says of the maps, continued beyond what it shows, and how far it counts. [R, R, 7], [R, R, 1]"""
    alone = torch.zeros_like(views.facing)
    alone[row] = pixel_weight(views, model, views.covered)[row]
    maps, weight = views.maps(crops, alone)
    inside = (weight > 0.0).to(weight)
    reach = max(1, round(views.resolution * _FEATHER))
    near = avg_pool2d(inside.permute(2, 0, 1), 2 * reach + 1, 1, reach).permute(1, 2, 0)
    faded = weight * (2.0 * near - 1.0).clamp_min(0.0)
    return fill(maps[None], inside[None])[0], faded


def _matched(maps: Tensor, weights: Tensor) -> Tensor:
    """Views with a constant added to each channel, so that they agree where they overlap (least squares). Slopes are left.

    maps: [N, R, R, 7]; weights: [N, R, R, 1]
    """
    count, last = len(maps), channels()["normal"].start
    own = weights.sum((1, 2, 3))
    system = torch.diag(_LOOSE * own + 1e-9)
    right = maps.new_zeros(count, last)
    for one in range(count):
        for two in range(one + 1, count):
            both = torch.minimum(weights[one], weights[two])
            apart = (both * (maps[two] - maps[one])[..., :last]).sum((0, 1))
            share = both.sum()
            system[one, one] += share
            system[two, two] += share
            system[one, two] -= share
            system[two, one] -= share
            right[one] += apart
            right[two] -= apart
    change = torch.linalg.solve(system, right)
    matched = maps.clone()
    matched[..., :last] += change[:, None, None]
    return matched


def _blended(maps: Tensor, weights: Tensor) -> Tensor:
    """maps: complete, [N, R, R, C]; weights: [N, R, R, 1] -> [R, R, C]"""
    total = weights.sum(0, keepdim=True)
    anywhere = (total > 0.0).to(total)
    shares = fill(weights / total.clamp_min(1e-12), anywhere)
    levels = [
        (level * resized(shares, level.shape[1])).sum(0, keepdim=True)
        for level in LaplacianTexture.from_image(maps).levels
    ]
    return LaplacianTexture(levels).full()[0]


def _carried(change: Tensor, shown: Tensor, model: MorphableModel) -> Tensor:
    """A change of tone on shown skin, smoothly continued over the rest of the skin. [R, R, 7], [R, R, 1] -> [R, R, 7]"""
    size = len(shown)
    side = min(_CARRIED, size)
    share = resized(shown[None], side)
    coarse = resized((change * shown)[None], side) / share.clamp_min(1e-6)
    carried = upsample(fill(coarse, share), size)[0]
    carried = carried * (1.0 - bake(model.apart_from_skin()[None], model, size)[0])
    carried[..., channels()["normal"]] = 0.0
    return carried
