"""What the report page shows, in which order and words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nextface.config import OptimConfig
from nextface.export import page
from nextface.export.curves import loss_curve
from nextface.export.images import as_rgb, data_uri, encode_normal, encode_srgb, jpeg, png, to_pillow
from nextface.export.light import light_map
from nextface.export.lights import STUDIO_LIGHTS
from nextface.export.measures import head_angles
from nextface.export.result import PhotoResult
from nextface.export.strips import panels
from nextface.export.studio import relit_views
from nextface.photo import Photo

if TYPE_CHECKING:
    from nextface.reconstruction import Reconstruction

RELIT_SIZE = 224
RELIT_YAWS = (-35.0, 0.0, 35.0)
MAP_SIZE = 400
PANEL_NOTES = {
    "overlay": "reconstruction over the photo",
    "illumination": "the light on white skin",
    "diffuse": "albedo, sRGB",
    "specular": "Fresnel weight, linear",
    "roughness": "linear",
}


def report(
    result: PhotoResult,
    run: Reconstruction,
    residuals: Mapping[str, float | None],
    maps: Mapping[str, np.ndarray],
    turntable: bytes | None,
    landmarks: bytes,
) -> bytes:
    """The page of one photo.

    maps: see `map_pictures`; turntable: GIF bytes, left out where None; landmarks: JPEG bytes.
    """
    photo = run.photo
    body = [
        f"<h1>{page.escape(photo.name)}</h1>",
        page.cards(_headline(result, photo, run.timings, residuals)),
        page.section(
            "Photo and reconstruction",
            "The crop that was fitted, the reconstruction drawn by its own camera and light, and the skin as projected on the face.",
            page.grid(_panels(result, photo), 4),
        ),
        page.section(
            "Relit",
            "The same head under lights it was not photographed in. The light stays where it is while the head turns.",
            *_relit(result),
        ),
        page.section(
            "Skin maps",
            "UV maps; confidence is white where the photo shows the skin, grey where the mirror half does, black elsewhere.",
            page.grid(_maps(maps), 5),
        ),
        page.section(
            "Light, landmarks, turntable", "", page.grid(_extras(result, run.config, turntable, landmarks), 3)
        ),
    ]
    if run.losses:
        curves = [page.Figure(data_uri(png(loss_curve(run.losses[name], name)), "png"), name) for name in run.losses]
        body.append(page.section("Loss", "", page.grid(curves, 3)))
    if run.timings:
        body.append(page.section("Time", "", page.bars(run.timings)))
    tables = [page.table(run.config.as_keys(), "settings as resolved")]
    if run.report:
        tables.append(page.table(run.report, "more about this run"))
    body.append(page.section("Details", "", *tables))
    return page.page(f"{photo.name} - nextface", "\n".join(body))


def _headline(
    result: PhotoResult, photo: Photo, timings: Mapping[str, float], residuals: Mapping[str, float | None]
) -> dict[str, str]:
    crop = photo.crop
    diagonal = math.hypot(crop.full_width, crop.full_height)
    film = float(result.scene.focal[0]) / crop.scale / diagonal * 43.27
    angles = head_angles(result.scene.head_rotation()[0])
    numbers = {
        "head yaw, pitch, roll": " ".join(f"{angles[name]:+.0f}°" for name in ("yaw", "pitch", "roll")),
        "focal length (35 mm film)": f"{film:.0f} mm",
        "head to camera": f"{float(result.scene.translation[0].norm()) / 10:.0f} cm",
    }
    if residuals.get("psnr_db") is not None:
        numbers["reconstruction, PSNR"] = f"{residuals['psnr_db']:.1f} dB"
    if residuals.get("landmarks_rms_px") is not None:
        numbers["landmarks off by"] = f"{residuals['landmarks_rms_px']:.1f} px"
    if timings:
        numbers["fitted in"] = f"{sum(timings.values()):.1f} s"
    numbers["faces in the photo"] = str(photo.faces)
    return numbers


def _panels(result: PhotoResult, photo: Photo) -> list[page.Figure]:
    drawn = panels(photo.image, result.rendering)
    drawn["normals"] = encode_normal(result.rendering.normal[0]) * result.rendering.mask[0, ..., None].numpy()
    notes = {**PANEL_NOTES, "normals": "view frame"}
    return [_figure(picture, name, notes.get(name, "")) for name, picture in drawn.items()]


def _figure(picture: np.ndarray, title: str, note: str = "") -> page.Figure:
    return page.Figure(data_uri(jpeg(picture), "jpeg"), title, note)


def _relit(result: PhotoResult) -> list[str]:
    """One row of pictures per yaw, one column per light."""
    bands = result.scene.bands
    lights = {"the photo's light": result.scene.radiance()}
    lights.update({light.name: light.radiance(bands) for light in STUDIO_LIGHTS})
    rows = []
    for yaw in RELIT_YAWS:
        turned = f"{yaw:+.0f}°" if yaw else "frontal"
        pictures = relit_views(result, math.radians(yaw), RELIT_SIZE, list(lights.values()))
        figures = [_figure(picture, name, turned) for name, picture in zip(lights, pictures, strict=True)]
        rows.append(page.grid(figures, len(figures)))
    return rows


def _maps(pictures: Mapping[str, np.ndarray]) -> list[page.Figure]:
    notes = {"diffuse": "sRGB", "normal": "linear, green up"}
    return [_figure(_thumbnail(picture), name, notes.get(name, "linear")) for name, picture in pictures.items()]


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    if max(picture.shape) <= MAP_SIZE:
        return as_rgb(picture)
    image = to_pillow(as_rgb(picture))
    image.thumbnail((MAP_SIZE, MAP_SIZE))
    return np.asarray(image)


def _extras(result: PhotoResult, config: OptimConfig, turntable: bytes | None, landmarks: bytes) -> list[page.Figure]:
    environment = encode_srgb(light_map(result.scene.radiance()[0], 128, config.smooth_sh))
    figures = [
        _figure(environment, "the estimated light", "centre: behind the subject; borders: behind the camera"),
        page.Figure(data_uri(landmarks, "jpeg"), "detected landmarks"),
    ]
    if turntable is not None:
        figures.append(page.Figure(data_uri(turntable, "gif"), "turntable", "under the photo's light"))
    return figures
