"""Landmarks as a term of a differentiable objective."""

from __future__ import annotations

import torch
from torch import Tensor

from nextface.fitting import contours
from nextface.fitting.observation import Observation
from nextface.morphable.model import MorphableModel
from nextface.rendering.camera import Camera

# As a share of the landmarks' extent: a detector's own scatter is near 1%, and neighbouring points err together.
POINT_SD = 0.014
ROBUST = 6.0
"""In standard deviations: the scale of the Cauchy loss."""


def extent(observation: Observation) -> Tensor:
    """Twice the root-mean-square spread of the landmarks, pixels. [B]"""
    weight = (observation.confidence > 0).float()[..., None]
    middle = (observation.points * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    variance = ((observation.points - middle).square() * weight).sum(1) / weight.sum(1)
    return 2.0 * variance.sum(-1).sqrt()


def inverse_sd(model: MorphableModel, observation: Observation) -> Tensor:
    """One over each landmark's standard deviation, 0 where it is missing, 1/pixels. [B, N]"""
    trust = observation.confidence * observation.embedding(model).weight
    return trust / (POINT_SD * extent(observation)[:, None])


class LandmarkLoss:
    """Cauchy loss of the landmarks' whitened pixel distances; contour candidates and visibility are held until `rechoose`."""

    def __init__(self, model: MorphableModel, observation: Observation) -> None:
        self._model = model
        self._embedding = observation.embedding(model)
        self._target = observation.points
        self._inverse_sd = inverse_sd(model, observation)
        self._choice = contours.first_choice(self._embedding, observation.batch)
        self._visible = torch.ones_like(self._inverse_sd)

    def rechoose(self, vertices_camera: Tensor, camera: Camera) -> None:
        """Choose contour candidates and weigh every landmark by how far it is turned to the camera."""
        model, embedding = self._model, self._embedding
        self._choice = contours.choose(embedding, model, vertices_camera, camera, self._choice)
        self._visible = contours.visibility(embedding, model, vertices_camera, self._choice)

    def __call__(self, vertices_camera: Tensor, camera: Camera) -> Tensor:
        """Sum over each image's landmarks. vertices `[B, V, 3]` -> `[B]`."""
        corners, weights = contours.picked(self._embedding, self._model.triangles, self._choice)
        pixels = camera.project(contours.surface_points(vertices_camera, corners, weights))
        distance = ((pixels - self._target) * (self._visible * self._inverse_sd)[..., None]).square().sum(-1)
        return 0.5 * ROBUST**2 * torch.log1p(distance / ROBUST**2).sum(-1)
