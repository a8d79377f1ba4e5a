"""A whole prior of toy size, with heads of a given model to swap into: its networks are random, its maps are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from known_prior import ENCODING, SIZES
from torch import Tensor

from nextface.morphable.model import MorphableModel
from nextface.prior.bundle import save_bundle
from nextface.prior.checkpoint import save_weights
from nextface.prior.settings import IdentitySettings, SwapSettings
from nextface.prior.templates import Templates
from nextface.prior.train.sizes import Checkpoint, Sizes, build

CHANNELS = 5
BUNDLE_SIZES = replace(
    SIZES,
    swap=SwapSettings(identity_channels=CHANNELS, sizes=(16, 32)),
    identity=IdentitySettings(image_size=28, widths=(4, 6), blocks=(2, 1), embedding_channels=CHANNELS),
)
TONES = (0.6, 0.3, 0.1)
RESOLUTION = 64


def known_maps() -> Tensor:
    """Of one head for each of TONES: one value per channel, from light to dark. [3, R, R, 7]"""
    rows = [[tone, 0.7 * tone, 0.5 * tone, 0.4 + tone / 2, 0.3 + tone / 2, 0.0, 0.0] for tone in TONES]
    return torch.tensor(rows)[:, None, None].expand(-1, RESOLUTION, RESOLUTION, -1).contiguous()


def save_network(path: Path, network: str, sizes: Sizes = BUNDLE_SIZES, seed: int = 7) -> Path:
    """A checkpoint of random weights."""
    torch.manual_seed(seed)
    notes = {"network": network, "sizes": sizes.notes(), "encoding": ENCODING.notes()}
    save_weights(build(network, sizes), path, notes)
    return path


def save_known_bundle(folder: Path, model: MorphableModel) -> Path:
    """A file with heads of `model`, described by unit vectors along one axis each."""
    swapper = save_network(folder / "swapper.safetensors", "FusedSwapper")
    identity = save_network(folder / "identity.safetensors", "IdentityEncoder")
    shape = torch.zeros(len(TONES), len(model.shape_basis))
    heads = replace(Templates.of_maps(model, shape, known_maps()), embeddings=torch.eye(len(TONES), CHANNELS))
    path = folder / "bundle.safetensors"
    read = Checkpoint.read(swapper)
    save_bundle(path, read, read, Checkpoint.read(identity), heads, {}, {})  # without a denoiser
    return path
