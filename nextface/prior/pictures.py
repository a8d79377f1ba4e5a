"""Image files to crops as the prior's networks see them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from nextface.errors import InputError
from nextface.photo.source import SourcePhoto, load_image
from nextface.prior.crops import Similarity, alignment, cut_out, masked
from nextface.prior.encoding import CHANNELS, Encoding

_COLOURED = ("shared", "diffuse")


def read_crop(path: Path, domain: str, encoding: Encoding) -> Tensor:
    """An aligned crop, resized, as the networks see it. [1, 3, S, S] in -1…1

    Colours are read through the file's profile; specular, roughness and normals (0.5 + 0.5·n) are values as stored, 8 or 16
    bit or floating. Raises InputError.
    """
    photo = load_image(path)
    if photo.height != photo.width:
        raise InputError(f"{path}: {photo.width} x {photo.height} pixels; crops that are aligned must be square")
    image, size = _window(photo, domain, (0, photo.height, 0, photo.width)), encoding.image_size
    if image.shape[-1] != size:
        image = interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=True)
    return encoding.encode(domain, image)


def cut_crop(photo: SourcePhoto, points: Tensor, domain: str, encoding: Encoding) -> Tensor:
    """The crop of a face, as the networks see it; mid-grey beyond the frame and where it is transparent. [1, 3, S, S]

    points: of `crops.five_points` in pixels of the frame, [1, 5, 2]
    """
    size = encoding.image_size
    crop = alignment(points.double(), encoding.crop, size)
    corners = points.new_tensor([[[0, 0], [size, 0], [0, size], [size, size]]]).double()
    placed = crop.inverse().apply(corners)[0]
    (left, top), (right, bottom) = placed.amin(0).floor().tolist(), placed.amax(0).ceil().tolist()
    margin = math.ceil(1.0 / float(crop.scale))  # a pixel of the crop
    low, high = max(0, int(top) - margin), min(photo.height, int(bottom) + margin)
    first, last = max(0, int(left) - margin), min(photo.width, int(right) + margin)
    if low >= high or first >= last:
        raise InputError(f"{photo.path}: the face lies outside of the picture; check its landmarks")
    shown = torch.from_numpy(photo.opaque[low:high, first:last].astype(np.float32))[None, None]
    corner = crop.matrix.new_tensor([[[first, low]]])
    moved = Similarity(crop.matrix.float(), crop.apply(corner)[:, 0].float())
    return seen_crop(_window(photo, domain, (low, high, first, last)), shown, moved, domain, encoding)


def seen_crop(image: Tensor, shown: Tensor, crop: Similarity, domain: str, encoding: Encoding) -> Tensor:
    """The crop of a linear picture; mid-grey beyond its border and where it shows nothing. [1, 3, S, S]

    image: [1, C, H, W], C = CHANNELS[domain]; shown: 1 or 0, [1, 1, H, W]; crop: of pixels of `image`
    """
    framed = pad(torch.cat([image * shown, shown], 1), (1, 1, 1, 1))
    moved = Similarity(crop.matrix, crop.apply(crop.matrix.new_full((1, 1, 2), -1.0))[:, 0])
    cut = cut_out(framed, moved, encoding.image_size)
    share = cut[:, -1:]
    return masked(encoding.encode(domain, cut[:, :-1] / share.clamp_min(1e-3)), (share > 0.5).to(share))


def _window(photo: SourcePhoto, domain: str, window: tuple[int, int, int, int]) -> Tensor:
    """Linear values of a part of a picture: first and last row, first and last column. [1, C, h, w], C = CHANNELS[domain]"""
    top, bottom, left, right = window
    if domain in _COLOURED:
        values = photo.linear(top, bottom, left, right)
    else:
        stored = photo.stored[top:bottom, left:right]
        full = np.iinfo(stored.dtype).max if stored.dtype.kind == "u" else 1.0
        values = stored.astype(np.float32) / np.float32(full)
    image = torch.from_numpy(np.ascontiguousarray(values, np.float32)).movedim(-1, 0)[None]
    if domain == "normal":
        image = 2.0 * image - 1.0
    return image.mean(1, keepdim=True) if CHANNELS[domain] == 1 else image
