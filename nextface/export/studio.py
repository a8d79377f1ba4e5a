"""The head before a studio camera of its own: the turntable and the relit views."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from nextface.export.images import encode_srgb, over, to_pillow
from nextface.export.result import PhotoResult
from nextface.rendering.render import render, render_under
from nextface.scene import Scene

DISTANCE = 900.0  # mm from the camera to the head's middle: a portrait lens's natural perspective
BACKDROP = (0.030, 0.033, 0.038)  # linear grey, bluish
TURN = math.radians(30.0)
FRAMES = 32
FRAMES_PER_SECOND = 20


def studio_scene(result: PhotoResult, yaw: float, size: int) -> Scene:
    """The same head, upright in the middle of a square picture and turned about the vertical.

    yaw: radians, positive turns the nose to the viewer's right; size: pixels.
    """
    vertices = result.vertices_model
    middle = (vertices.amax(0) + vertices.amin(0)) / 2
    radius = float((vertices[:, 1] - middle[1]).abs().max()) * 1.08
    rotation = vertices.new_tensor([[0.0, yaw, 0.0]])
    turned = _about_vertical(yaw, middle)
    translation = torch.stack([-turned[0], turned[1], DISTANCE + turned[2]])[None]
    return replace(
        result.scene,
        rotation=rotation,
        translation=translation,
        focal=vertices.new_tensor([0.5 * size * (DISTANCE - radius / 2) / radius]),
        principal=vertices.new_tensor([[size / 2, size / 2]]),
        height=size,
        width=size,
    )


def _about_vertical(yaw: float, point: Tensor) -> Tensor:
    """Rotate one view-frame point [3] by `yaw` about +y."""
    cosine, sine = math.cos(yaw), math.sin(yaw)
    return torch.stack([cosine * point[0] + sine * point[2], point[1], cosine * point[2] - sine * point[0]])


def studio_view(result: PhotoResult, yaw: float, size: int) -> np.ndarray:
    """One picture on the backdrop under the photo's own light, sRGB bytes `[size, size, 3]`."""
    rendering = render(studio_scene(result, yaw, size), result.model, transport=result.transport)
    image, mask = rendering.image[0], rendering.mask[0]
    return encode_srgb(over(image, mask, image.new_tensor(BACKDROP)))


def relit_views(result: PhotoResult, yaw: float, size: int, lights: Sequence[Tensor]) -> list[np.ndarray]:
    """The same picture under each of several lights, sRGB bytes `[size, size, 3]`.

    lights: SH coefficients in the view frame, [1, L, 3] each. Drawn at twice the size: halving the pictures smooths all edges.
    """
    scene = studio_scene(result, yaw, 2 * size)
    pictures = []
    for drawn in render_under(lights, scene, result.model, transport=result.transport):
        picture = torch.where(drawn.mask[0, ..., None], drawn.image[0], drawn.image.new_tensor(BACKDROP))
        halved = avg_pool2d(picture.clamp(0.0, 1.0).permute(2, 0, 1), 2).permute(1, 2, 0)
        pictures.append(encode_srgb(halved))
    return pictures


def turntable(result: PhotoResult, size: int) -> bytes:
    """A looping GIF: head yaw −30° … +30° and back under the photo's light, eased at the ends, 20 frames per second."""
    half = FRAMES // 2
    yaws = [-TURN * math.cos(math.pi * number / half) for number in range(half + 1)]
    frames = [to_pillow(studio_view(result, yaw, size)) for yaw in yaws]
    palette = _shared_palette(frames)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    loop = indexed + indexed[-2:0:-1]
    stream = io.BytesIO()
    loop[0].save(
        stream,
        "GIF",
        save_all=True,
        append_images=loop[1:],
        duration=1000 // FRAMES_PER_SECOND,
        loop=0,
        optimize=False,
        disposal=1,
    )
    return stream.getvalue()


def _shared_palette(frames: list[Image.Image]) -> Image.Image:
    """256 colours for the whole loop, so that nothing flickers."""
    chosen = [frames[0], frames[len(frames) // 2], frames[-1]]
    width, height = chosen[0].size
    montage = Image.new("RGB", (width * len(chosen), height))
    for number, frame in enumerate(chosen):
        montage.paste(frame, (number * width, 0))
    return montage.quantize(256, method=Image.Quantize.MEDIANCUT)
