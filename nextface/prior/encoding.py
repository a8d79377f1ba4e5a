"""How reflectance becomes the images that the prior's networks see, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nextface.color import linear_to_srgb, srgb_to_linear
from nextface.errors import ConfigError, InputError
from nextface.prior.crops import LAYOUTS, WINDOWS
from nextface.prior.fusion import DOMAINS
from nextface.rendering.tangents import PixelFrames

CHANNELS = {"shared": 3, "diffuse": 3, "specular": 1, "normal": 3, "roughness": 1}
_STEEPEST = 0.05
"""Least share of the mesh's normal in a normal that slopes are taken of."""


@dataclass(frozen=True)
class Encoding:
    """What a prior was trained on; travels in its checkpoint.

    Photos ("shared") and diffuse albedo are sRGB; specular weight and roughness linear, grey, their range stretched to
    -1…1; normals are unit vectors in the head's frame (model axes). Mid-grey, 0, is unknown.

    crop:         what the crops show, a name of `crops.WINDOWS` or `crops.LAYOUTS`
    image_size:   side of the crops, pixels
    specular, roughness: the range of values that becomes -1…1; what lies outside is cut off
    norm_groups:  of the networks
    noise_floor:  root mean square of what the prior changes in a clean crop, less the change of its mean, in -1…1, one per domain
                  in the order of `fusion.DOMAINS`; smaller changes say nothing. 0 where it was not measured
    """

    crop: str = "tight"
    image_size: int = 128
    specular: tuple[float, float] = (0.1, 1.0)
    roughness: tuple[float, float] = (0.15, 0.85)
    norm_groups: int = 16
    noise_floor: tuple[float, ...] = (0.0,) * len(DOMAINS)

    def __post_init__(self) -> None:
        if self.crop not in (*WINDOWS, *LAYOUTS):
            raise ConfigError(f"there is no crop {self.crop!r}: choose one of {', '.join((*WINDOWS, *LAYOUTS))}")
        if self.image_size < 1 or self.norm_groups < 1:
            raise ConfigError(f"image_size and norm_groups must be positive: {self}")
        for name in ("specular", "roughness"):
            low, high = getattr(self, name)
            if not 0.0 <= low < high <= 1.0:
                raise ConfigError(f"the range of {name} must ascend within 0…1, not {(low, high)}")
        if len(self.noise_floor) != len(DOMAINS) or min(self.noise_floor) < 0.0:
            raise ConfigError(f"noise_floor needs one value, 0 or more, for each of {', '.join(DOMAINS)}")

    def encode(self, domain: str, values: Tensor) -> Tensor:
        """Crops as the networks see them. `[B, 3, S, S]` in -1…1

        values: linear; a photo or albedo [B, 3, S, S], specular weight or roughness [B, 1, S, S], unit normals in the head's
        frame [B, 3, S, S]
        """
        _check(domain, values, CHANNELS)
        if domain == "normal":
            return values.clamp(-1.0, 1.0)
        if domain in ("specular", "roughness"):
            low, high = getattr(self, domain)
            return ((values - low) * (2.0 / (high - low)) - 1.0).clamp(-1.0, 1.0).expand(-1, 3, -1, -1)
        return linear_to_srgb(values.clamp(0.0, 1.0)) * 2.0 - 1.0

    def decode(self, domain: str, crop: Tensor) -> Tensor:
        """The inverse of `encode`; a grey domain is the mean of its channels, normals are made unit. crop: [B, 3, S, S]"""
        _check(domain, crop, dict.fromkeys(CHANNELS, 3))
        if domain == "normal":
            return normalize(crop, dim=1)
        crop = crop.clamp(-1.0, 1.0)
        if domain in ("specular", "roughness"):
            low, high = getattr(self, domain)
            return low + (crop.mean(1, keepdim=True) + 1.0) * ((high - low) / 2.0)
        return srgb_to_linear((crop + 1.0) / 2.0)

    def notes(self) -> dict[str, object]:
        """As JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_notes(cls, notes: Mapping[str, object]) -> Encoding:
        """From what `notes` gave. Raises InputError, ConfigError."""
        expected = {field.name for field in fields(cls)}
        if set(notes) != expected:
            raise InputError(f"not an encoding: it has {sorted(notes)}, expected {sorted(expected)}")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in notes.items()}
        for name, default in asdict(cls()).items():
            value = values[name]
            numbers = isinstance(default, tuple)
            if numbers and not (isinstance(value, tuple) and all(isinstance(v, (int, float)) for v in value)):
                raise InputError(f"not an encoding: {name} is {value!r}, expected numbers")
            if not numbers and type(value) is not type(default):
                raise InputError(f"not an encoding: {name} is {value!r}, expected {type(default).__name__}")
        for name in ("specular", "roughness"):
            if len(values[name]) != 2:  # type: ignore[arg-type]
                raise InputError(f"not an encoding: {name} is {values[name]!r}, expected two numbers")
        return cls(**values)  # type: ignore[arg-type]


def slopes(normals: Tensor, frames: PixelFrames) -> Tensor:
    """Tangent-space slopes of normals, the inverse of `PixelFrames.bend`: what is left when the mesh's own normals are removed.

    normals: any length, in the frames' space, [P, 3] -> [P, 2]. Normals that the frame's normal does not share count as
    if they shared a little.
    """
    cofactors = torch.stack(
        [
            torch.linalg.cross(frames.bitangent, frames.normal),
            torch.linalg.cross(frames.normal, frames.tangent),
            torch.linalg.cross(frames.tangent, frames.bitangent),
        ],
        1,
    )
    volume = (cofactors[:, 2] * frames.normal).sum(-1, keepdim=True)
    shares = (cofactors @ normals[..., None])[..., 0] / volume
    return shares[:, :2] / shares[:, 2:].clamp_min(_STEEPEST)


def _check(domain: str, values: Tensor, channels: Mapping[str, int]) -> None:
    if domain not in channels:
        raise InputError(f"there is no domain {domain!r}: it is one of {', '.join(channels)}")
    if values.ndim != 4 or values.shape[1] != channels[domain]:
        raise InputError(f"{domain}: crops of shape {list(values.shape)}, expected [B, {channels[domain]}, S, S]")
