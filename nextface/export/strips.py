"""Pictures that lay the reconstruction beside and over the photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nextface.export.files import write_bytes
from nextface.export.images import as_rgb, encode_linear, encode_srgb, over, png
from nextface.morphable.model import MorphableModel
from nextface.photo import Photo
from nextface.rendering.render import Rendering, render
from nextface.rendering.transport import Transport
from nextface.scene import Scene

_DIRECTIONS = 24
"""Of the shadows in debug pictures, which are made often."""


def panels(image: Tensor, rendering: Rendering, index: int = 0) -> dict[str, np.ndarray]:
    """The pictures of a strip by name, uint8 `[H, W, 3]`, in NextFace's order.

    image: the photo's crop, linear Rec.709. [H, W, 3]
    Illumination is what the light does to a white surface, darkened where it would clip. Diffuse albedo, specular weight and
    roughness are the skin maps as projected on the face. Specular and roughness are linear, the rest is sRGB-encoded.
    """
    mask = rendering.mask[index]
    black = image.new_zeros(3)
    illumination = rendering.illumination[index]
    if mask.any():
        illumination = illumination / max(1.0, float(np.quantile(illumination[mask].cpu().numpy(), 0.99)))
    return {
        "input": encode_srgb(image),
        "overlay": encode_srgb(over(rendering.image[index], mask, image)),
        "reconstruction": encode_srgb(over(rendering.image[index], mask, black)),
        "illumination": encode_srgb(over(illumination, mask, black)),
        "diffuse": encode_srgb(over(rendering.diffuse[index], mask, black)),
        "specular": as_rgb(encode_linear(over(rendering.specular[index], mask, black[:1]))),
        "roughness": as_rgb(encode_linear(over(rendering.roughness[index], mask, black[:1]))),
    }


def strip(image: Tensor, rendering: Rendering, index: int = 0) -> np.ndarray:
    """All panels side by side, uint8 `[H, 7·W, 3]`."""
    return np.concatenate(list(panels(image, rendering, index).values()), axis=1)


def debug_strip(
    folder: Path | str,
    stage: int,
    iteration: int,
    photo: Photo,
    scene: Scene,
    model: MorphableModel,
    index: int = 0,
    self_shadowing: bool = True,
) -> Path:
    """Write `debug/debug{stage}_iter{iteration}_frame{index}.png` below the result folder; the scene may be mid-fit."""
    with torch.no_grad():
        alone = scene.select(index)
        transport = Transport.of_head(alone, model, _DIRECTIONS) if self_shadowing else None
        rendering = render(alone, model, transport=transport)
        content = png(strip(photo.image.to(scene.device), rendering))
    return write_bytes(Path(folder) / "debug" / f"debug{stage}_iter{iteration}_frame{index}.png", content)
