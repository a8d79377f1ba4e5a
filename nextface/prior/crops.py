"""Where the prior looks: square crops aligned by five points of a face, and which of their pixels count."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import roma
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, max_pool2d, pad

from nextface.errors import ConfigError, InputError
from nextface.morphable.model import MorphableModel
from nextface.rendering.camera import Camera
from nextface.rendering.sh import rotation_matrix
from nextface.scene import Scene

TEMPLATE = (
    (192.98138, 239.94708),
    (318.90277, 240.1936),
    (256.63416, 314.01935),
    (201.26117, 371.41043),
    (313.08905, 371.15118),
)
"""Place of the five points in FFHQ's alignment at 512 pixels: eye at the left of the image, eye at the right, tip of the nose,
corners of the mouth at the left and right of the image."""
TEMPLATE_SIZE = 512.0

WINDOWS = {"tight": (256.0, 286.0, 312.0), "ffhq": (256.0, 256.0, 512.0)}
"""Part of FFHQ's crop that each kind of crop shows: x and y of its centre, its side. "tight" reaches from the forehead to
below the chin: skin fills two thirds of it, of FFHQ's own crop a third at most."""
LAYOUTS = ("cylinder", "unwrap")
"""Pictures of a head that no photo can be cut to, since they need its shape (`nextface.prior.layouts`)."""

YAWS = (0.0, 42.0, -42.0)
"""The views of a head: frontal, from the subject's right, from its left; degrees by which it is turned towards the crop's right."""
DISTANCE_MM = 900.0
"""From the camera to the head in its views: a portrait's."""

EDGE = 1.0 / 32.0
"""Width of the band inside a mask's edge that does not count, as a share of the crop's side."""

HOLE = 1.0 / 8.0
"""Width up to which a hole in what is known is looked through, as a share of the crop's side."""

_POINTS = {
    "mediapipe": ((33, 133, 159, 145), (362, 263, 386, 374), (1,), (61,), (291,)),
    "ibug68": (tuple(range(36, 42)), tuple(range(42, 48)), (30,), (48,), (54,)),
}
_POINTS["fan"] = _POINTS["ibug68"]
"""A detector's points whose mean is each of the five."""


@dataclass(frozen=True)
class Similarity:
    """Pixels of an image to pixels of its crop: crop = matrix · image + offset; pixel centres at .5, x right, y down.

    matrix: scale times rotation, [B, 2, 2]; offset: [B, 2]
    """

    matrix: Tensor
    offset: Tensor

    @property
    def scale(self) -> Tensor:
        """Pixels of the crop per pixel of the image. [B]"""
        return self.matrix[:, 0].norm(dim=1)

    @property
    def angle(self) -> Tensor:
        """By which the image is turned clockwise, as it is seen. [B]"""
        return torch.atan2(self.matrix[:, 1, 0], self.matrix[:, 0, 0])

    def apply(self, points: Tensor) -> Tensor:
        """[B, N, 2] -> [B, N, 2]"""
        return points @ self.matrix.mT + self.offset[:, None]

    def inverse(self) -> Similarity:
        """Pixels of the crop to pixels of the image."""
        back = self.matrix.mT / self.scale.square()[:, None, None]
        return Similarity(back, -(back @ self.offset[..., None])[..., 0])


def five_points(points: Tensor, index: Tensor, convention: str) -> Tensor:
    """The points that crops are aligned by, from a detector's. `[B, 5, 2]`

    points: of a photo or of the projected model, [B, N, 2]; index: the detector's numbers of them, [N]. Raises InputError.
    """
    if convention not in _POINTS:
        raise InputError(
            f"crops cannot be aligned by {convention!r} landmarks: use one of {', '.join(sorted(_POINTS))}"
        )
    place = {number: row for row, number in enumerate(index.tolist())}
    absent = [number for group in _POINTS[convention] for number in group if number not in place]
    if absent:
        raise InputError(f"the {convention} landmarks lack the points {absent}, by which crops are aligned")
    shares = torch.zeros(len(TEMPLATE), len(index))
    for row, group in enumerate(_POINTS[convention]):
        shares[row, [place[number] for number in group]] = 1.0 / len(group)
    return shares.to(points) @ points


