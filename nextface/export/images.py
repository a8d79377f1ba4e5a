"""Linear tensors to 8-bit pictures and PNG bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from nextface.color import linear_to_srgb
from nextface.textures import SkinMaps, row_strips

PNG_LEVEL = 1  # zlib effort: at 512² level 1 is several times faster than 6 and the file a few percent larger


def encode_srgb(linear: Tensor) -> np.ndarray:
    """Linear Rec.709 `[H, W, C]` to sRGB bytes, uint8 `[H, W, C]`."""
    return _bytes(linear, linear_to_srgb)


def encode_linear(values: Tensor) -> np.ndarray:
    """Values in 0..1 `[H, W, C]` to bytes without a curve, uint8 `[H, W, C]`."""
    return _bytes(values, lambda strip: strip)


def encode_normal(normal: Tensor) -> np.ndarray:
    """Unit vectors `[H, W, 3]` to bytes: 0.5 + 0.5 n, so that a flat normal is (128, 128, 255)."""
    return _bytes(normal, lambda strip: 0.5 + 0.5 * strip)


def _bytes(picture: Tensor, curve: Callable[[Tensor], Tensor]) -> np.ndarray:
    """A picture through a curve to 0..1, as bytes, strip by strip."""
    found = np.empty(tuple(picture.shape), np.uint8)
    for rows in row_strips(*picture.shape[:2]):
        strip = curve(picture[rows].detach().cpu()).nan_to_num().clamp(0.0, 1.0)
        found[rows] = (strip * 255.0 + 0.5).to(torch.uint8).numpy()
    return found


def map_pictures(maps: SkinMaps, row: int) -> dict[str, np.ndarray]:
    """One identity's skin maps as they are stored: diffuse (sRGB), specular, roughness, normal and confidence (linear), uint8
    `[T, T, 1|3]`."""
    encoders = {"diffuse": encode_srgb, "specular": encode_linear, "roughness": encode_linear, "normal": encode_normal}
    pictures = {name: encode(maps.image(name)[row]) for name, encode in encoders.items()}
    return {**pictures, "confidence": encode_linear(maps.confidence[row])}


def as_rgb(picture: np.ndarray) -> np.ndarray:
    """`[H, W, 1|3]` to `[H, W, 3]`."""
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def to_pillow(picture: np.ndarray) -> Image.Image:
    """uint8 `[H, W, 1|3|4]` to a Pillow image."""
    return Image.fromarray(np.ascontiguousarray(picture[..., 0] if picture.shape[2] == 1 else picture))


def png(picture: np.ndarray | Image.Image) -> bytes:
    """PNG bytes of uint8 `[H, W, 1|3|4]`, row 0 on top."""
    image = picture if isinstance(picture, Image.Image) else to_pillow(picture)
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=PNG_LEVEL)
    return stream.getvalue()


def jpeg(picture: np.ndarray | Image.Image, quality: int = 90) -> bytes:
    """JPEG bytes of uint8 `[H, W, 3]` sRGB."""
    image = picture if isinstance(picture, Image.Image) else to_pillow(picture)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """A picture as text for a web page; kind: "png", "jpeg" or "gif"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def feathered(mask: Tensor) -> Tensor:
    """Opacity of a rendering whose contour is softened inwards by about a pixel. bool `[H, W]` -> `[H, W, 1]`."""
    coverage = avg_pool2d(mask[None, None].float(), 3, 1, 1)[0, 0]
    return (((coverage - 1.0 / 3.0) * 1.5).clamp(0.0, 1.0) * mask)[..., None]


def over(image: Tensor, mask: Tensor, background: Tensor) -> Tensor:
    """Lay a linear rendering `[H, W, C]` over a linear background that broadcasts to it."""
    opacity = feathered(mask)
    return opacity * image + (1.0 - opacity) * background
