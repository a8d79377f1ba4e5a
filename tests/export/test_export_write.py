"""Which files a result folder gets, what the pictures hold, and what happens when a file cannot be written."""

from __future__ import annotations

import errno
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nextface import export
from nextface.errors import ConfigError, OutputError
from nextface.export.curves import loss_curve
from nextface.export.files import write_bytes
from nextface.export.images import data_uri, encode_srgb, feathered

EVERYTHING = """camera_0.json checkpoints/stage1_loss.png checkpoints/stage3_loss.png confidenceMap_0.png diffuseMap_0.png
envMap_0.png landmarks0.png material0.mtl mesh0.glb mesh0.obj metrics.json normalMap_0.png overlay_0.jpg photoTexture_0.png
render_0.png report.html roughnessMap_0.png specularMap_0.png turntable_0.gif""".split()


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_every_file_and_no_leftovers(folder):
    assert files(folder) == sorted(EVERYTHING)


def test_the_default_leaves_the_photo_texture_out(reconstruction, tmp_path):
    assert set(export.SUBSETS) - set(export.DEFAULT) == {"photo_texture"}
    written = export.write(reconstruction, tmp_path, {"mesh"})
    assert sorted(path.name for path in written) == files(tmp_path)
    maps = [f"{name}Map_0.png" for name in ("confidence", "diffuse", "normal", "roughness", "specular")]
    assert files(tmp_path) == [maps[0], maps[1], "material0.mtl", "mesh0.obj", *maps[2:]]


def test_unknown_subset_names_the_nearest(reconstruction, tmp_path):
    with pytest.raises(ConfigError, match="'turntabel'; did you mean 'turntable'"):
        export.write(reconstruction, tmp_path, {"turntabel"})
    assert files(tmp_path) == []