def alignment(points: Tensor, crop: str, size: int) -> Similarity:
    """The similarity that brings five points nearest to their places in a crop (least squares, Umeyama 1991).

    points: of `five_points`, [B, 5, 2]; crop: a name of WINDOWS; size: side of the crop, pixels. Raises ConfigError.
    """
    if crop in LAYOUTS:
        raise ConfigError(
            f"a photo cannot be cut to the layout {crop!r}, for which the head's shape must be known: such a prior serves "
            f"the maps stage (priorCheckpoint); for photos take one trained with crop = {' or '.join(WINDOWS)}"
        )
    if crop not in WINDOWS:
        raise ConfigError(f"there is no crop {crop!r}: choose one of {', '.join(sorted(WINDOWS))}")
    x, y, side = WINDOWS[crop]
    corner = points.new_tensor([x - side / 2.0, y - side / 2.0])
    target = (points.new_tensor(TEMPLATE) - corner) * (size / side)
    centre, middle = points.mean(1), target.mean(0)
    source, wanted = points - centre[:, None], target - middle
    along = (source * wanted).sum((1, 2))
    across = (source[..., 0] * wanted[:, 1] - source[..., 1] * wanted[:, 0]).sum(1)
    turn = torch.stack([along, -across, across, along], 1).unflatten(1, (2, 2))
    matrix = turn / source.square().sum((1, 2))[:, None, None]
    return Similarity(matrix, middle - (matrix @ centre[..., None])[..., 0])


def model_points(
    model: MorphableModel, vertices_camera: Tensor, camera: Camera, convention: str = "mediapipe"
) -> Tensor:
    """The five points of a head as a camera sees it, pixels. vertices_camera: [B, V, 3] -> [B, 5, 2]"""
    embedding = model.landmarks[convention]
    corners = vertices_camera[:, model.triangles[embedding.triangle[:, 0]]]
    places = (corners * embedding.barycentric[:, 0, :, None]).sum(2)
    return five_points(camera.project(places), embedding.index, convention)


def seen_in_crop(scene: Scene, crop: Similarity, size: int) -> Scene:
    """The same scene as its crops of `size` pixels see it: heads and lights are turned in the image, the camera follows.

    Maps are kept. The light is turned with the head, so that the crop shows what the photo shows there.
    """
    zero = torch.zeros_like(crop.angle)
    # Clockwise in the image is about −z of the view frame, +z of the camera.
    roll = roma.rotvec_to_rotmat(torch.stack([zero, zero, -crop.angle], -1))
    in_camera = roma.rotvec_to_rotmat(torch.stack([zero, zero, crop.angle], -1))
    back = rotation_matrix(roll.mT, scene.bands)
    return replace(
        scene,
        rotation=roma.rotmat_to_rotvec(roll @ scene.head_rotation()),
        translation=(in_camera @ scene.translation[..., None])[..., 0],
        focal=scene.focal * crop.scale,
        principal=crop.apply(scene.principal[:, None])[:, 0],
        light=back @ scene.light,
        height=size,
        width=size,
        sizes=(),
    )


def cut_out(images: Tensor, crop: Similarity, size: int) -> Tensor:
    """The crops of images, each pixel averaged over about the area that it covers. [B, C, H, W] -> [B, C, size, size]

    Beyond an image's border its edge goes on.
    """
    height, width = images.shape[-2:]
    finer = max(1, math.ceil(1.0 / float(crop.scale.min())))
    place = (torch.arange(size * finer, device=images.device, dtype=images.dtype) + 0.5) / finer
    row, column = torch.meshgrid(place, place, indexing="ij")
    points = crop.inverse().apply(torch.stack([column, row], -1).view(1, -1, 2).expand(len(images), -1, -1))
    where = points * (2.0 / points.new_tensor([width, height])) - 1.0
    grid = where.unflatten(1, (size * finer, size * finer))
    fine = grid_sample(images, grid, padding_mode="border", align_corners=False)
    return avg_pool2d(fine, finer)


def closed(mask: Tensor) -> Tensor:
    """A mask with its holes and cracks up to 1/8 of the crop wide filled: eyes, nostrils, specks. [B, 1, S, S], 0 or 1"""
    reach = max(1, round(mask.shape[-1] * HOLE / 2.0))
    grown = max_pool2d(pad(mask.float(), (reach,) * 4, mode="replicate"), 2 * reach + 1, 1)
    return 1.0 - max_pool2d(1.0 - grown, 2 * reach + 1, 1, reach)


def trusted(mask: Tensor) -> Tensor:
    """A mask less a band of `EDGE` of the crop inside its edge. Outside of the crop counts as covered. [B, 1, S, S] in 0..1"""
    reach = max(1, round(mask.shape[-1] * EDGE))
    return 1.0 - max_pool2d(1.0 - mask.float(), 2 * reach + 1, 1, reach)


def masked(crop: Tensor, mask: Tensor) -> Tensor:
    """An encoded crop with mid-grey outside its mask. crop: -1…1, [B, 3, S, S]; mask: 0..1, [B, 1, S, S]"""
    return crop * mask
