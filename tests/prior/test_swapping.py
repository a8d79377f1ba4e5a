"""Who a photo shows, whose reflectance is nearest, and what a swap needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from known_bundle import BUNDLE_SIZES, CHANNELS, TONES, known_maps, save_known_bundle, save_network
from known_prior import ENCODING, SIZE, save_random_prior, with_face_points
from synthetic_photo import known_scene
from torch import Tensor

from nextface.errors import InputError
from nextface.morphable.model import MorphableModel
from nextface.prior.bundle import Bundle
from nextface.prior.swapping import Swapping
from nextface.prior.templates import Templates
from nextface.prior.views import CropViews

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(toy: MorphableModel) -> MorphableModel:
    return with_face_points(toy)


@pytest.fixture(scope="module")
def file(model: MorphableModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_known_bundle(tmp_path_factory.mktemp("prior"), model)


@pytest.fixture(scope="module")
def swapping(file: Path, model: MorphableModel) -> Swapping:
    return Swapping(Bundle.read(file, CPU), file).for_model(model)


def faces(count: int) -> Tensor:
    """Pictures that differ. [count, 3, S, S]"""
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)).clamp(-1.0, 1.0)


def test_an_identity_is_a_unit_vector_and_the_same_in_the_mirror(swapping: Swapping):
    (crop,) = faces(1)[None]
    identity = swapping.identity(crop)
    assert identity.shape == (CHANNELS,)
    assert float(identity.norm()) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(swapping.identity(crop.flip(-1)), identity)


def test_the_nearest_template_is_found(swapping: Swapping):
    """Templates that were described by crops are found by these crops, also when they are a little darker."""
    crops = faces(len(TONES))
    described = torch.stack([swapping.identity(crop[None]) for crop in crops])
    templates = replace(swapping.templates, embeddings=described)
    for number, crop in enumerate(crops):
        assert templates.closest(swapping.identity(0.9 * crop[None])) == number


def test_a_swap_depends_on_crop_and_identity(swapping: Swapping):
    crops, identities = faces(2), torch.eye(2, CHANNELS)
    one, other = (swapping.swap(crops, identity) for identity in identities)
    assert one.shape == crops.shape
    assert float((one - other).abs().max()) > 1e-3
    torch.testing.assert_close(swapping.swap(crops[:1], identities[1]), other[:1], atol=1e-5, rtol=0.0)
    torch.testing.assert_close(swapping.swap(crops, identities)[1], other[1], atol=1e-5, rtol=0.0)


def test_maps_of_a_template_come_back_when_nothing_is_swapped(
    swapping: Swapping, model: MorphableModel, monkeypatch: pytest.MonkeyPatch
):
    """On the template's own head and on another's."""
    monkeypatch.setattr(Swapping, "swap", lambda self, crops, identity: crops)
    for scene in (swapping.templates.scene(1, model), known_scene(model, seed=4)):
        views = CropViews.of(scene, model, ENCODING.crop, SIZE)
        swapped = swapping.swap_views(1, views, model, torch.eye(CHANNELS)[0])
        assert list(swapped.given) == list(swapped.swapped) == ["diffuse", "specular", "roughness", "normal"]
        maps = swapping.maps(1, views, model, swapped).maps
        assert maps.shape == (views.resolution, views.resolution, 7)
        expected = known_maps()[1, 0, 0].expand_as(maps)
        torch.testing.assert_close(maps[..., :5], expected[..., :5], atol=0.01, rtol=0.0)


def test_what_cannot_swap_is_told(file: Path, model: MorphableModel, swapping: Swapping, tmp_path: Path):
    plain = save_random_prior(tmp_path / "plain.safetensors")
    with pytest.raises(InputError, match="plain.safetensors: holds a FusedAutoencoder, which cannot swap"):
        Swapping(Bundle.read(plain, CPU), plain)
    alone = save_network(tmp_path / "alone.safetensors", "FusedSwapper")
    with pytest.raises(InputError, match="holds no identity encoder; give one with --identity"):
        Swapping(Bundle.read(alone, CPU), alone)
    own = save_network(tmp_path / "own.safetensors", "IdentityEncoder")
    with pytest.raises(InputError, match="holds no templates"):
        Swapping(Bundle.read(alone, CPU, own), alone).for_model(model)
    longer = replace(BUNDLE_SIZES, identity=replace(BUNDLE_SIZES.identity, embedding_channels=9))
    wrong = save_network(tmp_path / "longer.safetensors", "IdentityEncoder", longer)
    with pytest.raises(InputError, match="takes identities of 5 numbers, but the identity encoder gives 9"):
        Swapping(Bundle.read(file, CPU, wrong), file)
    with pytest.raises(InputError, match="heads of the toy head, not of the other"):
        swapping.for_model(replace(model, name="other"))


def test_another_encoder_describes_the_templates_anew(
    file: Path, model: MorphableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = save_network(tmp_path / "own.safetensors", "IdentityEncoder", seed=8)
    anew = torch.eye(len(TONES), CHANNELS).flip(0)
    bundle, asked = Bundle.read(file, CPU, own), []

    def with_encoder(self: Templates, *given: object) -> Templates:
        asked.append(given)
        return replace(self, embeddings=anew)

    monkeypatch.setattr(Templates, "with_encoder", with_encoder)
    swapping = Swapping(bundle, file).for_model(model)
    assert asked == [(bundle.identity, bundle.faces, model)]
    assert torch.equal(swapping.templates.embeddings, anew)
