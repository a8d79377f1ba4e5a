"""A photo as it lies on disk: any common file, upright, convertible to linear Rec.709 window by window."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from nextface.errors import InputError, MissingPackageError
from nextface.photo.colour_space import LINEAR, ColourSpace, profile_space, srgb_encode, srgb_space
from nextface.photo.exif import focal_pixels

logger = logging.getLogger(__name__)

SMALLEST_SIDE = 32
RAW_SUFFIXES = frozenset(".cr2 .cr3 .nef .arw .dng .raf .rw2 .orf .pef .srw".split())
_FORMATS = "JPEG, PNG, WebP, TIFF, EXR"
_ROWS = 512


@dataclass(frozen=True)
class SourcePhoto:
    """The whole upright frame, kept in its stored integer type: 100 megapixels of 8 bit take 300 MB.

    stored: RGB as in the file. [H, W, 3] uint8, uint16, or float32 (linear)
    alpha:  opacity 0..1 quantised to uint8, None where the file has none. [H, W]
    space:  how stored values become linear Rec.709
    focal:  pixels of the full frame, from EXIF; None when unknown
    """

    path: Path
    stored: np.ndarray
    alpha: np.ndarray | None
    space: ColourSpace
    focal: float | None

    @property
    def height(self) -> int:
        return self.stored.shape[0]

    @property
    def width(self) -> int:
        return self.stored.shape[1]

    @property
    def pixels(self) -> np.ndarray:
        """The whole frame, linear Rec.709. [H, W, 3] float32 (12 bytes per pixel: prefer `linear` for a window)."""
        return self.linear(0, self.height, 0, self.width)

    @property
    def opaque(self) -> np.ndarray:
        """False where alpha < 0.5. [H, W] bool"""
        return np.ones(self.stored.shape[:2], bool) if self.alpha is None else self.alpha >= 128

    def linear(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """A window of the frame, linear Rec.709. [bottom - top, right - left, 3] float32"""
        return self.space.linear(self.stored[top:bottom, left:right])

    def srgb8(self) -> np.ndarray:
        """The frame for detectors: sRGB, transparent pixels mid-grey. [H, W, 3] uint8; may share memory with `stored`."""
        if self.alpha is None and self.stored.dtype == np.uint8 and _is_srgb(self.space):
            return self.stored
        encoded = np.empty((self.height, self.width, 3), np.uint8)
        for top in range(0, self.height, _ROWS):
            rows = slice(top, top + _ROWS)
            values = srgb_encode(self.space.linear(self.stored[rows])) * 255.0
            if self.alpha is not None:
                opacity = self.alpha[rows, :, None] / np.float32(255.0)
                values = values * opacity + 128.0 * (1.0 - opacity)
            encoded[rows] = np.rint(values)
        return encoded


def load_image(path: Path | str) -> SourcePhoto:
    """Read a photo of any common kind: 8 or 16 bit, grey, palette, CMYK, alpha, EXIF-rotated, with an ICC profile; EXR and
    HDR are taken as linear Rec.709. Raises InputError with the file's name and the remedy."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give an image file")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if not data:
        raise InputError(f"{path}: the file is empty; copy it again")
    if path.suffix.lower() in RAW_SUFFIXES:
        raise InputError(f"{path}: a camera's raw file; develop it to a 16-bit TIFF first")
    if path.suffix.lower() in (".exr", ".hdr"):
        source = _from_linear(path, data)
    else:
        source = _from_pillow(path, data)
    if min(source.height, source.width) < SMALLEST_SIDE:
        raise InputError(
            f"{path}: {source.width} x {source.height} pixels are too few for a face; "
            f"give a photo of at least {SMALLEST_SIDE} pixels a side"
        )
    return source


def _from_pillow(path: Path, data: bytes) -> SourcePhoto:
    image = _open(path, data)
    if image is None:
        return _from_float_tiff(path, data)
    try:
        image.load()
        exif = image.getexif()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"{path}: the image is damaged or truncated ({error}); copy or export it again") from error
    except MemoryError:
        raise InputError(
            f"{path}: {image.width} x {image.height} pixels do not fit into memory; scale it down"
        ) from None
    profile = image.info.get("icc_profile") or b""
    alpha = None
    deep = _deep_values(path, data, image)
    if deep is not None:
        stored, alpha = deep
    elif image.mode == "F":
        stored = np.asarray(image)[..., None]
    else:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            alpha = np.asarray(image.getchannel("A"))
            image = image.convert("RGB")
        if image.mode not in ("RGB", "L") or (profile and profile_space(profile, np.dtype(np.uint8)) is None):
            image, profile = _to_srgb(path, image, profile)
        stored = np.asarray(image if image.mode == "RGB" else image.convert("L"))
    stored = np.atleast_3d(stored)
    if np.issubdtype(stored.dtype, np.floating):
        space = LINEAR
    else:
        space = (profile_space(profile, stored.dtype) if profile else None) or srgb_space(stored.dtype)
    if stored.shape[2] == 1:
        stored = np.repeat(stored, 3, axis=2)
    focal = focal_pixels(exif, stored.shape[1], stored.shape[0])
    orientation = exif.get(0x0112, 1)
    return SourcePhoto(
        path=path,
        stored=_upright(stored, orientation),
        alpha=None if alpha is None or alpha.min() == 255 else _upright(alpha, orientation),
        space=space,
        focal=focal,
    )


