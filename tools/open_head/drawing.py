"""Contact sheets of the open head, drawn by the project's own renderer."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from nextface.color import linear_to_srgb
from nextface.morphable.model import MorphableModel
from nextface.rendering.render import render
from nextface.rendering.sh import environment_directions, project
from nextface.scene import Scene

CELL = 150
OVERSAMPLING = 2
DISTANCE = 1100.0
SPAN = 300.0
"""Millimetres across a cell at zoom 1."""
BACKGROUND = 0.45
LAMPS = (((-0.5, 0.5, 0.7), 6.0, 3.0), ((0.8, 0.1, 0.5), 2.5, 3.0), ((0.0, 1.0, 0.0), 0.8, 1.0))
"""Direction in the view frame, radiance and sharpness of soft lamps over a dim sky."""
BANDS = 7


def studio_light() -> Tensor:
    """SH coefficients of the lamps. [1, BANDS², 3]"""
    directions = environment_directions(64)
    radiance = torch.full(directions.shape[:-1], 0.3)
    for direction, strength, sharpness in LAMPS:
        axis = torch.nn.functional.normalize(torch.tensor(direction), dim=0)
        radiance = radiance + strength * torch.exp(4.0 * sharpness * (directions @ axis - 1.0))
    return project(radiance[..., None].expand(-1, -1, 3), BANDS)[None]


class Portrait:
    """Draws single heads of one model as small sRGB pictures."""

    def __init__(self, model: MorphableModel) -> None:
        self.model = model
        self.light = studio_light()

    def draw(
        self,
        shape: Tensor | None = None,
        skin: Tensor | None = None,
        expression: Tensor | None = None,
        *,
        yaw: float = 0.0,
        zoom: float = 1.0,
        label: str = "",
    ) -> np.ndarray:
        """Coefficients [Ks], [Ka], [Ke], zero where not given; yaw in degrees. [CELL, CELL, 3] uint8"""
        size = CELL * OVERSAMPLING
        bases = (self.model.shape_basis, self.model.diffuse_basis, self.model.expression_basis)
        shape, skin, expression = (
            torch.zeros(len(basis)) if values is None else values
            for values, basis in zip((shape, skin, expression), bases, strict=True)
        )
        scene = Scene(
            shape=shape[None],
            albedo=skin[None],
            expression=expression[None],
            rotation=torch.tensor([[0.0, math.radians(yaw), 0.0]]),
            translation=torch.tensor([[0.0, 0.0, DISTANCE]]),
            focal=torch.tensor([size * DISTANCE / SPAN * zoom]),
            principal=torch.tensor([[size / 2, size / 2 + 6.0 * (zoom > 1)]]),
            light=self.light,
            exposure=torch.zeros(1),
            white_balance=torch.zeros(1, 2),
            height=size,
            width=size,
        )
        drawn = render(scene, self.model)
        image = torch.where(drawn.mask[..., None], drawn.image, torch.tensor(BACKGROUND))[0]
        image = image.unflatten(0, (CELL, OVERSAMPLING)).unflatten(2, (CELL, OVERSAMPLING)).mean((1, 3))
        picture = (linear_to_srgb(image) * 255.0).round().to(torch.uint8).numpy()
        if label:
            canvas = Image.fromarray(picture)
            ImageDraw.Draw(canvas).text((3, CELL - 13), label, fill=(0, 0, 0))
            picture = np.asarray(canvas)
        return picture


def sheet(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    """Pictures in rows, the last one filled up with background. [H, W, 3] uint8"""
    shade = int(linear_to_srgb(torch.tensor(BACKGROUND)) * 255.0)
    missing = -len(pictures) % columns
    padded = pictures + [np.full_like(pictures[0], shade)] * missing
    return np.concatenate([np.concatenate(padded[k : k + columns], 1) for k in range(0, len(padded), columns)])
