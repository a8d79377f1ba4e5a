"""A detector's points put on the model: exact ones are recovered, real ones are predicted in views that were held out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nextface.errors import ModelError
from nextface.landmarks import annotate as annotate_module
from nextface.landmarks import detector
from nextface.landmarks import reliability as reliability_module
from nextface.landmarks.annotate import annotate, place
from nextface.landmarks.drawn_head import draw_head
from nextface.landmarks.points import Landmarks
from nextface.morphable import load_model
from nextface.rendering.camera import Camera
from nextface.rendering.cpu import CpuRasterizer
from nextface.scene import to_camera

VIEWS = ((0, 0), (-20, 0), (20, 0), (-40, 0), (40, 0))


@pytest.fixture(scope="module")
def model():
    return load_model("./baselMorphableModel")


def places_of(model, embedding, candidate=0):
    corners = model.mean[model.triangles[embedding.triangle[:, candidate]]]
    return (corners * embedding.barycentric[:, candidate, :, None]).sum(1)


def project(scene, points):
    return Camera.of(scene).project(to_camera(points[None], scene.head_rotation(), scene.translation))[0]


class Painter:
    """A detector that knows the scene it looks at: it returns what `points` makes of it, none where that is None."""

    def __init__(self, monkeypatch, convention, points):
        self.convention, self.points = convention, points

        def draw(model, yaw, pitch=0.0, person=None):
            image, self.scene = draw_head(model, yaw, pitch, person)
            self.person = person
            return image, self.scene

        monkeypatch.setattr(annotate_module, "draw_head", draw)
        monkeypatch.setattr(reliability_module, "draw_head", draw)

    def faces(self, rgb):
        points = self.points(self.scene)
        count = len(points)
        return [Landmarks(self.convention, torch.arange(count), points, torch.ones(count))]


def test_known_places_are_recovered(model, monkeypatch):
    """Exact projections of 68 places of the face, those hidden in a view replaced by nonsense as a detector does."""
    face = (model.regions["skin"] > 0.5) & (model.regions["scalp"] < 0.1) & (model.regions["neck"] < 0.1)
    face &= model.regions["ears"] < 0.1
    numbers = torch.nonzero(face & (model.mean[:, 2] > model.mean[:, 2].amax() - 90))[:, 0]
    chosen = numbers[torch.linspace(0, len(numbers) - 1, 68).long()]

    def points(scene):
        camera_points = scene.vertices_camera(model)[0, chosen]
        found = Camera.of(scene).project(camera_points[None])[0]
        pixels = CpuRasterizer().visible_triangles(scene.vertices_camera(model), model.triangles, Camera.of(scene))
        nearest = torch.full((scene.height, scene.width), torch.inf)
        middle = scene.vertices_camera(model)[0][model.triangles[pixels.triangle]].mean(1)
        nearest[pixels.row, pixels.column] = middle[:, 2]
        column, row = found.long().clamp(0, scene.width - 1).unbind(-1)
        hidden = camera_points[:, 2] > nearest[row, column] + 4.0
        return torch.where(hidden[:, None], found * 0.5 + 128.0, found)

    embedding = annotate(model, Painter(monkeypatch, "fan", points), VIEWS)
    error = (places_of(model, embedding) - model.mean[chosen]).norm(dim=-1)
    assert embedding.index.tolist() == list(range(68)) and (embedding.count == 1).all()
    assert error.median() < 0.5 and (error < 2.0).float().mean() > 0.85
    assert embedding.weight[error < 1.0].median() > 2.0 * embedding.weight[error > 5.0].max()


def test_contour_points_slide(model, monkeypatch):
    """A point on the left outline of every view gets one candidate per view, from the subject's left to the right."""

    def points(scene):
        pixels = CpuRasterizer().visible_triangles(scene.vertices_camera(model), model.triangles, Camera.of(scene))
        row = scene.height * 2 // 3
        outline = pixels.column[pixels.row == row].min()
        found = project(scene, model.mean[torch.linspace(0, 5000, 68).long()])
        found[3] = torch.tensor([float(outline) - 1.5, row + 0.5])
        return found

    embedding = annotate(model, Painter(monkeypatch, "ibug68", points), VIEWS)
    assert int(embedding.count[3]) == len(VIEWS) and int(embedding.count[40]) == 1
    candidates = torch.stack([places_of(model, embedding, number)[3] for number in range(len(VIEWS))])
    for number, yaw in enumerate((-40, -20, 0, 20, 40)):
        _, scene = draw_head(model, yaw)
        pixels = CpuRasterizer().visible_triangles(scene.vertices_camera(model), model.triangles, Camera.of(scene))
        place = project(scene, candidates[number : number + 1])[0]
        row = scene.height * 2 // 3
        assert abs(float(place[1]) - row - 0.5) < 1.1
        assert abs(float(place[0]) - float(pixels.column[pixels.row == row].min()) - 0.5) < 1.1
    assert (candidates[1:, 2] <= candidates[:-1, 2] + 1.0).all(), (
        "the outline moves back as the face turns away from it"
    )


@pytest.fixture(scope="module")
def embedding(model):
    return annotate(model, detector("mediapipe"), VIEWS)


@pytest.mark.parametrize(("yaw", "pitch", "limit"), [(0, 0, 0.012), (12, 0, 0.025), (-28, 5, 0.03)])
def test_held_out_views(model, embedding, yaw, pitch, limit):
    """Mean distance between projected places and fresh detections, in outer eye corner distances."""
    image, scene = draw_head(model, yaw, pitch)
    found = detector("mediapipe").faces(image)[0].points[embedding.index]
    places = places_of(model, embedding)
    eyes = (places[33] - places[263]).norm() * scene.focal[0] / scene.translation[0, 2]
    error = (project(scene, places) - found).norm(dim=-1) / eyes
    assert error.mean() < limit and (embedding.weight * error).sum() / embedding.weight.sum() < 0.9 * limit


def test_embedding_is_symmetric_and_complete(model, embedding):
    assert len(embedding.index) == 478
    places = places_of(model, embedding)
    for right, left in ((33, 263), (133, 362), (61, 291), (468, 473), (129, 358), (234, 454)):
        mirrored = places[left] * torch.tensor([-1.0, 1.0, 1.0])
        assert (places[right] - mirrored).norm() < 6.0
    assert places[33, 0] < 0 < places[263, 0] and places[10, 1] > places[1, 1] > places[152, 1]
    assert ((embedding.barycentric.sum(-1) - 1).abs() < 1e-5).all() and (embedding.barycentric >= 0).all()
    assert (embedding.weight > 0).all() and (embedding.weight <= 1).all()


def test_detector_that_sees_nothing(model):
    class Blind:
        convention = "mediapipe"

        def faces(self, rgb: np.ndarray) -> list[Landmarks]:
            return []

    with pytest.raises(ModelError, match="finds a face on 0 of 2 views"):
        annotate(model, Blind(), VIEWS[:2])


def test_place_asks_the_detector_of_the_convention(model, monkeypatch):
    asked = []
    monkeypatch.setattr(annotate_module, "detector", lambda kind, task: asked.append((kind, task)))
    monkeypatch.setattr(annotate_module, "annotate", lambda model, detector: "embedding")
    assert place(model, "fan", "m.task") == "embedding" and asked == [("fan", "m.task")]
    with pytest.raises(ModelError, match="'dlib' landmarks cannot be placed.*68 ibug68"):
        place(model, "dlib")