def _open(path: Path, data: bytes) -> Image.Image | None:
    """The undecoded image; None for a TIFF of a kind that Pillow does not know."""
    if path.suffix.lower() in (".heic", ".heif"):
        try:
            import pillow_heif  # type: ignore[import-not-found]
        except ImportError:
            raise MissingPackageError(
                f"{path}: HEIC needs one more package: pip install pillow-heif (or export the photo as JPEG)"
            ) from None
        pillow_heif.register_heif_opener()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(BytesIO(data))
    except UnidentifiedImageError:
        if data[:4] in (b"II*\0", b"MM\0*"):
            return None
        raise InputError(
            f"{path}: not an image that can be read; give {_FORMATS} or another common image file"
        ) from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: more than 178 megapixels; scale the photo down") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: the image is damaged ({error}); copy or export it again") from error


def _deep_values(path: Path, data: bytes, image: Image.Image) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Values and alpha of a PNG or TIFF with more than 8 bits a channel, which Pillow would cut to 8; None for others."""
    if image.format == "PNG":
        deep = data[24] == 16
    elif image.format == "TIFF":
        deep = max(np.atleast_1d(image.tag_v2.get(258, 8))) > 8  # type: ignore[attr-defined]
    else:
        deep = image.mode.startswith("I")
    if not deep or image.mode in ("F", "CMYK", "LAB"):
        return None
    values = _opencv_values(data)
    if values is None and image.mode.startswith("I"):
        values = np.asarray(image).astype(np.uint16), None
    if values is None:
        logger.warning("%s: its more than 8 bits a channel are read as 8", path.name)
    return values


def _opencv_values(data: bytes) -> tuple[np.ndarray, np.ndarray | None] | None:
    """RGB or grey values `[H, W, 3|1]` of more than 8 bits and alpha `[H, W]` uint8 as OpenCV reads them, None if it cannot."""
    import cv2

    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype not in (np.uint16, np.float32, np.float64):
        return None
    values = np.atleast_3d(values)
    alpha = None
    if values.shape[2] in (2, 4):
        top = 65535.0 if values.dtype == np.uint16 else 1.0
        alpha = np.rint(np.clip(values[..., -1] / top, 0.0, 1.0) * 255.0).astype(np.uint8)
        values = values[..., :-1]
    return values[..., ::-1] if values.shape[2] == 3 else values, alpha


def _to_srgb(path: Path, image: Image.Image, profile: bytes) -> tuple[Image.Image, bytes]:
    """8-bit sRGB of an image in another mode or with a look-up-table profile, by its profile if that works."""
    if image.mode in ("P", "PA", "1", "HSV", "YCbCr"):
        image = image.convert("RGB")
    elif image.mode in ("LA", "La"):
        image = image.convert("L")
    if profile and profile_space(profile, np.dtype(np.uint8)) is not None and image.mode in ("RGB", "L"):
        return image, profile
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted, b""
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            logger.warning("%s: its colour profile is not usable (%s), taken as sRGB", path.name, error)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        if converted is not None:
            return converted, b""
    return (image if image.mode in ("RGB", "L") else image.convert("RGB")), b""


def _from_float_tiff(path: Path, data: bytes) -> SourcePhoto:
    """A TIFF of floats (linear) or of 16-bit values in a layout that Pillow does not know."""
    deep = _opencv_values(data)
    if deep is None:
        raise InputError(f"{path}: the TIFF is damaged or of an unusual kind; export it as 8 or 16-bit RGB")
    stored, alpha = deep
    stored = np.repeat(stored, 3, axis=2) if stored.shape[2] == 1 else np.ascontiguousarray(stored)
    space = LINEAR if np.issubdtype(stored.dtype, np.floating) else srgb_space(stored.dtype)
    return SourcePhoto(path=path, stored=stored, alpha=alpha, space=space, focal=None)


def _from_linear(path: Path, data: bytes) -> SourcePhoto:
    """EXR or Radiance HDR, taken as linear Rec.709."""
    alpha = None
    if path.suffix.lower() == ".exr":
        try:
            import OpenEXR
        except ImportError:
            raise MissingPackageError(f"{path}: EXR needs one more package: pip install OpenEXR") from None
        try:
            with OpenEXR.File(str(path), separate_channels=True) as file:
                channels = {name: channel.pixels for name, channel in file.channels().items()}
        except (RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"{path}: the EXR file is damaged ({error}); export it again") from error
        names = ("R", "G", "B") if "R" in channels else ("Y", "Y", "Y")
        if any(name not in channels for name in names):
            raise InputError(f"{path}: has the channels {', '.join(channels)}; an EXR photo needs R, G, B")
        stored = np.stack([channels[name].astype(np.float32) for name in names], -1)
        if "A" in channels:
            alpha = np.rint(np.clip(channels["A"].astype(np.float32), 0.0, 1.0) * 255.0).astype(np.uint8)
    else:
        import cv2

        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if values is None:
            raise InputError(f"{path}: the HDR file is damaged; export it again")
        stored = np.ascontiguousarray(values[..., ::-1]).astype(np.float32)
    if alpha is not None and alpha.min() == 255:
        alpha = None
    return SourcePhoto(path=path, stored=stored, alpha=alpha, space=LINEAR, focal=None)


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (1..8, tag 0x0112): rows and columns as a viewer shows them."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)


def _is_srgb(space: ColourSpace) -> bool:
    """Whether 8-bit values of this space are sRGB to within half a step."""
    if space.matrix is not None or space.curves is None or space.curves.shape[1] != 256:
        return False
    return bool(np.abs(srgb_encode(space.curves) * 255.0 - np.arange(256)).max() < 0.5)
