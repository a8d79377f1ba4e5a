"""Crops that the prior's networks are measured on: true, seen alike in every domain, and spoilt as said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("benchmarks", reason="needs a checkout")

from benchmarks import prior_crops, prior_swap
from benchmarks.crop_metrics import squares
from benchmarks.prior_crops import HELD_OUT_SEED, MAPS, _kept, trained_faces, unseen_face, upright
from benchmarks.unseen.faces import scene_crop, unseen_photo
from benchmarks.unseen.traces import Lit, left_by_a_fit
from nextface.prior.bundle import Bundle
from nextface.prior.crops import YAWS
from nextface.prior.data.source import FacesSettings
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS
from nextface.prior.identity import IdentityEncoder
from nextface.prior.projection import Projection
from nextface.prior.settings import AutoencoderSettings, FusionSettings, IdentitySettings, SwapSettings
from nextface.prior.swapper import FusedSwapper

ENCODING = Encoding(image_size=48)
SIZE = 32


@pytest.fixture(scope="module")
def trained(head):
    return trained_faces(head, ENCODING, 1)[0]


@pytest.fixture(scope="module")
def photo(head):
    return unseen_photo(head, 3, scale=0.3)


@pytest.fixture(scope="module")
def unseen(head, photo):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prior_crops, "unseen_photo", lambda model, number, scale: photo)
        return unseen_face(head, ENCODING, 3)


@pytest.mark.parametrize("whose", ["trained", "unseen"])
def test_subjects_are_complete(whose, request):
    subject = request.getfixturevalue(whose)
    assert 0.3 < float(subject.skin.mean()) < 0.9 and bool((subject.skin <= subject.covered).all())
    for domain in DOMAINS:
        encoded = subject.encoded(ENCODING, domain, subject.clean(domain))
        assert encoded.shape == (3, 3, 48, 48) and torch.isfinite(encoded).all() and encoded.abs().max() <= 1.0
    for domain in MAPS:
        truth, spoilt = (subject.compared(domain, each) for each in (subject.clean(domain), subject.spoilt(domain)))
        error = (squares(spoilt, truth, subject.skin).sum() / subject.skin.sum()).sqrt()
        assert 0.003 < float(error) < 0.4, domain
    relief = subject.compared("normal", subject.normal)
    assert 0.9 < float(relief[:, 2][subject.skin[:, 0] > 0].mean()) < 1.0


def test_training_draws_other_people():
    assert HELD_OUT_SEED not in (FacesSettings().seed, prior_swap.SECOND_SEED)


def test_unseen_maps_and_photos_are_of_one_view(head, photo, unseen):
    """Maps through the linear operator agree with maps drawn by the renderer through the same camera as the photos."""
    scene = photo.scene
    for view, yaw in enumerate(YAWS):
        drawn = scene_crop(upright(scene, head, ENCODING, yaw), head, ENCODING)
        inside = (unseen.skin[view] > 0) & (drawn.skin[0] > 0.99)
        assert float(inside.sum()) > 0.9 * float(unseen.skin[view].sum()) - 60
        for domain, bound in (("diffuse", 0.02), ("specular", 0.03), ("roughness", 0.03)):
            difference = (unseen.clean(domain)[view] - drawn.domains[domain][0]) * inside
            assert float((difference.square().sum() / inside.sum()).sqrt()) < bound, (domain, yaw)


def test_kept_crops_come_back(tmp_path, unseen):
    path = tmp_path / "crops" / "face.safetensors"
    first = _kept(path, lambda: unseen)
    again = _kept(path, lambda: pytest.fail("made anew"))
    assert first is unseen and again.tone == pytest.approx(unseen.tone, abs=0.3)
    assert torch.allclose(again.diffuse, unseen.diffuse, atol=1e-3)


def plain(albedo: float = 0.3) -> dict[str, torch.Tensor]:
    one = torch.ones(3, 1, SIZE, SIZE)
    normal = torch.cat([0 * one, 0 * one, one], 1)
    return {
        "diffuse": albedo * one.expand(-1, 3, -1, -1),
        "specular": 0.5 * one,
        "normal": normal,
        "roughness": 0.5 * one,
    }


def test_a_fit_under_even_light_leaves_little_but_a_tint():
    one = torch.ones(3, 1, SIZE, SIZE)
    even = one.expand(-1, 3, -1, -1)
    for seed in range(4):
        spoilt = left_by_a_fit(plain(), one, Lit(even, even, 0 * even, one), np.random.default_rng(seed))
        assert float((spoilt["diffuse"] / 0.3 - 1.0).abs().max()) < 0.35
        assert float(spoilt["diffuse"].std((2, 3)).mean()) < 0.03


def test_shadows_and_highlights_stay_in_the_albedo_and_gloss_follows():
    one = torch.ones(3, 1, SIZE, SIZE)
    even = one.expand(-1, 3, -1, -1)
    shadow, shine = 0 * one, 0 * one
    shadow[..., 4:14, 4:14], shine[..., 20:28, 20:28] = 1.0, 1.0
    lit = Lit(even * (1.0 - 0.7 * shadow), even, 0.3 * shine.expand(-1, 3, -1, -1), one)
    in_shadow, in_shine, elsewhere = [], [], []
    gloss = {"specular": [], "roughness": []}
    for seed in range(12):
        spoilt = left_by_a_fit(plain(), one, lit, np.random.default_rng(seed))
        in_shadow.append(float(spoilt["diffuse"][..., 6:12, 6:12].mean()))
        in_shine.append(float(spoilt["diffuse"][..., 22:26, 22:26].mean()))
        elsewhere.append(float(spoilt["diffuse"][..., 2:12, 20:30].mean()))
        for name, places in gloss.items():
            places.append(float(spoilt[name][..., 22:26, 22:26].mean() - spoilt[name].mean()))
    assert np.mean(in_shadow) < 0.85 * np.mean(elsewhere)
    assert np.mean(in_shine) > 1.2 * np.mean(elsewhere)
    assert np.mean(gloss["specular"]) > 0.02 and np.mean(gloss["roughness"]) < -0.02


def test_spoilt_maps_repeat_and_stay_on_the_head():
    on = torch.zeros(3, 1, SIZE, SIZE)
    on[..., 5:25, 5:25] = 1.0
    clean = {name: each * on for name, each in plain().items()}
    lit = Lit(on.expand(-1, 3, -1, -1), on.expand(-1, 3, -1, -1), 0 * on.expand(-1, 3, -1, -1), on)
    first, second = (left_by_a_fit(clean, on, lit, np.random.default_rng(5)) for _ in range(2))
    for name in clean:
        assert torch.equal(first[name], second[name])
        assert not (first[name] * (1.0 - on)).any()
    lengths = first["normal"].norm(dim=1)[on[:, 0] > 0]
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5)


def test_a_swap_into_oneself_leaves_no_error_in_the_template(head, monkeypatch):
    """Templates that are the gallery itself are their own closest ones, drawn on whichever head."""
    monkeypatch.setattr(prior_swap, "GALLERY", 2)
    monkeypatch.setattr(prior_swap, "TEXELS", 64)
    torch.manual_seed(0)
    sizes = AutoencoderSettings(SIZE, 8, (1, 2), 1, (16,), 12, 6, 4)
    fusion = FusionSettings(stacks=1, layers=2, heads=2, window=4, mlp_ratio=2, mask_size=16)
    net = FusedSwapper(sizes, fusion, SwapSettings(identity_channels=5, sizes=(16, 32))).eval()
    encoder = IdentityEncoder(IdentitySettings(28, (4, 6), (2, 1), 5)).eval()
    encoding = Encoding(image_size=SIZE, norm_groups=4)
    people = prior_swap.held_out_people(head)
    assert people.count == 2 and not torch.equal(people.maps(0), people.maps(1))
    photos = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0
    with torch.no_grad():
        people = type(people)(people.model, people.shape, encoder.embed(photos), people.pictures)
    bundle = Bundle(Projection(net, encoding), encoder, encoding, people)
    rows, picture = prior_swap.albedo_errors(bundle, people, photos, head)
    assert [row.head for row in rows] == list(prior_swap.HEADS)
    for row in rows:
        assert row.template < 1e-6 < row.coded and row.swapped > 0.01
        assert row.fall.value < 0.0
    assert picture.shape[1] == 4 * SIZE
