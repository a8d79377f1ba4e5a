"""Landmarks on the surface, and the contour points among them that slide along the silhouette."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nextface.morphable.model import LandmarkEmbedding, MorphableModel
from nextface.rendering.camera import Camera

_HYSTERESIS = 0.01


def candidate_weights(embedding: LandmarkEmbedding, triangles: Tensor) -> tuple[Tensor, Tensor]:
    """Corner vertices and barycentric weights of every candidate. `[N, C, 3]` int64 and `[N, C, 3]`."""
    return triangles[embedding.triangle], embedding.barycentric


def surface_points(vertices: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    """Points on the surface. vertices `[B, V, 3]`, corners and weights `[B, N, 3]` -> `[B, N, 3]`."""
    batch = torch.arange(vertices.shape[0], device=vertices.device)[:, None, None]
    return (vertices[batch, corners] * weights[..., None]).sum(2)


def choose(
    embedding: LandmarkEmbedding, model: MorphableModel, vertices_camera: Tensor, camera: Camera, held: Tensor
) -> Tensor:
    """The candidate in force for every landmark: the one that lies furthest out in the picture.

    "Out" is the same way on the head at every pose (see `_outward`). A candidate takes over only when it lies further out
    than the held one by 1% of the landmarks' extent.

    vertices_camera: [B, V, 3]; held: [B, N] int64 -> [B, N] int64.
    """
    sliding = embedding.count > 1
    if not bool(sliding.any()):
        return held
    corners, weights = candidate_weights(embedding, model.triangles)
    count, slots = corners.shape[:2]
    batch = vertices_camera.shape[0]
    flat = surface_points(
        vertices_camera,
        corners.flatten(0, 1).expand(batch, -1, -1),
        weights.flatten(0, 1).expand(batch, -1, -1).to(vertices_camera),
    )
    pixels = camera.project(flat).unflatten(1, (count, slots))
    now = pixels.gather(2, held[:, :, None, None].expand(-1, -1, 1, 2)).squeeze(2)
    extent = (now.amax(1) - now.amin(1)).amax(-1)
    reach = (pixels * _outward(embedding, model, now, held)[:, :, None]).sum(-1)
    best = reach.argmax(-1)
    gain = reach.gather(2, best[..., None]) - reach.gather(2, held[..., None])
    moves = sliding & (gain.squeeze(-1) > _HYSTERESIS * extent[:, None])
    return torch.where(moves, best, held)


def _outward(embedding: LandmarkEmbedding, model: MorphableModel, now: Tensor, held: Tensor) -> Tensor:
    """Unit direction in the picture in which each landmark lies from the middle of a frontal face.

    The head's own sideways and upward axes are taken to the picture by an affine fit. Seen from the middle of a turned face,
    the far part of the contour would lie on the near side.

    now: pixels of the held candidates, [B, N, 2]; held: [B, N] -> [B, N, 2]
    """
    mean = model.mean.expand(len(now), -1, -1)
    frontal, places = (
        surface_points(mean, *picked(embedding, model.triangles, choice))
        for choice in (first_choice(embedding, len(now)).to(held.device), held)
    )
    centred = [points - points.mean(1, keepdim=True) for points in (frontal, places, now)]
    normal = centred[1].mT @ centred[1]
    axes = torch.linalg.solve_ex(normal, centred[1].mT @ centred[2])[0][:, :2]
    return normalize(centred[0][..., :2] @ normalize(axes, dim=-1), dim=-1)


def first_choice(embedding: LandmarkEmbedding, batch: int) -> Tensor:
    """The middle candidate of every landmark: where it lies on a frontal face. [B, N] int64"""
    return ((embedding.count - 1) // 2).expand(batch, -1).clone()


def picked(embedding: LandmarkEmbedding, triangles: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
    """Corners and weights of the chosen candidates. choice `[B, N]` -> two `[B, N, 3]`."""
    corners, weights = candidate_weights(embedding, triangles)
    row = torch.arange(choice.shape[1], device=choice.device)
    return corners[row, choice], weights[row, choice]


def visibility(embedding: LandmarkEmbedding, model: MorphableModel, vertices_camera: Tensor, choice: Tensor) -> Tensor:
    """How far each landmark's side of the head is turned to the camera: 1 up to 53° away from it, falling to 0.02 at 84°.

    Detectors put the points of the far side where they guess it to be. Sides are directions from the middle between the
    ears: the rims of lids and lips have normals of their own.
    vertices_camera: camera space, [B, V, 3]; choice: [B, N] -> [B, N].
    """
    corners, weights = picked(embedding, model.triangles, choice)
    place = surface_points(vertices_camera, corners, weights)
    ears = model.regions["ears"] / model.regions["ears"].sum()
    middle = torch.einsum("v,bvc->bc", ears, vertices_camera)
    cosine = -(normalize(place - middle[:, None], dim=-1) * normalize(place, dim=-1)).sum(-1)
    return ((cosine - 0.1) / 0.5).clamp(0.02, 1.0)
