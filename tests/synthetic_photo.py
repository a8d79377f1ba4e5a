"""A photo whose answer is known: a model's head under natural light before a plain wall, with landmarks as a perfect detector
sees them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from nextface.color import linear_to_srgb
from nextface.fitting import contours
from nextface.fitting.light import light_prior
from nextface.fitting.observation import Observation
from nextface.landmarks.points import POINT_COUNTS, Landmarks
from nextface.morphable.model import MorphableModel
from nextface.rendering.camera import Camera
from nextface.rendering.render import render
from nextface.rendering.transport import Transport
from nextface.scene import Scene

BANDS = 5
WALL = 0.15


@dataclass(frozen=True)
class Portrait:
    """truth: the scene that the photo shows; covered: pixels of the head, [B, H, W] bool"""

    truth: Scene
    observation: Observation
    covered: Tensor


def known_scene(
    model: MorphableModel,
    seed: int = 0,
    *,
    yaw: float = 12.0,
    pitch: float = 4.0,
    size: int = 96,
    distance: float = 600.0,
    strength: float = 0.6,
    bands: int = BANDS,
) -> Scene:
    """A random person within the model: coefficients of `strength` standard deviations, two expression units.

    yaw, pitch: degrees; size: of the square frame, px; distance: to the model's origin, mm
    """
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    expression = torch.zeros(1, model.expression_basis.shape[0])
    for unit in torch.randperm(expression.shape[1], generator=random)[:2].tolist():
        expression[0, unit] = 0.6 * float(model.expression_upper[unit].clamp(max=2.0))
    prior = light_prior(bands)
    turn = torch.tensor([[math.radians(pitch), math.radians(yaw), math.radians(2.0)]])
    return Scene(
        shape=strength * normal(1, model.shape_basis.shape[0]),
        albedo=strength * normal(1, model.diffuse_basis.shape[0]),
        expression=expression,
        rotation=turn,
        translation=torch.tensor([[3.0, -4.0, distance]]),
        focal=torch.tensor([0.78 * size * distance / 265.0]),
        principal=torch.tensor([[0.5 * size, 0.5 * size]]),
        light=prior.light(0.7 * normal(1, prior.factor.shape[0])),
        exposure=torch.tensor([-0.1]),
        white_balance=torch.tensor([[0.05, -0.04]]),
        height=size,
        width=size,
    )


def project_landmarks(scene: Scene, model: MorphableModel, convention: str) -> Tensor:
    """The embedding's points in pixels; sliding ones at the candidate that lies furthest out. [B, N, 2]"""
    embedding, vertices, camera = model.landmarks[convention], scene.vertices_camera(model), Camera.of(scene)
    choice = contours.first_choice(embedding, scene.batch)
    for _ in range(3):
        choice = contours.choose(embedding, model, vertices, camera, choice)
    corners, weights = contours.picked(embedding, model.triangles, choice)
    return camera.project(contours.surface_points(vertices, corners, weights))


def observe_scene(
    scene: Scene,
    model: MorphableModel,
    convention: str = "mediapipe",
    *,
    image: Tensor | None = None,
    focal: Tensor | None = None,
    focal_sd: float = 0.05,
) -> Observation:
    """What a perfect detector and a camera that knows its lens say of a scene."""
    points = project_landmarks(scene, model, convention)
    if image is None:
        image = torch.full((scene.batch, scene.height, scene.width, 3), WALL)
    return Observation(
        image=image,
        valid=torch.ones(image.shape[:3], dtype=torch.bool),
        convention=convention,
        points=points,
        confidence=torch.ones(points.shape[:2]),
        principal=scene.principal.clone(),
        focal=scene.focal.clone() if focal is None else focal,
        focal_sd=torch.full((scene.batch,), focal_sd),
    )


def portrait_of(scene: Scene, model: MorphableModel, convention: str = "mediapipe") -> Portrait:
    """The scene photographed, exposed so that nothing clips."""
    transport = Transport.of_head(scene, model)
    drawn = render(scene, model, transport=transport)
    brightest = float(drawn.image.max())
    if brightest > 0.9:
        scene = replace(scene, exposure=scene.exposure + math.log(0.9 / brightest))
        drawn = render(scene, model, transport=transport)
    image = torch.where(drawn.mask[..., None], drawn.image, WALL)
    return Portrait(scene, observe_scene(scene, model, convention, image=image), drawn.mask)


def save_photo(path: Path, image: Tensor) -> Path:
    """Write linear `[H, W, 3]` as a PNG."""
    Image.fromarray((linear_to_srgb(image) * 255.0).round().to(torch.uint8).numpy()).save(path)
    return path


def detected(portrait: Portrait, model: MorphableModel) -> Landmarks:
    """The first image's landmarks as a detector hands them over."""
    observation = portrait.observation
    index = observation.embedding(model).index
    return Landmarks(observation.convention, index, observation.points[0], observation.confidence[0])


def landmark_rows(landmarks: Landmarks) -> list[list[float] | None]:
    """One [x, y] per point number of the convention, None where it is missing: the content of a landmark file."""
    rows: list[list[float] | None] = [None] * POINT_COUNTS[landmarks.convention][0]
    for number, point in zip(landmarks.index.tolist(), landmarks.points.tolist(), strict=True):
        rows[number] = point
    return rows


def degrees_apart(first: Scene, second: Scene) -> Tensor:
    """Angle between two heads' rotations. [B]"""
    relative = first.head_rotation().mT @ second.head_rotation()
    cosine = (relative.diagonal(dim1=1, dim2=2).sum(-1) - 1.0) / 2.0
    return torch.rad2deg(torch.acos(cosine.clamp(-1.0, 1.0)))
