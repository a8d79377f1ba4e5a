"""The README's picture from the result folder of one photo: the strip, below it the skin maps and relit views.

Usage: python tools/readme_picture.py output/portrait.png [docs/images/portrait_strip.jpg]
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from PIL import Image

from nextface.export import load
from nextface.export.lights import STUDIO_LIGHTS
from nextface.export.result import PhotoResult
from nextface.export.studio import relit_views

ROOT = Path(__file__).resolve().parents[1]
PANELS = 7  # of the strip; the second row has as many
GAP = 4
MAPS = ("diffuse", "specular", "roughness", "normal")
VIEWS = (("key from the left", -30.0), ("key from the right", 15.0), ("two colours", 35.0))


def relit(folder: Path, size: int) -> list[Image.Image]:
    """The head under lights that it was not photographed in, turned by so many degrees."""
    run = load(folder / "checkpoints" / "stage3_output.safetensors")
    result = PhotoResult(0, run.scene, run.model)
    lights = {light.name: light.radiance(run.scene.bands) for light in STUDIO_LIGHTS}
    return [Image.fromarray(relit_views(result, math.radians(yaw), size, [lights[name]])[0]) for name, yaw in VIEWS]


def picture(folder: Path) -> Image.Image:
    """Both rows."""
    strip = Image.open(folder / "render_0.png").convert("RGB")
    size = (strip.width - (PANELS - 1) * GAP) // PANELS
    maps = [Image.open(folder / f"{name}Map_0.png").convert("RGB").resize((size, size)) for name in MAPS]
    whole = Image.new("RGB", (strip.width, strip.height + GAP + size))
    whole.paste(strip, (0, 0))
    for column, square in enumerate([*maps, *relit(folder, size)]):
        whole.paste(square, (round(column * (strip.width - size) / (PANELS - 1)), strip.height + GAP))
    return whole


if __name__ == "__main__":
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs" / "images" / "portrait_strip.jpg"
    picture(Path(sys.argv[1])).save(target, quality=90, optimize=True)
