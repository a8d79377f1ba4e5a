"""The shipped open head: sound geometry for random people, plausible skin, complete regions and landmarks."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from nextface.morphable.model import REGIONS, MorphableModel
from nextface.morphable.open_head import read_open_head

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "baselMorphableModel/open_head.h5"
sys.path.append(str(ROOT / "tools"))

from open_head.probe import HeadProbe, Soundness, mirror_errors, random_coefficients  # noqa: E402
from open_head.skin_tone import skin_colour, typology_angle  # noqa: E402

HEADS = 100
LUMA = torch.tensor([0.2126, 0.7152, 0.0722])


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return read_open_head(PATH)


@pytest.fixture(scope="module")
def probe(model: MorphableModel) -> HeadProbe:
    return HeadProbe(model)


@pytest.fixture(scope="module")
def reports(model: MorphableModel, probe: HeadProbe) -> list[Soundness]:
    """Random heads other than those whose numbers are in docs/open_head.md."""
    rest = torch.zeros(1, len(model.expression_basis))
    shapes = random_coefficients(HEADS, len(model.shape_basis), torch.Generator().manual_seed(3))
    return [probe.examine(model.vertices(shape[None], rest)[0].numpy()) for shape in shapes]


def unit_names() -> list[str]:
    with h5py.File(PATH) as file:
        return [name.decode() for name in file["expression/model/names"][:]]


def test_the_file_is_small_and_says_its_licence(model: MorphableModel) -> None:
    assert PATH.stat().st_size <= 20e6
    assert model.licence == "CC0-1.0"


def test_lids_lips_and_mouth_do_not_cut(reports: list[Soundness]) -> None:
    assert sum(report.lid_cuts > 0 for report in reports) <= 1
    assert sum(report.lip_cuts > 0 for report in reports) <= 1
    assert sum(report.worn > 0 for report in reports) <= 1


def test_lips_are_closed_at_rest(reports: list[Soundness]) -> None:
    assert max(report.lip_gap for report in reports) < 0.6
    assert max(report.lip_overlap for report in reports) < 0.0


def test_edges_and_normals_stay_sane(reports: list[Soundness]) -> None:
    assert np.median([report.stretch[2] for report in reports]) > 0.4
    assert np.median([report.stretch[3] for report in reports]) < 2.0
    assert np.mean([report.flipped > 0 for report in reports]) < 0.25
    assert max(report.flipped for report in reports) < 60


def test_the_probe_sees_an_open_mouth_and_a_pierced_lid(model: MorphableModel, probe: HeadProbe) -> None:
    unit = unit_names().index("mouth-open")
    opened = model.mean + 0.5 * model.expression_upper[unit] * model.expression_basis[unit]
    assert probe.examine(opened.numpy()).lip_gap > 3.0
    pierced = model.mean.clone()
    pierced[model.regions["eyes"] > 0.5] += torch.tensor([0.0, 0.0, 4.0])
    assert probe.lid_cuts(pierced.numpy()) > 50


def test_mirror_is_exact(model: MorphableModel) -> None:
    errors = mirror_errors(model)
    assert errors["mean"] < 1e-4
    assert errors["triangles"] == 0.0
    assert errors["components"] < 0.01
    assert (model.mirror[model.mirror] == torch.arange(len(model.mirror))).all()


def test_scale_and_frame(model: MorphableModel) -> None:
    eyes = model.regions["eyes"] > 0.5
    left = model.mean[eyes & (model.mean[:, 0] > 0)]
    right = model.mean[eyes & (model.mean[:, 0] < 0)]
    centres = [0.5 * (eye.amin(0) + eye.amax(0)) for eye in (left, right)]
    assert abs(float(torch.linalg.norm(centres[0] - centres[1])) - 63.0) < 0.5
    assert float(model.mean[model.regions["lips"] > 0.5, 1].mean()) < float(centres[0][1]) < 60.0
    ears = model.mean[model.regions["ears"] > 0.5].mean(0)
    assert torch.linalg.norm(ears) < 12.0


def test_regions_cover_the_head(model: MorphableModel) -> None:
    assert set(model.regions) == set(REGIONS)
    total = sum(model.regions.values())
    assert float(total.max()) <= 1.5
    for name, mask in model.regions.items():
        assert 0.0 <= float(mask.min()) and float(mask.max()) <= 1.0
        assert int((mask > 0.5).sum()) > 100, name
        assert (mask - mask[model.mirror]).abs().max() < 0.35, name


def test_every_unit_moves_the_face_and_has_one_sided_bounds(model: MorphableModel) -> None:
    assert (model.expression_lower == 0.0).all()
    assert (model.expression_upper > 2.0).all()
    full = model.expression_basis * model.expression_upper[:, None, None]
    assert (full.norm(dim=-1).amax(1) > 1.0).all()
    names = unit_names()
    for needed in ("mouth-open", "mouth-corner-puller", "eye-left-closure", "eyebrows-left-up", "mouth-pursing"):
        assert needed in names


@pytest.mark.parametrize(
    "name", ["eye-left-closure", "eye-right-closure", "eye-left-slit", "mouth-open", "gaze-up", "gaze-left"]
)
def test_units_do_not_cut_on_their_way(model: MorphableModel, probe: HeadProbe, name: str) -> None:
    unit = unit_names().index(name)
    for share in (0.25, 0.5, 0.75, 1.0):
        moved = (model.mean + share * model.expression_upper[unit] * model.expression_basis[unit]).numpy()
        assert probe.lid_cuts(moved) == 0
        assert probe.lip_cuts(moved) == 0


def test_a_closed_lid_covers_the_iris(model: MorphableModel) -> None:
    unit = unit_names().index("eye-left-closure")
    closed = model.mean + model.expression_upper[unit] * model.expression_basis[unit]
    eye = (model.regions["eyes"] > 0.5) & (model.mean[:, 0] > 0)
    lids = ~(model.regions["eyes"] > 0.5) & (model.regions["mouth_interior"] < 0.5)
    front = model.mean[eye]
    middle = 0.5 * (front.amin(0) + front.amax(0))
    near = ((closed[:, :2] - middle[:2]).norm(dim=1) < 6.0) & lids & (closed[:, 2] > middle[2])
    assert int(near.sum()) > 20
    assert float(closed[near, 2].min()) > float(front[(front[:, :2] - middle[:2]).norm(dim=1) < 6.0, 2].max()) - 2.0


def test_tones_reach_from_very_dark_to_very_light(model: MorphableModel) -> None:
    skin = model.regions["skin"] > 0.9
    generator = torch.Generator().manual_seed(5)
    coefficients = random_coefficients(2000, len(model.diffuse_basis), generator)
    means = model.diffuse_mean[skin].mean(0) + coefficients @ model.diffuse_basis[:, skin].mean(1)
    luminance = means @ LUMA
    assert float(luminance.quantile(0.01)) < 0.07
    assert float(luminance.quantile(0.99)) > 0.42
    angles = typology_angle(means.clamp_min(1e-3).numpy())
    assert np.percentile(angles, 1) < -30.0 and np.percentile(angles, 99) > 50.0
    assert float((means < 0.0).any(-1).float().mean()) < 0.03
    red_first = (means[:, 0] > means[:, 1]) & (means[:, 1] > means[:, 2])
    assert float(red_first.float().mean()) > 0.97


def test_gloss_is_in_range_and_wet_where_it_should_be(model: MorphableModel) -> None:
    assert 0.0 <= float(model.specular_mean.min()) and float(model.specular_mean.max()) <= 1.0
    roughness = model.roughness_mean[:, 0]
    assert float(roughness[model.regions["eyes"] > 0.5].max()) < 0.2
    assert float(roughness[model.regions["lips"] > 0.9].mean()) < float(roughness[model.regions["skin"] > 0.9].mean())


def test_landmarks_are_complete(model: MorphableModel) -> None:
    mediapipe, contours = model.landmarks["mediapipe"], model.landmarks["ibug68"]
    assert len(mediapipe.index) > 470
    assert contours.index.tolist() == list(range(68))
    assert (contours.count[:17] > 5).all() and (contours.count[17:] == 1).all()

    def place(number: int) -> torch.Tensor:
        middle = (int(contours.count[number]) - 1) // 2
        corners = model.mean[model.triangles[contours.triangle[number, middle]]]
        return contours.barycentric[number, middle] @ corners

    assert float(place(36)[0]) < float(place(39)[0]) < 0.0 < float(place(42)[0]) < float(place(45)[0])
    assert float(place(27)[1]) > float(place(30)[1]) > float(place(33)[1]) > float(place(51)[1]) > float(place(57)[1])
    assert float(place(8)[1]) < float(place(57)[1]) and abs(float(place(8)[0])) < 2.0
    lips = model.mean[model.regions["lips"] > 0.5]
    for number in range(48, 68):
        assert float((lips - place(number)).norm(dim=1).min()) < 6.0


def test_melanin_darkens_and_blood_reddens() -> None:
    ladder = skin_colour(np.geomspace(0.002, 1.0, 20), np.full(20, 0.015))
    assert (np.diff(ladder, axis=0) < 0.0).all()
    angles = typology_angle(ladder)
    assert angles[0] > 55.0 and angles[-1] < -50.0
    pale, flushed = skin_colour(np.array([0.02, 0.02]), np.array([0.004, 0.04]))
    assert flushed[0] / flushed[1] > pale[0] / pale[1]
