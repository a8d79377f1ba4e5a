"""Contour landmarks that slide along the silhouette, and landmarks as a term of an objective."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from synthetic_photo import known_scene, observe_scene
from torch import Tensor

from nextface.errors import ModelError
from nextface.fitting import contours
from nextface.fitting.landmark_loss import LandmarkLoss
from nextface.fitting.observation import Observation, embedding_of, observe
from nextface.landmarks.points import Landmarks
from nextface.morphable.model import MorphableModel
from nextface.photo import Crop, Photo
from nextface.rendering.camera import Camera
from nextface.scene import Scene


def turned(model: MorphableModel, yaw: float) -> Scene:
    scene = known_scene(model, strength=0.0, yaw=yaw, pitch=0.0)
    return replace(scene, rotation=torch.tensor([[0.0, math.radians(yaw), 0.0]]), expression=0 * scene.expression)


def chosen(model: MorphableModel, scene: Scene, convention: str, held: Tensor | None = None) -> Tensor:
    embedding = model.landmarks[convention]
    held = contours.first_choice(embedding, scene.batch) if held is None else held
    return contours.choose(embedding, model, scene.vertices_camera(model), Camera.of(scene), held)


def pixels(model: MorphableModel, scene: Scene, convention: str) -> Tensor:
    """Every candidate of every landmark. [N, C, 2]"""
    embedding = model.landmarks[convention]
    corners, weights = contours.candidate_weights(embedding, model.triangles)
    vertices = scene.vertices_camera(model)
    points = (vertices[0][corners] * weights[..., None]).sum(2)
    return Camera.of(scene).project(points.flatten(0, 1)[None])[0].unflatten(0, corners.shape[:2])


@pytest.mark.parametrize("yaw", [-35.0, -15.0, 20.0, 40.0])
def test_the_jaw_s_points_lie_on_the_side_s_outline(yaw: float, head: MorphableModel):
    """The upper jaw's points are the outermost candidate sideways, on either side of the face."""
    scene = turned(head, yaw)
    choice = chosen(head, scene, "ibug68")[0]
    for _ in range(2):
        choice = chosen(head, scene, "ibug68", choice[None])[0]
    places, index = pixels(head, scene, "ibug68"), head.landmarks["ibug68"].index
    extent = float(places[..., 0].max() - places[..., 0].min())
    for number, sign in ((1, -1.0), (2, -1.0), (3, -1.0), (13, 1.0), (14, 1.0), (15, 1.0)):
        row = int((index == number).nonzero())
        sideways = sign * places[row, :, 0]
        assert float(sideways.max() - sideways[choice[row]]) < 0.06 * extent, number


def test_the_choice_slides_with_the_head(head: MorphableModel):
    """Turned to either side, other candidates are in force; fixed points never move."""
    embedding = head.landmarks["ibug68"]
    left, right = (chosen(head, turned(head, yaw), "ibug68")[0] for yaw in (-35.0, 35.0))
    sliding = embedding.count > 1
    assert bool(sliding.any())
    assert float((left != right)[sliding].float().mean()) > 0.4
    assert torch.equal(left[~sliding], right[~sliding])
    assert bool((left < embedding.count).all())


def test_the_chin_stays_at_the_bottom(head: MorphableModel):
    """It is the lowest point that slides, not the one furthest to the side."""
    embedding = head.landmarks["ibug68"]
    chin = int((embedding.index == 8).nonzero())
    scene = turned(head, 40.0)
    choice = int(chosen(head, scene, "ibug68")[0, chin])
    places = pixels(head, scene, "ibug68")[chin]
    frontal = int(contours.first_choice(embedding, 1)[0, chin])
    assert float((places[choice] - places[frontal]).norm()) < 1.5


def test_a_candidate_hardly_better_does_not_take_over(toy: MorphableModel):
    """Hysteresis: turned a little further the choice stays, turned the other way it does not."""
    scene = turned(toy, 12.0)
    settled = chosen(toy, scene, "mediapipe")
    seen = [chosen(toy, turned(toy, yaw), "mediapipe", settled) for yaw in (11.7, 12.0, 12.3)]
    assert sum(int((choice != settled).sum()) for choice in seen) <= 2
    assert not torch.equal(chosen(toy, turned(toy, -30.0), "mediapipe", settled), settled)


def test_a_convention_without_sliding_points_is_left_alone(head: MorphableModel):
    held = contours.first_choice(head.landmarks["mediapipe"], 1)
    assert chosen(head, turned(head, 40.0), "mediapipe", held) is held


