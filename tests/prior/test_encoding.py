"""Reflectance as crops of -1…1 and back, the encoding as JSON, normals without the mesh's own."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from nextface.errors import ConfigError, InputError
from nextface.prior.encoding import CHANNELS, Encoding, slopes
from nextface.rendering.tangents import PixelFrames


def random_values(domain: str, encoding: Encoding) -> torch.Tensor:
    values = torch.rand(2, CHANNELS[domain], 8, 8, generator=torch.Generator().manual_seed(3))
    if domain == "normal":
        return normalize(values - 0.5, dim=1)
    if domain in ("specular", "roughness"):
        low, high = getattr(encoding, domain)
        return low + (high - low) * values
    return values


@pytest.mark.parametrize("domain", sorted(CHANNELS))
def test_round_trip(domain):
    encoding = Encoding()
    values = random_values(domain, encoding)
    crop = encoding.encode(domain, values)
    assert crop.shape == (2, 3, 8, 8) and crop.abs().max() <= 1.0
    assert torch.allclose(encoding.decode(domain, crop), values, atol=2e-5)


def test_known_values():
    encoding = Encoding(specular=(0.2, 1.0), roughness=(0.0, 0.5))
    full = torch.ones(1, 1, 1, 1)
    assert encoding.encode("specular", 0.6 * full).flatten().tolist() == pytest.approx([0.0] * 3, abs=1e-6)
    assert encoding.encode("roughness", 0.5 * full).flatten().tolist() == pytest.approx([1.0] * 3)
    assert encoding.encode("specular", 0.1 * full).flatten().tolist() == [-1.0] * 3, "cut off below the range"
    # sRGB: a linear 0.2140 is a half.
    assert encoding.encode("diffuse", torch.full((1, 3, 1, 1), 0.21404)).flatten().tolist() == pytest.approx(
        [0.0] * 3, abs=1e-4
    )
    grey = encoding.decode("specular", torch.tensor([-0.5, 0.0, 0.5])[None, :, None, None])
    assert float(grey) == pytest.approx(0.6), "the mean of what a network made of the three channels"


def test_json_round_trip():
    encoding = Encoding("ffhq", 256, (0.0, 0.9), (0.2, 0.7), 32, (0.1, 0.2, 0.3, 0.4, 0.5))
    assert Encoding.from_notes(json.loads(json.dumps(encoding.notes()))) == encoding
    assert Encoding.from_notes(json.loads(json.dumps(Encoding().notes()))) == Encoding()


@pytest.mark.parametrize(
    "change", [{"crop": 3}, {"image_size": "128"}, {"specular": [0.1]}, {"noise_floor": ["a"] * 5}, {"roughness": 0.5}]
)
def test_foreign_notes_are_refused(change):
    with pytest.raises(InputError, match="not an encoding"):
        Encoding.from_notes(Encoding().notes() | change)


def test_missing_notes_are_refused():
    with pytest.raises(InputError, match="crop"):
        Encoding.from_notes({"crop": "tight"})


@pytest.mark.parametrize(
    "change",
    [{"crop": "round"}, {"specular": (0.5, 0.5)}, {"noise_floor": (0.1,)}, {"image_size": 0}, {"roughness": (-1, 1)}],
)
def test_impossible_encodings_are_refused(change):
    with pytest.raises(ConfigError):
        replace(Encoding(), **change)


def test_wrong_domain_and_shape_are_named():
    with pytest.raises(InputError, match="albedo"):
        Encoding().encode("albedo", torch.zeros(1, 3, 4, 4))
    with pytest.raises(InputError, match="specular"):
        Encoding().encode("specular", torch.zeros(1, 3, 4, 4))


def test_slopes_undo_the_bending_of_skewed_frames():
    generator = torch.Generator().manual_seed(5)
    normal = normalize(torch.randn(50, 3, generator=generator), dim=1)
    # As interpolation leaves them: neither unit nor at right angles.
    tangent = torch.randn(50, 3, generator=generator)
    frames = PixelFrames(tangent, torch.linalg.cross(normal, tangent), normal)
    given = torch.randn(50, 2, generator=generator) * 0.5
    assert torch.allclose(slopes(frames.bend(given) * 1.7, frames), given, atol=1e-4)
    assert slopes(normal, frames).abs().max() < 1e-5, "the mesh's own normal leaves nothing"
    assert torch.isfinite(slopes(-normal, frames)).all()
