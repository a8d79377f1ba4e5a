"""Every common kind of image file becomes the same upright linear picture; every bad one says what is wrong with it."""

from __future__ import annotations

import logging
import os
import struct
import sys
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from nextface.errors import InputError, MissingPackageError
from nextface.photo import load_image
from nextface.photo.colour_space import profile_space, srgb_decode, srgb_encode

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def picture() -> np.ndarray:
    """A smooth colourful 48 x 64 picture without symmetry, sRGB. [48, 64, 3] uint8"""
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([40 + 3 * x, 30 + 4 * y, 200 - x - y], -1).astype(np.uint8)


def close(path, picture, steps):
    """The file reads as `picture`, to `steps` of 255 in sRGB."""
    source = load_image(path)
    assert source.pixels.dtype == np.float32 and source.pixels.shape == picture.shape
    error = np.abs(srgb_encode(source.pixels) * 255.0 - picture.astype(np.float32))
    assert error.mean() < steps and error.max() < 8 * steps + 1
    assert np.abs(source.srgb8().astype(int) - picture).mean() < steps + 0.1
    return source


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("a.png", {}, 0.01),
        ("a.bmp", {}, 0.01),
        ("a.tif", {"compression": "tiff_lzw"}, 0.01),
        ("a.jpg", {"quality": 95, "subsampling": 0}, 2.0),
        ("progressive.jpeg", {"quality": 95, "progressive": True}, 2.0),
        ("a.webp", {"lossless": True}, 0.01),
        ("no_suffix_of_its.kind", {"format": "PNG"}, 0.01),
    ],
)
def test_formats(tmp_path, picture, name, options, steps):
    Image.fromarray(picture).save(tmp_path / name, **options)
    source = close(tmp_path / name, picture, steps)
    assert source.opaque.all() and source.focal is None


