"""The estimated light as an environment map."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import Tensor

from nextface.errors import MissingPackageError
from nextface.export.images import encode_srgb, png
from nextface.rendering.sh import environment_map, windowed


def light_map(radiance: Tensor, height: int, smooth: bool) -> Tensor:
    """Equirectangular radiance, linear Rec.709, not negative. `[L, 3] -> [H, 2H, 3]`.

    smooth: low-pass the SH first so that strong lamps do not ring.
    """
    return environment_map(windowed(radiance) if smooth else radiance, height).clamp_min(0.0)


def light_png(environment: Tensor) -> bytes:
    """sRGB bytes; radiance above 1 is clipped."""
    return png(encode_srgb(environment))


def light_exr(environment: Tensor) -> bytes:
    """OpenEXR, three float channels, linear Rec.709, zip-compressed."""
    try:
        import OpenEXR
    except ImportError as error:
        raise MissingPackageError("saveExr needs the package OpenEXR: pip install OpenEXR") from error
    pixels = environment.detach().cpu().contiguous().numpy()
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "light.exr"
        with OpenEXR.File(header, {"RGB": pixels}) as file:
            file.write(str(path))
        return path.read_bytes()
