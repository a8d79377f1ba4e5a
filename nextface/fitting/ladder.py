"""Smaller copies of the photos at exact scales, on which the statistical stage works from coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nextface.fitting.observation import Observation
from nextface.fitting.outliers import unclipped
from nextface.rendering.camera import Camera, frames
from nextface.scene import Scene

# (share of the pixels per side, share of the iterations, weight of the landmarks); no finer than _FINEST pixels: the
# statistical model holds no detail beyond that. Landmarks lead at first and let the photo decide in the end.
_RUNGS = ((0.25, 0.3, 0.5), (0.5, 0.4, 0.1), (1.0, 0.3, 0.04))
_FINEST = 256
_COARSEST = 48
START = 0.5
"""Share of the pixels on which the light is first estimated."""


@dataclass
class Rung:
    """The photos of a batch, each at a scale of its own, in the upper left corner of a common grid.

    image:     mean over the part of each pixel that the photo shows, linear Rec.709. [B, h, w, 3]
    usable:    share of each pixel that the photo shows and that is not clipped. [B, h, w]
    scale:     pixels here per pixel of the crop, along both axes. [B]
    frame:     pixels that belong to each photo, as in `Camera`. [B, h, w] bool or None
    inlier, skin: what the stage finds out about each pixel. [B, h, w]
    landmarks: weight of the landmarks
    """

    image: Tensor
    usable: Tensor
    scale: Tensor
    frame: Tensor | None
    inlier: Tensor
    skin: Tensor | None = None
    landmarks: float = 1.0

    def camera(self, scene: Scene) -> Camera:
        """The scene's cameras on this grid."""
        height, width = self.image.shape[1:3]
        return Camera.of(scene).scaled(self.scale.to(scene.focal), height, width, self.frame)


def climb(observation: Observation, iterations: int) -> Iterator[tuple[int, Rung, bool]]:
    """Every iteration with its rung, and whether it is the rung's first."""
    number, share = 0, 0.0
    for pixels, length, landmarks in _RUNGS:
        share += length
        current = replace(rung(observation, pixels), landmarks=landmarks)
        first = True
        while number < round(iterations * share):
            yield number, current, first
            first = False
            number += 1


def rung(observation: Observation, share: float) -> Rung:
    """Each photo with `share` of the pixels per side of its finest copy.

    A photo's copy does not depend on the others of the batch. Its last row and column may stand out of the photo; such a
    pixel is the mean of what it covers, and counts by that share.
    """
    image, own = observation.image, observation.own_sizes()
    scales = [_scale(max(size), share) for size in own]
    sizes = tuple(
        (_length(height, scale), _length(width, scale)) for (height, width), scale in zip(own, scales, strict=True)
    )
    height, width = (max(size[side] for size in sizes) for side in (0, 1))
    scale = torch.tensor(scales, dtype=torch.float64)
    down, across = (
        _overlaps(torch.tensor([size[side] for size in own]), scale, image.shape[1 + side], length).to(image.device)
        for side, length in ((0, height), (1, width))
    )

    def shrink(images: Tensor) -> Tensor:
        """In double precision, so that how a product of matrices is summed up, which depends on their size, leaves no trace."""
        rows = (down @ images.double().flatten(2)).unflatten(2, images.shape[2:])
        return (across @ rows.transpose(1, 2).flatten(2)).unflatten(2, (height, images.shape[3])).transpose(1, 2)

    shown = observation.valid[..., None].to(image)
    usable = shown * unclipped(image)[..., None]
    mean = shrink(image * shown) / shrink(shown).clamp_min(1e-6)
    return Rung(
        image=mean.to(image).contiguous(),
        usable=shrink(usable)[..., 0].to(image).contiguous(),
        scale=scale.to(image),
        frame=frames(sizes, height, width, image.device),
        inlier=image.new_ones(len(own), height, width),
    )


def _scale(longest: int, share: float) -> float:
    return min(1.0, max(share * min(longest, _FINEST), _COARSEST) / longest)


def _length(length: int, scale: float) -> int:
    """Pixels that hold all of `length`."""
    return math.ceil(length * scale - 1e-6)


def _overlaps(lengths: Tensor, scale: Tensor, before: int, after: int) -> Tensor:
    """How much of each pixel along one side, in units of itself, each pixel of the crop covers. lengths of the photos, scale: [B]
    -> [B, after, before]"""
    old = torch.arange(before, dtype=torch.float64)
    new = torch.arange(after, dtype=torch.float64)[:, None]
    low, high = new / scale[:, None, None], ((new + 1.0) / scale[:, None, None]).minimum(lengths[:, None, None])
    return ((high.minimum(old + 1.0) - low.maximum(old)).clamp_min(0.0)) * scale[:, None, None]