def test_linear_is_exactly_srgb_decoded(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_allclose(load_image(tmp_path / "a.png").pixels, srgb_decode(picture / 255.0), atol=1e-6)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_colour_keeps_its_bits(tmp_path, picture, suffix):
    fine = (picture.astype(np.uint16) * 257 + 100).astype(np.uint16)
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), fine[..., ::-1])
    source = load_image(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(source.pixels, srgb_decode(fine / 65535.0), atol=1e-6)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_alpha_and_grey(tmp_path, picture, suffix):
    fine = picture.astype(np.uint16) * 257
    alpha = np.full((48, 64, 1), 65535, np.uint16)
    alpha[:10] = 0
    cv2.imwrite(str(tmp_path / f"rgba.{suffix}"), np.concatenate([fine[..., ::-1], alpha], -1))
    source = load_image(tmp_path / f"rgba.{suffix}")
    assert not source.opaque[:10].any() and source.opaque[10:].all()
    np.testing.assert_allclose(source.pixels[10:], srgb_decode(picture[10:] / 255.0), atol=1e-5)
    cv2.imwrite(str(tmp_path / f"grey.{suffix}"), fine[..., 0])
    grey = load_image(tmp_path / f"grey.{suffix}")
    np.testing.assert_allclose(grey.pixels, srgb_decode(picture[..., :1] / 255.0).repeat(3, 2), atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LAB"])
def test_modes(tmp_path, picture, mode):
    picture = picture.copy()
    if mode in ("L", "1"):
        picture[:] = picture[..., :1] if mode == "L" else 255 * (picture[..., :1] > 128)
    image = Image.fromarray(picture)
    if mode == "P":
        image = image.quantize(256)
    elif mode == "LAB":
        image = ImageCms.profileToProfile(
            image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    else:
        image = image.convert(mode)
    # Pillow 12.3 cannot read back an uncompressed YCbCr TIFF, not even its own.
    image.save(tmp_path / "a.tif", compression="tiff_lzw" if mode == "YCbCr" else None)
    close(tmp_path / "a.tif", picture, {"P": 6.0, "LAB": 4.0, "YCbCr": 2.0}.get(mode, 0.6))


def test_cmyk_jpeg(tmp_path, picture):
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "a.jpg", quality=97)
    close(tmp_path / "a.jpg", picture, 4.0)


def test_alpha_and_palette_transparency(tmp_path, picture):
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[:, :20] = 0
    alpha[:, 20:30] = 140
    Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "rgba.png")
    source = load_image(tmp_path / "rgba.png")
    assert not source.opaque[:, :20].any() and source.opaque[:, 20:].all()
    assert np.abs(source.srgb8()[:, :20].astype(int) - 128).max() <= 1
    np.testing.assert_array_equal(source.srgb8()[:, 30:], picture[:, 30:])
    Image.fromarray(picture[..., 0]).convert("P").save(tmp_path / "p.png", transparency=int(picture[0, 0, 0]))
    assert 0 < (~load_image(tmp_path / "p.png").opaque).sum() < 48 * 64
    grey = Image.merge("LA", [Image.fromarray(picture[..., 0]), Image.fromarray(alpha)])
    grey.save(tmp_path / "la.png")
    assert not load_image(tmp_path / "la.png").opaque[:, :20].any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_exif_orientation(tmp_path, picture, orientation, bits):
    from PIL import ImageOps

    stored = Image.fromarray(picture)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    if bits == 16:
        values = cv2.imencode(".png", picture[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
        chunk = b"eXIf" + exif.tobytes()[6:]
        extra = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "a.png").write_bytes(values[:33] + extra + values[33:])
    close(tmp_path / "a.png", expected, 0.01)


ADOBE_RED = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
"""Colorants of Adobe RGB (1998) relative to D50."""


def adobe_profile() -> bytes:
    """A matrix profile with Adobe RGB's colorants and gamma 563/256."""
    tags = {}
    for column, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ")):
        fixed = [round(value * 65536) for value in ADOBE_RED[:, column]]
        tags[name] = b"XYZ \0\0\0\0" + struct.pack(">3i", *fixed)
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        tags[name] = b"curv\0\0\0\0" + struct.pack(">IH", 1, 563) + b"\0\0"
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 6) + b"adobe\0" + bytes(79) + b"\0"
    tags[b"cprt"] = b"text\0\0\0\0none"
    table, body = b"", b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", 132 + len(table) + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


def test_matrix_profiles_agree_with_littlecms(picture):
    """Our own reading of curves and colorants against an independent implementation, within a step of 255."""
    from io import BytesIO

    profile = adobe_profile()
    ours = srgb_encode(profile_space(profile, np.dtype(np.uint8)).linear(picture)) * 255.0
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    theirs = ImageCms.profileToProfile(Image.fromarray(picture), source, ImageCms.createProfile("sRGB"))
    inside = (np.asarray(theirs) > 2) & (np.asarray(theirs) < 253)
    assert np.abs(ours - np.asarray(theirs))[inside].max() < 1.5
    assert np.abs(ours - picture).mean() > 2.0


def test_embedded_profile_8_and_16_bit(tmp_path, picture):
    profile = adobe_profile()
    expected = profile_space(profile, np.dtype(np.uint8)).linear(picture)
    Image.fromarray(picture).save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_allclose(load_image(tmp_path / "a.png").pixels, expected, atol=1e-6)
    Image.fromarray(picture).save(tmp_path / "a.jpg", icc_profile=profile, quality=97, subsampling=0)
    assert np.abs(load_image(tmp_path / "a.jpg").pixels - expected).mean() < 0.01
    values = cv2.imencode(".png", picture[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    chunk = b"iCCP" + b"p\0\0" + zlib.compress(profile)
    extra = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "b.png").write_bytes(values[:33] + extra + values[33:])
    np.testing.assert_allclose(load_image(tmp_path / "b.png").pixels, expected, atol=1e-4)


def test_srgb_profile_changes_nothing(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png", icc_profile=SRGB)
    close(tmp_path / "a.png", picture, 0.3)


def test_damaged_profile_is_taken_as_srgb(tmp_path, picture, caplog):
    Image.fromarray(picture).save(tmp_path / "a.png", icc_profile=b"nonsense" * 40)
    with caplog.at_level(logging.WARNING):
        close(tmp_path / "a.png", picture, 0.01)
    assert "colour profile" in caplog.text


def test_float_files_are_linear(tmp_path, picture):
    import OpenEXR

    linear = srgb_decode(picture / 255.0).astype(np.float32)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB": linear}).write(str(tmp_path / "a.exr"))
    np.testing.assert_allclose(load_image(tmp_path / "a.exr").pixels, linear, atol=1e-6)
    cv2.imwrite(str(tmp_path / "a.tif"), linear[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    np.testing.assert_allclose(load_image(tmp_path / "a.tif").pixels, linear, atol=1e-6)
    cv2.imwrite(str(tmp_path / "a.hdr"), linear[..., ::-1])
    assert np.abs(load_image(tmp_path / "a.hdr").pixels - linear).max() < 0.01


def save_with_camera(path, picture, tags):
    exif = Image.Exif()
    exif.get_ifd(0x8769).update(tags)
    Image.fromarray(picture).save(path, exif=exif)
    return load_image(path)


def test_focal_from_exif(tmp_path, picture):
    diagonal = np.hypot(64, 48)
    source = save_with_camera(tmp_path / "a.jpg", picture, {0xA405: 50, 0xA002: 6400, 0xA003: 4800})
    assert source.focal == pytest.approx(50 * diagonal / 43.27)
    rotated = save_with_camera(tmp_path / "b.jpg", picture, {0xA405: 50, 0xA002: 4800, 0xA003: 6400})
    assert rotated.focal == pytest.approx(50 * diagonal / 43.27)
    cropped = save_with_camera(tmp_path / "c.jpg", picture, {0xA405: 50, 0xA002: 6400, 0xA003: 6400})
    assert cropped.focal is None
    assert save_with_camera(tmp_path / "d.jpg", picture, {0xA405: 0}).focal is None
    # 50 mm on a 36 mm sensor of 6400 pixels: 177.78 pixels a millimetre
    plane = {0x920A: 50.0, 0xA20E: 6400 / 3.6, 0xA210: 3, 0xA002: 6400, 0xA003: 4800}
    assert save_with_camera(tmp_path / "e.jpg", picture, plane).focal == pytest.approx(64 * 50 / 36, rel=1e-3)


def test_bad_files(tmp_path, picture):
    def message(name, data=None):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(InputError) as caught:
            load_image(path)
        assert str(path) in str(caught.value) and caught.value.exit_code == 3
        return str(caught.value)

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(tmp_path / "ok.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(tmp_path / "ok.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(tmp_path / "ok.tif")
    assert "no such file" in message("missing.png")
    assert "empty" in message("empty.png", b"")
    assert "not an image" in message("text.png", b"hello, this is text")
    for kind in ("png", "jpg", "tif"):
        whole = (tmp_path / f"ok.{kind}").read_bytes()
        assert "damaged" in message(f"cut.{kind}", whole[: len(whole) // 2])
    assert "not an image" in message("head.png", b"\x89PNG")
    deep = cv2.imencode(".png", np.random.default_rng(0).integers(0, 65535, (99, 99, 3), np.uint16))[1].tobytes()
    assert "damaged" in message("deep.png", deep[: len(deep) // 2])
    assert "raw file" in message("a.NEF", b"II*\0")
    assert "EXR" in message("a.exr", b"nothing")
    assert "HDR" in message("a.hdr", b"nothing")
    (tmp_path / "folder").mkdir()
    assert "folder" in message("folder")
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    assert "1 x 1 pixels are too few" in message("one.png")
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    bomb += struct.pack(">I", 1) + b"IDAT" + b"x" + bytes(4)
    assert "megapixels" in message("bomb.png", bomb)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser reads everything")
def test_unreadable_file(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(InputError, match="permissions"):
        load_image(tmp_path / "a.png")


def test_heic_names_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(MissingPackageError, match="pip install pillow-heif"):
        load_image(tmp_path / "a.heic")


def test_hundred_megapixels_stay_small(tmp_path):
    """A 100-megapixel photo takes three bytes a pixel, and its decoding only what a window needs."""
    Image.new("RGB", (12000, 8400), (90, 120, 40)).save(tmp_path / "a.jpg", quality=70)
    tracemalloc.start()
    source = load_image(tmp_path / "a.jpg")
    window = source.linear(4000, 4100, 6000, 6100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert source.stored.nbytes < 310e6 and peak < 700e6
    assert source.srgb8() is source.stored
    np.testing.assert_allclose(window.mean((0, 1)), srgb_decode(np.array([90, 120, 40]) / 255.0), atol=0.01)
