"""A toy head that crops can be aligned on, and priors for it: one of random weights, one whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from toy_prior import TOY, TOY_FUSION, TOY_IDENTITY, TOY_SWAP

from nextface.morphable.model import LandmarkEmbedding, MorphableModel
from nextface.prior.autoencoder import VQAutoencoder
from nextface.prior.checkpoint import save_weights
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import FusedAutoencoder
from nextface.prior.train.sizes import Sizes

SIZE = TOY.image_size
ENCODING = Encoding(image_size=SIZE, norm_groups=TOY.norm_groups)
SIZES = Sizes(TOY, TOY_FUSION, TOY_SWAP, TOY_IDENTITY)
_FACE = {
    (36, 37, 38, 39, 40, 41): (-31, 10),
    (42, 43, 44, 45, 46, 47): (31, 10),
    (30,): (0, -12),
    (48,): (-24, -48),
    (54,): (24, -48),
}
"""iBUG's points of eyes, nose and mouth: x and y on the toy head, mm."""


def with_face_points(toy: MorphableModel) -> MorphableModel:
    """The toy head with the points that crops are aligned by, in iBUG's convention."""
    corners = toy.mean[toy.triangles]
    centres = corners.mean(1)
    index, triangle = [], []
    for numbers, place in _FACE.items():
        off = (centres[:, :2] - torch.tensor(place)).square().sum(1) + 1e6 * (centres[:, 2] < 0)
        index += numbers
        triangle += [int(off.argmin())] * len(numbers)
    count = len(index)
    embedding = LandmarkEmbedding(
        index=torch.tensor(index),
        triangle=torch.tensor(triangle)[:, None],
        barycentric=torch.full((count, 1, 3), 1.0 / 3.0),
        count=torch.ones(count, dtype=torch.int64),
        weight=torch.ones(count),
    )
    return replace(toy, landmarks={**toy.landmarks, "ibug68": embedding})


def save_random_prior(path: Path, encoding: Encoding = ENCODING) -> Path:
    """A fused network of random weights."""
    torch.manual_seed(5)
    return _saved(FusedAutoencoder(SIZES.autoencoder, SIZES.fusion), path, encoding)


def save_constant_prior(path: Path, value: float, encoding: Encoding = ENCODING, **notes: object) -> Path:
    """A network that answers `value` whatever it is asked. notes: more of its metadata"""
    torch.manual_seed(6)
    net = VQAutoencoder(SIZES.autoencoder)
    last = net.generator.blocks[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, value)
    return _saved(net, path, encoding, **notes)


def _saved(net: torch.nn.Module, path: Path, encoding: Encoding, **notes: object) -> Path:
    save_weights(net, path, {"sizes": SIZES.notes(), "encoding": encoding.notes(), **notes})
    return path
