"""The 68 points of a landmark file on an open scan: a face without eyeballs, inner mouth and back of the head."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from synthetic_photo import degrees_apart, detected, known_scene, landmark_rows, portrait_of, save_photo
from torch import Tensor

from nextface.config import OptimConfig
from nextface.errors import ModelError
from nextface.fitting.contours import first_choice, picked, surface_points
from nextface.fitting.pose import fit_pose, start
from nextface.fitting.progress import Progress
from nextface.landmarks import annotate as annotate_module
from nextface.landmarks import read_photo
from nextface.landmarks.annotate import place
from nextface.landmarks.contour_points import ibug68
from nextface.morphable import load_model
from nextface.morphable.cache import with_landmarks
from nextface.morphable.model import LandmarkEmbedding, MorphableModel
from nextface.pipeline import observation_of

MIRRORED = [
    *range(16, -1, -1),
    *range(26, 16, -1),
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
]
"""The point on the other side of the face."""


def annotated(folder: Path) -> MorphableModel:
    bare = load_model(folder, trim_pca=True)
    return replace(bare, landmarks={"mediapipe": place(bare, "mediapipe")})


@pytest.fixture(scope="module")
def scan(basel_folder: Path) -> MorphableModel:
    return annotated(basel_folder)


@pytest.fixture(scope="module")
def embedding(scan: MorphableModel) -> LandmarkEmbedding:
    return place(scan, "ibug68")


def frontal(model: MorphableModel, embedding: LandmarkEmbedding) -> Tensor:
    """The points on the mean head, sliding ones where a frontal view has them. [N, 3]"""
    corners, weights = picked(embedding, model.triangles, first_choice(embedding, 1))
    return surface_points(model.mean[None], corners, weights)[0]


def check_order(points: Tensor) -> None:
    x, y = points[:, 0], points[:, 1]
    assert (x[:17].diff() > -1.0).all(), "jaw from the subject's right ear to the left, upright beside the ears"
    assert (x[:8] < -15.0).all() and abs(x[8]) < 2.0 and (x[9:17] > 15.0).all()
    assert int(y[:17].argmin()) == 8 and (y[:9].diff() < 0).all() and (y[8:17].diff() > 0).all()
    assert (x[17:27].diff() > 0).all() and (y[17:27].min() > y[36:48].max())
    assert (y[27:31].diff() < 0).all() and (x[31:36].diff() > 0).all() and y[33] < y[30]
    for corner in (36, 42):
        assert (x[corner : corner + 4].diff() > 0).all()
        assert (y[[corner + 1, corner + 2]] > y[[corner + 5, corner + 4]]).all()
    assert (x[48:55].diff() > 0).all() and (x[54:60].diff() < 0).all() and (x[60:65].diff() > 0).all()
    assert (y[49:54] > y[[59, 58, 57, 56, 55]]).all()
    assert (y[61:64] > y[[67, 66, 65]] - 0.5).all(), "closed lips meet"
    assert y[51] > y[62] and y[66] > y[57] > y[8]


def test_points_lie_in_order_and_where_the_open_head_has_them(
    scan: MorphableModel, embedding: LandmarkEmbedding, head: MorphableModel
):
    """The scan is sampled from the open head, whose points were drawn from a much finer mesh."""
    assert embedding.index.tolist() == list(range(68))
    points = frontal(scan, embedding)
    check_order(points)
    lopsided = (points - points[MIRRORED] * torch.tensor([-1.0, 1.0, 1.0])).norm(dim=1)
    assert float(lopsided.max()) < 4.0 and float(lopsided.mean()) < 2.0
    away = (points - frontal(head, head.landmarks["ibug68"]))[:, :2].norm(dim=1)
    assert float(away[17:].max()) < 6.0 and float(away[17:].mean()) < 2.0
    assert float(away[:17].max()) < 8.0, "seen from the front"


def test_only_the_jaw_slides_and_weights_are_those_of_the_points_behind(
    scan: MorphableModel, embedding: LandmarkEmbedding
):
    assert (embedding.count[:17] > 1).all() and (embedding.count[17:] == 1).all()
    found = scan.landmarks["mediapipe"]
    half = torch.tensor([*range(17), *range(27, 36)])
    assert (embedding.weight[half] == 0.5).all()
    places = surface_points(scan.mean[None], scan.triangles[found.triangle[:, 0]], found.barycentric[:, 0])[0]
    points = frontal(scan, embedding)
    for number in (*range(17, 27), *range(36, 68)):
        source = (places - points[number]).norm(dim=1) < 1e-3
        assert embedding.weight[number] in found.weight[source]


def test_a_coarse_mesh_with_holes_keeps_all_points(small_basel: Path):
    """Rays that leave through the slit of the mouth or past the border fall back on what is there."""
    model = annotated(small_basel)
    points = frontal(model, place(model, "ibug68"))
    assert torch.isfinite(points).all()
    assert (points[:17, 0].diff() > -1.0).all() and (points[27:31, 1].diff() < 0).all()
    nose = (model.mean[:, :2] - torch.tensor([0.0, float(points[30, 1])])).norm(dim=1) < 12.0
    pierced = replace(model, triangles=model.triangles[~nose[model.triangles].any(1)])
    kept = model.landmarks["mediapipe"]
    corners = model.triangles[kept.triangle[:, 0]]
    whole = (pierced.triangles[None] == corners[:, None]).all(-1)
    stay = whole.any(1)
    kept = LandmarkEmbedding(
        kept.index[stay],
        whole[stay].int().argmax(1)[:, None],
        kept.barycentric[stay],
        kept.count[stay],
        kept.weight[stay],
    )
    assert not stay.all()
    assert torch.isfinite(frontal(pierced, ibug68(pierced, kept))).all()


def test_a_head_that_the_points_do_not_fit_is_named(scan: MorphableModel):
    found = scan.landmarks["mediapipe"]
    few = LandmarkEmbedding(*(getattr(found, name)[:20] for name in found.__dataclass_fields__))
    with pytest.raises(ModelError, match="Basel.*68 points cannot be placed.*too few mediapipe points of the"):
        ibug68(scan, few)
    hidden = {name: torch.ones_like(weights) for name, weights in scan.regions.items()}
    with pytest.raises(ModelError, match="no skin faces forward"):
        ibug68(replace(scan, regions=hidden), found)


def test_a_head_without_mediapipe_s_points_is_annotated_first(
    scan: MorphableModel, embedding: LandmarkEmbedding, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(annotate_module, "annotate", lambda model, detector: scan.landmarks["mediapipe"])
    again = place(replace(scan, landmarks={}), "ibug68")
    assert torch.equal(again.triangle, embedding.triangle) and torch.equal(again.weight, embedding.weight)


def test_a_file_of_68_points_is_fitted_by_the_scan(
    scan: MorphableModel, head: MorphableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Photo and landmarks are the open head's; the scan's own places of the points find its pose."""
    config = OptimConfig(device="cpu", bands=3, max_resolution=96, iter_step1=40)
    portrait = portrait_of(known_scene(head, 5, yaw=18.0, size=160, strength=0.3), head, "ibug68")
    photo = save_photo(tmp_path / "someone.png", portrait.observation.image[0])
    file = tmp_path / "someone.json"
    file.write_text(json.dumps(landmark_rows(detected(portrait, head))))
    crop = read_photo(photo, config, file)
    model = with_landmarks(scan, "ibug68", partial(place, convention="ibug68"))
    observation = observation_of(crop, model, config)
    assert observation.convention == "ibug68" and observation.points.shape == (1, 68, 2)
    found = fit_pose(start(observation, model, 3), observation, model, config, Progress("pose", config.iter_step1))
    assert float(degrees_apart(portrait.truth, found)) < 6.0
