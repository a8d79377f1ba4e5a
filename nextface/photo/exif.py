"""The focal length that a camera wrote into a photo."""

from __future__ import annotations

import math
from typing import Any

from PIL import Image

FILM_DIAGONAL = 43.27
"""Of the 36 x 24 mm frame that 35 mm equivalents refer to."""
_MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0}


def focal_pixels(exif: Image.Exif, width: int, height: int) -> float | None:
    """Focal length in pixels of the full frame, or None.

    From the 35 mm equivalent, f_px = f35 · diagonal_px / 43.27; else from the focal length and the sensor's resolution.
    Ignored when EXIF's own pixel sizes disagree with the file's in aspect: the photo was cropped after it was taken.
    """
    try:
        tags = exif.get_ifd(0x8769)
    except Exception:  # damaged EXIF raises whatever the parser stumbled on; the photo is fine without it
        return None
    stated = _number(tags.get(0xA002)), _number(tags.get(0xA003))
    if all(stated):
        aspect = max(stated) / min(stated)
        if abs(aspect / (max(width, height) / min(width, height)) - 1.0) > 0.02:
            return None
    equivalent = _number(tags.get(0xA405))
    if 5.0 <= equivalent <= 3000.0:
        return equivalent * math.hypot(width, height) / FILM_DIAGONAL
    focal, resolution = _number(tags.get(0x920A)), _number(tags.get(0xA20E))
    unit = _MILLIMETRES.get(int(_number(tags.get(0xA210)) or 2), 25.4)
    if focal and resolution and all(stated):
        pixels = focal * resolution / unit * max(width, height) / max(stated)
        if 0.1 < pixels / max(width, height) < 100.0:
            return pixels
    return None


def _number(value: Any) -> float:
    """A positive finite number, else 0."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if math.isfinite(number) and number > 0.0 else 0.0
