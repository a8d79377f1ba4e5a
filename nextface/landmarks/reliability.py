"""How well each landmark keeps its place from one person to the next."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nextface.landmarks.detect import Detector
from nextface.landmarks.drawn_head import Person, draw_head
from nextface.morphable.model import LandmarkEmbedding, MorphableModel
from nextface.rendering.camera import Camera

PEOPLE = 16
_YAWS = (0.0, -20.0, 20.0, -8.0, 8.0, -30.0, 30.0, 0.0)
_PRECISE = 1.5
"""Scatter of a point that deserves full weight, mm: corners of eyes, irises."""
_FEWEST = 4


def weigh(
    model: MorphableModel, detector: Detector, embedding: LandmarkEmbedding, people: int = PEOPLE
) -> LandmarkEmbedding:
    """The embedding with weights from how far the detector's points stray on random heads.

    A point on an eyelid is found to a millimetre on anybody; one on a cheek is wherever the detector's own mean face has
    it. The weight is 1.5 mm over the root mean square distance, at most 1. Points seen on fewer than four heads keep theirs.
    """
    generator = torch.Generator().manual_seed(0)
    squares = torch.zeros(len(embedding.index))
    counts = torch.zeros(len(embedding.index))
    for number in range(people):
        image, scene = draw_head(model, _YAWS[number % len(_YAWS)], 0.0, Person.random(model, generator))
        faces = detector.faces(image)
        if not faces:
            continue
        found = {int(index): point for index, point in zip(faces[0].index, faces[0].points, strict=True)}
        has = torch.tensor([int(index) in found for index in embedding.index])
        points = torch.stack([found.get(int(index), torch.zeros(2)) for index in embedding.index])
        away = _distances(model, embedding, scene.vertices_camera(model), Camera.of(scene), points)
        squares += has * away.square()
        counts += has
    scatter = (squares / counts.clamp_min(1.0)).sqrt()
    measured = (_PRECISE / scatter.clamp_min(1e-3)).clamp_max(1.0)
    return replace(embedding, weight=torch.where(counts >= _FEWEST, measured, embedding.weight))


def _distances(
    model: MorphableModel, embedding: LandmarkEmbedding, vertices: Tensor, camera: Camera, found: Tensor
) -> Tensor:
    """From each found point to the nearest of the landmark's places, parallel to the image, mm. [N]"""
    corners = vertices[0, model.triangles[embedding.triangle]]
    places = (corners * embedding.barycentric[..., None]).sum(2)
    pixels = camera.project(places.flatten(0, 1)[None])[0].unflatten(0, places.shape[:2])
    away = (pixels - found[:, None]).norm(dim=-1) * places[..., 2] / camera.focal[0]
    return away.amin(1)
