"""A model's head drawn from a side, for a detector to look at."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import roma
import torch
from torch import Tensor

from nextface.color import linear_to_srgb
from nextface.morphable.model import MorphableModel
from nextface.rendering.render import render
from nextface.scene import Scene

SIZE = 512
DISTANCE = 900.0
"""Of the head from the camera, mm."""
_FACE_SHARE = 0.62
_BACKGROUND = 0.3


@dataclass(frozen=True)
class Person:
    """Coefficients of one head. shape: [1, Ks]; expression: [1, Ke]; albedo: [1, Ka]"""

    shape: Tensor
    expression: Tensor
    albedo: Tensor

    @classmethod
    def mean(cls, model: MorphableModel) -> Person:
        bases = (model.shape_basis, model.expression_basis, model.diffuse_basis)
        return cls(*(torch.zeros(1, len(basis)) for basis in bases))

    @classmethod
    def random(cls, model: MorphableModel, generator: torch.Generator) -> Person:
        """Somebody with a slight expression: coefficients of one standard deviation, of a half for the expression."""
        mean = cls.mean(model)
        shape, expression, albedo = (
            torch.randn(part.shape, generator=generator) for part in (mean.shape, mean.expression, mean.albedo)
        )
        expression = (0.5 * expression).clamp(model.expression_lower, model.expression_upper)
        return cls(shape, expression, albedo)


def draw_head(
    model: MorphableModel, yaw: float, pitch: float = 0.0, person: Person | None = None
) -> tuple[np.ndarray, Scene]:
    """A head under soft light from above, in front of grey: [S, S, 3] uint8 sRGB, and its scene.

    yaw, pitch: degrees; yaw turns the face to the viewer's right, pitch tips it up. person: the mean head if left out.
    """
    person = person or Person.mean(model)
    face = _face_box(model)
    centre = face.mean(0)
    turn_y, turn_x = math.radians(yaw), -math.radians(pitch)
    about_y = torch.tensor(
        [[math.cos(turn_y), 0.0, math.sin(turn_y)], [0.0, 1.0, 0.0], [-math.sin(turn_y), 0.0, math.cos(turn_y)]]
    )
    about_x = torch.tensor(
        [[1.0, 0.0, 0.0], [0.0, math.cos(turn_x), -math.sin(turn_x)], [0.0, math.sin(turn_x), math.cos(turn_x)]]
    )
    rotation = about_x @ about_y
    pivot = centre * torch.tensor([0.0, 1.0, 0.0])
    flip = torch.tensor([1.0, -1.0, -1.0])
    height = float((face[1] - face[0])[1])
    light = torch.zeros(1, 9, 3)
    light[:, 0], light[:, 1], light[:, 2], light[:, 3] = 2.6, 0.8, 1.2, 0.3
    scene = Scene(
        shape=person.shape,
        albedo=person.albedo,
        expression=person.expression,
        rotation=roma.rotmat_to_rotvec(rotation)[None],
        translation=(torch.tensor([0.0, 0.0, DISTANCE]) - flip * (rotation @ pivot))[None],
        focal=torch.tensor([_FACE_SHARE * SIZE * DISTANCE / height]),
        principal=torch.full((1, 2), SIZE / 2),
        light=light,
        exposure=torch.zeros(1),
        white_balance=torch.zeros(1, 2),
        height=SIZE,
        width=SIZE,
    )
    drawn = render(scene, model, maps=False)
    image = torch.where(drawn.mask[0, ..., None], drawn.image[0], torch.tensor(_BACKGROUND))
    return (linear_to_srgb(image) * 255.0).round().to(torch.uint8).numpy(), scene


def _face_box(model: MorphableModel) -> Tensor:
    """Lower and upper corner of the face's skin, without ears, scalp and neck, mm. [2, 3]"""
    skin = model.regions["skin"] > 0.5
    for other in ("ears", "scalp", "neck"):
        skin &= model.regions[other] < 0.5
    face = model.mean[skin] if int(skin.sum()) >= 100 else model.mean
    return torch.stack([face.amin(0), face.amax(0)])