def test_hidden_landmarks_weigh_little(head: MorphableModel):
    """A detector guesses where the far side's points are. All count on a frontal face, the near side's at any yaw."""
    embedding = head.landmarks["mediapipe"]
    weights = []
    for yaw in (0.0, 50.0):
        scene = turned(head, yaw)
        vertices = scene.vertices_camera(head)
        choice = contours.first_choice(embedding, 1)
        weights.append(contours.visibility(embedding, head, vertices, choice)[0])
    frontal, oblique = weights
    place = contours.surface_points(
        head.mean[None], *contours.picked(embedding, head.triangles, contours.first_choice(embedding, 1))
    )[0]
    near, far = place[:, 0] < -55.0, place[:, 0] > 55.0
    middle = place[:, 0].abs() < 30.0
    assert float((frontal[middle] > 0.9).float().mean()) > 0.8
    assert float(oblique[near].mean()) > 0.9
    assert float(oblique[far].mean()) < 0.3
    assert 0.0 < float(oblique.min()) <= float(oblique.max()) <= 1.0


def test_an_unknown_convention_names_those_known(head: MorphableModel):
    with pytest.raises(ModelError, match="fan.*ibug68, mediapipe"):
        embedding_of(head, "fan")


@pytest.mark.grad
def test_the_landmark_term_s_gradient(toy: MorphableModel):
    scene = turned(toy, 10.0)
    observation = observe_scene(scene, toy)
    observation = replace(observation, points=observation.points.double() + 3.0)
    loss = LandmarkLoss(toy, observation)
    camera = Camera(scene.focal.double(), scene.principal.double(), scene.height, scene.width)
    vertices = scene.vertices_camera(toy).double().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(vertices, camera), vertices)
    direction = torch.randn(vertices.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        numeric = (loss(vertices + 1e-5 * direction, camera) - loss(vertices - 1e-5 * direction, camera)) / 2e-5
    assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=1e-6)


def test_the_landmark_term_is_zero_at_the_truth_and_bounded_far_away(toy: MorphableModel):
    scene = turned(toy, 10.0)
    observation = observe_scene(scene, toy)
    vertices, camera = scene.vertices_camera(toy), Camera.of(scene)
    costs = []
    for off in (0.0, 10.0, 1000.0):
        points = observation.points.clone()
        points[0, 5] += off
        loss = LandmarkLoss(toy, replace(observation, points=points))
        loss.rechoose(vertices, camera)
        loss.rechoose(vertices, camera)
        costs.append(float(loss(vertices, camera)))
    assert costs[0] < 0.05
    assert costs[0] < costs[1] < costs[2] < 10.0 * costs[1] + 60.0


def photo(height: int, width: int, index: list[int], name: str = "a") -> Photo:
    count = len(index)
    return Photo(
        name=name,
        image=torch.rand(height, width, 3),
        valid=torch.ones(height, width, dtype=torch.bool),
        focal=None,
        principal=(width / 2, height / 2),
        crop=Crop(0.0, 0.0, 1.0, width, height, width, height),
        landmarks=Landmarks(
            "mediapipe", torch.tensor(index), torch.arange(2.0 * count).view(count, 2), torch.full((count,), 0.5)
        ),
        source=None,  # type: ignore[arg-type]
    )


def test_photos_of_unlike_size_are_padded_and_their_landmarks_put_in_the_model_s_order(toy: MorphableModel):
    embedding = toy.landmarks["mediapipe"]
    known = embedding.index[:3].tolist()
    photos = [photo(20, 30, [known[2], known[0], 477]), photo(24, 16, known)]
    observation = Observation.join([observe(photos[0], toy, 50.0, 0.1), observe(photos[1], toy, 60.0, 0.2)])
    assert observation.own_sizes() == ((20, 30), (24, 16))
    assert observation.focal.tolist() == [50.0, 60.0]
    assert observation.image.shape == (2, 24, 30, 3)
    assert torch.equal(observation.image[0, :20, :30], photos[0].image)
    assert int(observation.valid[0].sum()) == 600
    assert int(observation.valid[1].sum()) == 24 * 16
    assert not bool(observation.valid[1, :, 16:].any())
    assert float(observation.image[1, :, 16:].abs().max()) == 0.0
    assert observation.points[0, 2].tolist() == [0.0, 1.0]
    assert observation.points[0, 0].tolist() == [2.0, 3.0]
    assert observation.confidence[0, :4].tolist() == [0.5, 0.0, 0.5, 0.0]
    assert observation.confidence[1, :4].tolist() == [0.5, 0.5, 0.5, 0.0]
    assert observation.principal.tolist() == [[15.0, 10.0], [8.0, 12.0]]
