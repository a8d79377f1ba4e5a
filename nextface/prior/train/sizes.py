"""Sizes of all networks of a prior, and of which kind the networks in a checkpoint are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nextface.errors import ConfigError, InputError
from nextface.prior.autoencoder import VQAutoencoder
from nextface.prior.checkpoint import put_weights, read_notes, read_weights
from nextface.prior.fusion import FusedAutoencoder
from nextface.prior.identity import IdentityEncoder
from nextface.prior.settings import (
    SMALL_AUTOENCODER,
    SMALL_FUSION,
    SMALL_IDENTITY,
    SMALL_SWAP,
    AutoencoderSettings,
    FusionSettings,
    IdentitySettings,
    SwapSettings,
)
from nextface.prior.swapper import FusedSwapper, Swapper


@dataclass(frozen=True)
class Sizes:
    """patch_width, patch_layers: of the patch discriminator"""

    autoencoder: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    fusion: FusionSettings = field(default_factory=FusionSettings)
    swap: SwapSettings = field(default_factory=SwapSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    patch_width: int = 64
    patch_layers: int = 4

    def notes(self) -> dict[str, Any]:
        """As JSON values."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_notes(cls, notes: Mapping[str, Any], source: Path | str) -> Sizes:
        """From what `notes` gave; what is left out has the published size. `source` names them in errors.

        Raises ConfigError.
        """
        kinds = {each.name: type(getattr(_PUBLISHED, each.name)) for each in fields(cls)}
        try:
            unknown = sorted(set(notes) - set(kinds))
            if unknown:
                raise TypeError(f"unknown: {', '.join(unknown)}")
            return cls(**{name: _built(kinds[name], value) for name, value in notes.items()})
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{source}: these are not sizes of networks ({error}); docs/prior_training.md shows the file"
            ) from error


_PUBLISHED = Sizes()
SMALL = Sizes(SMALL_AUTOENCODER, SMALL_FUSION, SMALL_SWAP, SMALL_IDENTITY, patch_width=32)
PRESETS = {"small": SMALL, "published": _PUBLISHED}


def read_sizes(name: str) -> Sizes:
    """Sizes by their name in PRESETS, or from a JSON file. Raises ConfigError."""
    if name in PRESETS:
        return PRESETS[name]
    try:
        notes = json.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"sizes = {name}: neither one of {', '.join(PRESETS)} nor a readable JSON file ({error})"
        ) from error
    if not isinstance(notes, dict):
        raise ConfigError(f"sizes = {name}: the file holds no JSON object")
    return Sizes.from_notes(notes, name)


DENOISER = "denoiser."
BESIDE = (DENOISER, "identity.", "templates.")
"""Beginnings of the keys that a file may have beside those of its network: of the stage denoise, and of a whole prior
(`nextface.prior.bundle`)."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one network in a file.

    network: name of its class, a key of NETWORKS
    sizes:   that the file was made with; None in files of other origin
    notes:   metadata, empty in files of other origin
    beside:  what else the file holds, by keys that begin with one of BESIDE
    """

    path: Path
    weights: dict[str, Tensor]
    network: str
    sizes: Sizes | None
    notes: dict[str, Any]
    beside: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Raises InputError."""
        content, notes = read_weights(path), dict(read_notes(path))
        beside = {key: each for key, each in content.items() if key.startswith(BESIDE)}
        weights = {key: each for key, each in content.items() if key not in beside}
        told = notes.get("sizes")
        sizes = Sizes.from_notes(told, path) if isinstance(told, dict) else None
        return cls(path, weights, _kind(path, weights), sizes, notes, beside)

    def build(self, kinds: tuple[str, ...], fallback: Sizes) -> nn.Module:
        """The network with its weights.

        kinds: names that are welcome; fallback: sizes of a file that does not tell its own. Raises InputError.
        """
        self.demand(kinds)
        net = build(self.network, self.sizes or fallback)
        put_weights(net, self.weights, self.path)
        return net

    def demand(self, kinds: tuple[str, ...]) -> None:
        """Raise InputError unless the network is of one of these kinds."""
        if self.network not in kinds:
            raise InputError(f"{self.path}: holds a {self.network}, but a {' or '.join(kinds)} is needed here")


NETWORKS: dict[str, type[nn.Module]] = {
    each.__name__: each for each in (VQAutoencoder, FusedAutoencoder, Swapper, FusedSwapper, IdentityEncoder)
}


def build(network: str, sizes: Sizes) -> nn.Module:
    """A network by the name of its class, with random weights."""
    if network == "IdentityEncoder":
        return IdentityEncoder(sizes.identity)
    if network == "FusedSwapper":
        return FusedSwapper(sizes.autoencoder, sizes.fusion, sizes.swap)
    if network == "Swapper":
        return Swapper(sizes.autoencoder, sizes.swap)
    if network == "FusedAutoencoder":
        return FusedAutoencoder(sizes.autoencoder, sizes.fusion)
    return VQAutoencoder(sizes.autoencoder)


def _kind(path: Path, weights: Mapping[str, Tensor]) -> str:
    """The network that weights belong to, by their keys. Raises InputError."""
    parts = {key.partition(".")[0] for key in weights}
    if {"encoder", "generator"} <= parts:
        fused, swaps = "fusion" in parts, "fuse_convs_dict" in parts
        return ("FusedSwapper" if fused else "Swapper") if swaps else ("FusedAutoencoder" if fused else "VQAutoencoder")
    if {"conv1", "features"} <= parts:
        return "IdentityEncoder"
    raise InputError(
        f"{path}: holds no network of the prior; give a checkpoint that train-prior or the public code wrote"
    )


def _built(kind: type, value: Any) -> Any:
    if kind is int:
        if type(value) is not int:
            raise TypeError(f"{value!r} is not a whole number")
        return value
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return kind(**{name: tuple(each) if isinstance(each, list) else each for name, each in value.items()})
