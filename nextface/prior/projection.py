"""A trained prior as a function: crops as they are to crops as it knows them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor

from nextface.errors import InputError
from nextface.prior.autoencoder import CodebookNet, Encoder
from nextface.prior.checkpoint import put_weights
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS, FusedNet
from nextface.prior.train.sizes import DENOISER, PRESETS, Checkpoint
from nextface.textures import MAP_CHANNELS

NETWORKS = ("FusedAutoencoder", "FusedSwapper", "VQAutoencoder", "Swapper")
PUBLISHED_ENCODING = Encoding(
    crop="ffhq",
    image_size=512,
    specular=(0.0, 1.0),
    roughness=(0.0, 1.0),
    norm_groups=32,
    noise_floor=(0.0, 0.053, 0.057, 0.061, 0.053),
)
"""Of checkpoints that do not tell theirs. The floors follow from the paper's self-reconstruction, 31.6, 31.0, 30.3 and 31.6 dB."""

_SLOW = 1.0
"""Seconds of a crop beside which a warm-up does not count."""


class Answer(NamedTuple):
    """Crops brought nearer to what the codes know, `[N, 3, S, S]`.

    cleaned: with a denoiser, x + G(Q(D(x))) − G(Q(E(x))). What codes cannot hold is missing from both terms and stays; what the
             two encoders tell apart is the spoiling. Without one, the projection.
    plain:   the codes alone, G(Q(D(x))): without fine detail, but in a colour that skin has
    """

    cleaned: Tensor
    plain: Tensor


@dataclass(frozen=True)
class Projection:
    """Encode, nearest codes, decode.

    net:     on its device, in evaluation; encoding: how crops reach it
    seconds: that one crop takes to be cleaned
    weights: by domain, how far its answers are to be followed, 0…1: 0 where they are known to lead away from the truth
    """

    net: CodebookNet
    encoding: Encoding
    seconds: float = 0.0
    weights: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(MAP_CHANNELS, 1.0))

    def __call__(self, crops: Tensor) -> Tensor:
        """Encoded crops, mid-grey where unknown, to what the codes say of them. `[N, 3, S, S]` in about -1…1"""
        with torch.no_grad():
            return self._decoded(self.net.encode(crops.to(memory_format=torch.channels_last)))

    def answer(self, crops: Tensor) -> Answer:
        """What the codes say of spoilt crops, `[N, 3, S, S]`.

        Processors that multiply bfloat16 do: 1.7 times as fast, and a tenth of the change off.
        """
        denoiser = self.net.denoiser
        if denoiser is None:
            plain = self(crops)
            return Answer(plain, plain)
        with torch.no_grad(), torch.autocast(crops.device.type, torch.bfloat16, enabled=_halves(crops.device.type)):
            given = crops.to(memory_format=torch.channels_last)
            wanted, held = self._decoded(torch.cat([denoiser(given), self.net.encode(given)])).to(crops).chunk(2)
            return Answer(crops + wanted - held, wanted)

    def cleaned(self, crops: Tensor) -> Tensor:
        """`Answer.cleaned`"""
        return self.answer(crops).cleaned

    def _decoded(self, latent: Tensor) -> Tensor:
        fused = self.net.fuse(latent) if isinstance(self.net, FusedNet) else self.net.quantize(latent)
        return self.net.decode(fused.codes)

    def floor(self, domain: str) -> float:
        """`Encoding.noise_floor` of a domain."""
        return self.encoding.noise_floor[DOMAINS.index(domain)]

    @classmethod
    def read(cls, path: Path, device: torch.device) -> Projection:
        """From a checkpoint of `NETWORKS`; those of the public code are taken as `PUBLISHED_ENCODING`. Raises InputError,
        ConfigError."""
        return cls.of(Checkpoint.read(path), device)

    @classmethod
    def of(cls, checkpoint: Checkpoint, device: torch.device) -> Projection:
        """`read` for a file already read."""
        path = checkpoint.path
        net = cast(CodebookNet, checkpoint.build(NETWORKS, PRESETS["published"]))
        second = {
            key.removeprefix(DENOISER): each for key, each in checkpoint.beside.items() if key.startswith(DENOISER)
        }
        if second:
            net.denoiser = Encoder(net.settings)
            put_weights(net.denoiser, second, path)
        net = net.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        notes = checkpoint.notes.get("encoding")
        encoding = Encoding.from_notes(notes) if isinstance(notes, dict) else PUBLISHED_ENCODING
        if net.settings.image_size != encoding.image_size:
            raise InputError(
                f"{path}: its network is for crops of {net.settings.image_size} pixels, but its encoding says "
                f"{encoding.image_size}; train or export it again"
            )
        weights = dict.fromkeys(MAP_CHANNELS, 1.0) | _weights(checkpoint)
        return cls(net.requires_grad_(False), encoding, weights=weights).timed(device)

    def timed(self, device: torch.device) -> Projection:
        """The same with its `seconds` measured on one crop, a second one where the first, which also warms up, was quick."""
        crop = torch.zeros(1, 3, self.encoding.image_size, self.encoding.image_size, device=device)
        seconds = 0.0
        for _ in range(2):
            began = time.perf_counter()
            float(self.cleaned(crop).sum())
            seconds = time.perf_counter() - began
            if seconds > _SLOW:
                break
        return replace(self, seconds=seconds)


@cache
def _halves(device: str) -> bool:
    """Whether networks run in bfloat16: where a CPU multiplies it faster."""
    able = torch.cpu.get_capabilities() if device == "cpu" else {}
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _weights(checkpoint: Checkpoint) -> dict[str, float]:
    """What a checkpoint says of its domains. Raises InputError."""
    told = checkpoint.notes.get("weights", {})
    if not isinstance(told, dict) or any(
        name not in MAP_CHANNELS or not isinstance(weight, (int, float)) or not 0.0 <= weight <= 1.0
        for name, weight in told.items()
    ):
        raise InputError(
            f"{checkpoint.path}: its weights {told!r} are no numbers of 0…1 for {', '.join(MAP_CHANNELS)}; pack it again"
        )
    return {name: float(weight) for name, weight in told.items()}
