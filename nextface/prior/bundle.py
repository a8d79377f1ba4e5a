"""A whole prior in one file: the fused network with its swap blocks, an encoder of identities, and heads to swap into.

The file is a checkpoint of the network (safetensors) that holds more: keys that begin with `denoiser.`, `identity.` and
`templates.`, and in its metadata the weights of the domains and the card. Numbers are stored in half precision and become single when they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nextface.errors import InputError, OutputError
from nextface.prior.checkpoint import COMPUTED, put_weights, save_tensors
from nextface.prior.encoding import Encoding
from nextface.prior.identity import IdentityEncoder
from nextface.prior.projection import PUBLISHED_ENCODING, Projection
from nextface.prior.templates import Templates
from nextface.prior.train.sizes import DENOISER, PRESETS, Checkpoint, build

LIMIT = 16_000_000
"""Bytes that a file may have."""
_IDENTITY = "identity."
_HEADER = 150
"""Bytes, at most, that a tensor takes in a file's header."""


@dataclass(frozen=True)
class Bundle:
    """projection: the network that crops pass; a swapper where the file holds one
    identity:   says whose face a crop shows; None where there is none
    faces:      how faces are cut and encoded for `identity`
    templates:  None where the file has none. With an encoder of the user's they have no embeddings yet: call `with_encoder`
    """

    projection: Projection
    identity: IdentityEncoder | None
    faces: Encoding
    templates: Templates | None

    @classmethod
    def read(cls, path: Path, device: torch.device, identity_checkpoint: Path | None = None) -> Bundle:
        """From a bundle or any checkpoint of `projection.NETWORKS`.

        identity_checkpoint: of another encoder than the file's own, ours or with the keys of ArcFace's IResNet-100, which is
        shown FFHQ's crops. Raises InputError, ConfigError.
        """
        checkpoint = Checkpoint.read(path)
        projection = Projection.of(checkpoint, device)
        told = checkpoint.notes.get("templates")
        name = str(told.get("model", "")) if isinstance(told, dict) else ""
        templates = Templates.of_tensors(checkpoint.beside, name, path)
        if identity_checkpoint is None:
            encoder, faces = _own_encoder(checkpoint, templates), projection.encoding
        else:
            encoder, faces = _read_encoder(identity_checkpoint)
            templates = None if templates is None else replace(templates, embeddings=templates.embeddings[:, :0])
        if encoder is not None:
            encoder = encoder.to(device).eval().requires_grad_(False)
        return cls(projection, encoder, faces, None if templates is None else templates.to(device))


def save_bundle(
    path: Path,
    swapper: Checkpoint,
    denoise: Checkpoint,
    identity: Checkpoint,
    templates: Templates,
    weights: Mapping[str, float],
    card: Mapping[str, Any],
) -> None:
    """Write a bundle. denoise: of the same network as the swapper; weights: of the domains, 0…1; card: JSON values.

    Raises InputError where parts do not fit, OutputError where the file would be too large or cannot be written.
    """
    swapper.demand(("FusedSwapper",))
    identity.demand(("IdentityEncoder",))
    own, other = swapper.sizes or PRESETS["published"], identity.sizes or PRESETS["published"]
    given, wanted = other.identity.embedding_channels, own.swap.identity_channels
    if not given == wanted == templates.embeddings.shape[1]:
        raise InputError(
            f"{identity.path}: describes a face by {given} numbers, the swapper in {swapper.path} was trained on {wanted}, the "
            f"templates have {templates.embeddings.shape[1]}; pack what was trained together"
        )
    if any(not torch.equal(each, swapper.weights[key]) for key, each in denoise.weights.items()):
        raise InputError(
            f"{denoise.path}: cleans for another network than that of {swapper.path}; train both from one file"
        )
    denoiser = {key: each for key, each in denoise.beside.items() if key.startswith(DENOISER)}
    tensors = swapper.weights | denoiser | {_IDENTITY + key: each for key, each in identity.weights.items()}
    halves = {
        key: _half(key, each) for key, each in tensors.items() if not key.endswith(COMPUTED)
    } | templates.tensors()
    size = sum(each.nbytes + _HEADER for each in halves.values())
    if size > LIMIT:
        raise OutputError(
            f"{path}: the prior would take {size / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f} MB; pack smaller networks or fewer "
            "templates"
        )
    notes = {
        "network": swapper.network,
        "sizes": replace(own, identity=other.identity).notes(),
        "encoding": denoise.notes.get("encoding", {}),
        "weights": dict(weights),
        "templates": {"model": templates.model},
        "card": dict(card),
    }
    save_tensors(halves, path, notes)


def _half(key: str, values: Tensor) -> Tensor:
    if not values.is_floating_point():
        return values
    half = values.half()
    if not torch.isfinite(half).all():
        raise InputError(
            f"the weights {key} cannot be stored in half precision; train the network again with lower rates"
        )
    return half


def _own_encoder(checkpoint: Checkpoint, templates: Templates | None) -> IdentityEncoder | None:
    weights = {
        key.removeprefix(_IDENTITY): each for key, each in checkpoint.beside.items() if key.startswith(_IDENTITY)
    }
    if not weights:
        return None
    encoder = cast(IdentityEncoder, build("IdentityEncoder", checkpoint.sizes or PRESETS["published"]))
    put_weights(encoder, weights, checkpoint.path)
    length = encoder.settings.embedding_channels
    if templates is not None and templates.embeddings.shape[1] != length:
        raise InputError(
            f"{checkpoint.path}: its templates are described by {templates.embeddings.shape[1]} numbers, but its identity "
            f"encoder gives {length}; pack the file again"
        )
    return encoder


def _read_encoder(path: Path) -> tuple[IdentityEncoder, Encoding]:
    checkpoint = Checkpoint.read(path)
    encoder = cast(IdentityEncoder, checkpoint.build(("IdentityEncoder",), PRESETS["published"]))
    notes = checkpoint.notes.get("encoding")
    return encoder, Encoding.from_notes(notes) if isinstance(notes, dict) else PUBLISHED_ENCODING
