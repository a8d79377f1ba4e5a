"""Pictures on the photo itself: the reconstruction in the original frame, the landmarks, and the photo baked into the UV map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from nextface.export.images import encode_linear, encode_srgb, feathered, jpeg, to_pillow
from nextface.export.result import PhotoResult
from nextface.photo import Photo
from nextface.rendering.backend import rasterizer_for
from nextface.rendering.bake import bake
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import fragments
from nextface.rendering.render import render
from nextface.scene import Scene

LARGEST_DRAWING = 1024  # pixels; a larger face is drawn at this size and enlarged
LANDMARK_PICTURE = 768
DOT, DOT_EDGE = (64, 224, 120), (10, 40, 20)
DEPTH_TOLERANCE = 3.0  # mm a texel may lie behind the nearest surface and still count as seen


def enlarged(scene: Scene, longest: int) -> Scene:
    """The same view with the crop drawn at `longest` pixels on its longer side."""
    factor = longest / max(scene.height, scene.width)
    return replace(
        scene,
        height=round(scene.height * factor),
        width=round(scene.width * factor),
        focal=scene.focal * factor,
        principal=scene.principal * factor,
    )


def overlay(result: PhotoResult, photo: Photo) -> bytes:
    """The original frame at its own resolution with the reconstruction laid over the face; JPEG bytes."""
    frame = Image.fromarray(photo.source.srgb8()).copy()
    crop = photo.crop
    size = round(crop.width / crop.scale), round(crop.height / crop.scale)
    drawing = render(enlarged(result.scene, min(max(size), LARGEST_DRAWING)), result.model, transport=result.transport)
    picture = to_pillow(encode_srgb(drawing.image[0])).resize(size, Image.Resampling.BILINEAR)
    opacity = to_pillow(encode_linear(feathered(drawing.mask[0]))).resize(size, Image.Resampling.BILINEAR)
    frame.paste(picture, (round(crop.left), round(crop.top)), opacity)
    return jpeg(frame)


def landmarks(photo: Photo) -> Image.Image:
    """Detected landmarks on the crop, which is enlarged so that the points can be told apart."""
    factor = max(1, round(LANDMARK_PICTURE / max(photo.width, photo.height)))
    picture = to_pillow(encode_srgb(photo.image)).resize(
        (photo.width * factor, photo.height * factor), Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(picture)
    radius = 2.0 if len(photo.landmarks.points) > 100 else 4.0
    for x, y in (photo.landmarks.points * factor).tolist():
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=DOT, outline=DOT_EDGE)
    return picture


def photo_texture(result: PhotoResult, photo: Photo, resolution: int) -> np.ndarray:
    """The photo's own colours, light and all, in the UV layout: sRGB bytes [T, T, 3].

    Texels that the photo does not show are taken from their mirror image, and where that is hidden too from the diffuse map
    in the photo's mean tone; the transitions are soft.
    """
    model, scene = result.model, result.scene
    window = _window(photo, 2 * resolution)
    position = bake(result.vertices_camera[None], model, resolution)[0]
    normal = bake(result.normals_camera[None], model, resolution)[0]
    to_camera = -torch.nn.functional.normalize(position, dim=-1)
    facing = (torch.nn.functional.normalize(normal, dim=-1) * to_camera).sum(-1)
    pixels = scene.focal * position[..., :2] / position[..., 2:].clamp_min(1.0) + scene.principal
    place = 2.0 * pixels / pixels.new_tensor([photo.width, photo.height]) - 1.0
    depth = _sample(_depth(result)[..., None], place, "nearest")[..., 0]
    inside = (place.abs() < 1.0).all(-1)
    seen = ((facing - 0.15) / 0.25).clamp(0.0, 1.0) * inside * (position[..., 2] < depth + DEPTH_TOLERANCE)
    weight = _softened(seen[..., None])
    colour = _sample(window, place, "bilinear")
    assert scene.maps is not None
    albedo = scene.maps.image("diffuse")[0]
    measured = weight[..., 0] > 0.9
    tone = colour[measured].mean(0) / albedo[measured].mean(0).clamp_min(1e-3) if measured.any() else albedo.new_ones(3)
    rest = weight.flip(1) * colour.flip(1) + (1.0 - weight.flip(1)) * albedo * tone
    return encode_srgb(weight * colour + (1.0 - weight) * rest)


def _window(photo: Photo, longest: int) -> Tensor:
    """The crop's window of the full frame, linear, at most `longest` pixels a side. [H, W, 3]"""
    crop = photo.crop
    left, top = round(crop.left), round(crop.top)
    right, bottom = left + round(crop.width / crop.scale), top + round(crop.height / crop.scale)
    pixels = torch.from_numpy(np.ascontiguousarray(photo.source.linear(top, bottom, left, right)))
    scale = longest / max(pixels.shape[:2])
    if scale >= 1.0:
        return pixels
    size = round(pixels.shape[0] * scale), round(pixels.shape[1] * scale)
    return interpolate(pixels.permute(2, 0, 1)[None], size, mode="area")[0].permute(1, 2, 0)


def _depth(result: PhotoResult) -> Tensor:
    """Depth of the nearest surface in the crop, mm, 0 where nothing is. [H, W]"""
    scene = enlarged(result.scene, LARGEST_DRAWING)
    camera, vertices = Camera.of(scene), result.vertices_camera[None]
    pixels = rasterizer_for(vertices.device).visible_triangles(vertices, result.model.triangles, camera)
    depth = fragments(vertices, result.model.triangles, pixels, camera).interpolate(vertices[..., 2:])
    return pixels.unpack(depth)[0, ..., 0]


def _sample(image: Tensor, place: Tensor, mode: str) -> Tensor:
    """Look an image [H, W, C] up at places in -1..1 over its extent, [T, T, 2] -> [T, T, C]."""
    sampled = grid_sample(
        image.permute(2, 0, 1)[None], place[None], mode=mode, padding_mode="border", align_corners=False
    )
    return sampled[0].permute(1, 2, 0)


def _softened(weight: Tensor) -> Tensor:
    """Soften the border of a mask inwards over some ten texels. [T, T, 1]"""
    reach = max(3, weight.shape[0] // 64) | 1
    channels_first = weight.permute(2, 0, 1)[None]
    eroded = -torch.nn.functional.max_pool2d(-channels_first, reach, 1, reach // 2)
    blurred = torch.nn.functional.avg_pool2d(eroded, reach, 1, reach // 2, count_include_pad=False)
    return blurred[0].permute(1, 2, 0) * weight