def test_maps_hold_the_scene(reconstruction, folder):
    images = reconstruction.scene.maps.images()
    diffuse = picture(folder / "diffuseMap_0.png") / 255.0
    linear = np.where(diffuse <= 0.04045, diffuse / 12.92, ((diffuse + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(linear, images["diffuse"][0].numpy(), atol=0.006)
    for name in ("specular", "roughness"):
        stored = picture(folder / f"{name}Map_0.png") / 255.0
        np.testing.assert_allclose(stored, images[name][0, ..., 0].numpy(), atol=0.0021)
    normal = picture(folder / "normalMap_0.png") / 127.5 - 1.0
    np.testing.assert_allclose(normal, images["normal"][0].numpy(), atol=0.0041)
    assert abs(picture(folder / "confidenceMap_0.png").mean() - 127.5) <= 0.5


def test_a_scene_without_maps_exports_the_statistical_skin(reconstruction, tmp_path):
    export.write(replace(reconstruction, scene=replace(reconstruction.scene, maps=None)), tmp_path, {"maps"})
    assert (picture(tmp_path / "normalMap_0.png") == (128, 128, 255)).all()
    assert not picture(tmp_path / "confidenceMap_0.png").any()
    model = reconstruction.model
    uv, colour = model.uv.numpy(), encode_srgb(model.diffuse_mean[model.uv_to_vertex][None])[0]
    texels = picture(tmp_path / "diffuseMap_0.png")
    rows, columns = ((1 - uv[:, 1]) * 256).astype(int), (uv[:, 0] * 256).astype(int)
    off = np.abs(texels[rows.clip(0, 255), columns.clip(0, 255)].astype(int) - colour).max(1)
    assert np.percentile(off, 90) <= 12


def test_strip_has_seven_panels_and_starts_with_the_photo(reconstruction, folder):
    photo = reconstruction.photo
    strip = picture(folder / "render_0.png")
    assert strip.shape == (photo.height, 7 * photo.width, 3)
    panels = np.split(strip, 7, axis=1)
    np.testing.assert_array_equal(panels[0], encode_srgb(photo.image))
    face = (panels[2].max(-1) > 0) & (panels[6].max(-1) > 0)
    assert 0.1 < face.mean() < 0.9
    np.testing.assert_array_equal(panels[1][panels[3].max(-1) == 0], panels[0][panels[3].max(-1) == 0])
    grey = panels[5][face]
    assert (grey == grey[:, :1]).all()


def test_debug_strip_goes_where_nextface_puts_it(reconstruction, tmp_path):
    scene = replace(reconstruction.scene, maps=None)
    path = export.debug_strip(tmp_path, 2, 30, reconstruction.photo, scene, reconstruction.model)
    assert path == tmp_path / "debug" / "debug2_iter30_frame0.png"
    assert picture(path).shape[1] == 7 * reconstruction.photo.width


def test_overlay_keeps_the_frame_around_the_face(reconstruction, folder):
    source, crop = reconstruction.photo.source, reconstruction.photo.crop
    overlay = picture(folder / "overlay_0.jpg").astype(int)
    assert overlay.shape == (source.height, source.width, 3)
    off = np.abs(overlay - source.srgb8().astype(int)).mean(-1)
    inside = np.zeros(off.shape, bool)
    top, left = round(crop.top), round(crop.left)
    inside[top : top + round(crop.height / crop.scale), left : left + round(crop.width / crop.scale)] = True
    assert inside.any() and not inside.all()
    assert off[~inside].mean() < 6.0


def test_landmarks_are_dots_at_their_places(reconstruction, folder):
    photo = reconstruction.photo
    drawn = picture(folder / "landmarks0.png")
    factor = drawn.shape[1] // photo.width
    assert drawn.shape == (photo.height * factor, photo.width * factor, 3) and factor >= 4
    x, y = (photo.landmarks.points * factor).round().long().T.numpy()
    green = drawn[y, x].astype(int)
    assert (green[:, 1] - green[:, 0] > 60).mean() > 0.9


def test_turntable_turns_at_twenty_frames_a_second(folder):
    gif = Image.open(folder / "turntable_0.gif")
    assert gif.n_frames == 32 and gif.info["duration"] == 50 and gif.info["loop"] == 0
    centres = []
    for number in range(gif.n_frames):
        gif.seek(number)
        frame = np.asarray(gif.convert("RGB")).astype(float)
        centres.append(frame)
    to_and_fro = [np.abs(frame - centres[0]).mean() for frame in centres]
    assert np.argmax(to_and_fro) == 16
    assert np.abs(centres[31] - centres[1]).mean() < 1.0


class References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "link", "iframe")
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_is_one_self_contained_page(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    reader = References()
    reader.feed(text)
    assert reader.open == []
    assert len(reader.sources) > 30 and all(source.startswith("data:image/") for source in reader.sources)
    assert "someone &amp; co.png" in text and "textureResolution" in text
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)


def test_metrics_say_what_made_the_numbers(reconstruction, folder):
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["seed"] == 7 and metrics["accepted_pixels"] == 123
    assert metrics["settings"]["textureResolution"] == 256
    assert metrics["timings_seconds"]["maps"] == 1.5 and metrics["timings_seconds"]["export"]["glb"] > 0
    assert metrics["losses"]["pose"] == {"iterations": 3, "first": 9.0, "last": 1.0}
    assert metrics["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert metrics["residuals"]["landmarks_rms_px"] < 0.01
    assert metrics["residuals"]["covered_pixels"] > 1000 and metrics["residuals"]["psnr_db"] > 15.0


def test_photo_texture_shows_what_the_photo_shows(reconstruction, folder):
    photo, scene, model = reconstruction.photo, reconstruction.scene, reconstruction.model
    texture = picture(folder / "photoTexture_0.png").astype(int)
    points = scene.vertices_camera(model)[0][model.uv_to_vertex]
    pixels = photo.crop.to_full(scene.focal * points[:, :2] / points[:, 2:] + scene.principal)
    near = points[:, 2] < points[:, 2].min() + 45.0
    x, y = pixels[near].long().T.numpy()
    u, v = model.uv[near].T.numpy()
    frame = photo.source.srgb8().astype(int)
    off = np.abs(texture[((1 - v) * 256).astype(int), (u * 256).astype(int)] - frame[y, x]).max(1)
    assert near.sum() > 30 and np.median(off) < 8


def test_same_bytes_again(reconstruction, folder, tmp_path):
    export.write(reconstruction, tmp_path, set(export.SUBSETS) - {"report", "metrics"})
    for name in files(tmp_path):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_file_in_the_way_is_named_with_the_remedy(reconstruction, tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OutputError, match=r"taken.*in the way.*--output"):
        export.write(reconstruction, tmp_path / "taken", {"camera"})
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    target = tmp_path / "mesh0.glb"
    write_bytes(target, b"old")

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"mesh0\.glb.*the disk is full; free some space"):
        write_bytes(target, b"new")
    assert target.read_bytes() == b"old" and files(tmp_path) == ["mesh0.glb"]


@pytest.mark.parametrize("losses", [[1.0], [2.0, 2.0], [float("nan"), 1.0, 5.0], [-1.0, 0.0, 3.0], [float("inf")], []])
def test_loss_curves_of_odd_runs(losses):
    assert loss_curve(losses, "stage").size == (560, 320)


def test_a_falling_loss_falls_in_the_picture():
    drawn = np.asarray(loss_curve(list(np.geomspace(100.0, 1.0, 50)), "stage")).astype(int)
    blue = (drawn[..., 2] - drawn[..., 0] > 80) & (np.arange(320)[:, None] > 36)
    rows = np.arange(320)[:, None]
    left, right = blue[:, 80:120], blue[:, -60:-20]
    assert (rows * left).sum() / left.sum() + 100 < (rows * right).sum() / right.sum()


def test_a_contour_is_softened_inwards_only():
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[2:7, 2:7] = True
    opacity = feathered(mask)[..., 0]
    assert (opacity[~mask] == 0).all() and opacity[4, 4] == pytest.approx(1.0)
    assert 0.0 < opacity[2, 4] < 1.0


def test_data_uri_holds_the_picture():
    stream = BytesIO()
    Image.new("RGB", (3, 2)).save(stream, "PNG")
    assert data_uri(stream.getvalue(), "png").startswith("data:image/png;base64,iVBOR")
