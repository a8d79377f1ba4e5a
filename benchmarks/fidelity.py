"""Fit synthetic photos without knowing the answer and print how far off the fits are.

Usage: python -m benchmarks.fidelity [--photos FIRST END] [--folder output/fidelity] [--max-resolution 256] [--texture 512]
                                     [--threads N] [--docs]

The folder gets one strip of pictures per photo (photo | fit | albedo: truth, fit | relit: truth, fit), the fitted scenes and
`results.json`, which later calls with other photos add to; the table covers all of it. With --docs the table and the strips of
the worst cases also go into docs/fidelity.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import nextface
from benchmarks import metrics, synthetic
from nextface.color import linear_to_srgb
from nextface.config import OptimConfig
from nextface.errors import NoFaceError
from nextface.landmarks import Landmarks, read_photo
from nextface.morphable import MorphableModel, load_model
from nextface.photo import Photo, crop_to_face, load_image
from nextface.reconstruction import Reconstruction
from nextface.rendering.bake import bake
from nextface.rendering.camera import Camera
from nextface.rendering.render import render
from nextface.rendering.transport import Transport
from nextface.scene import Scene

CONVENTION = "mediapipe"
DOCS = Path(__file__).resolve().parent.parent / "docs" / "fidelity.md"
MARKERS = ("<!-- table -->", "<!-- end of table -->")

BOUNDS = {"vertex": 1.5, "rotation": 2.0, "albedo": 27.0, "relit": 28.0}
"""What the medians are held to: at most mm and degrees, at least dB."""


@dataclass(frozen=True)
class Score:
    """One photo's row of the table.

    landmarks:     "detected" on the synthetic photo, or "projected" from the truth with 1 px of noise where none was found
    vertex, worst: mean and 95th percentile of the face's vertex distances, mm at interocular 63 mm
    rotation:      degrees
    albedo:        dB over the face's skin texels, linear, one scale; seen: over those that the photo shows
    relit:         dB over the face's skin pixels under an unseen light, linear, one scale; unscaled: without the scale
    typology, typology_error: of the true face's skin and fit minus truth, degrees
    focal_ratio:   fit to truth
    seconds:       of the fit
    """

    name: str
    light: str
    yaw: float
    landmarks: str
    vertex: float
    worst: float
    rotation: float
    albedo: float
    seen: float
    relit: float
    unscaled: float
    typology: float
    typology_error: float
    focal_ratio: float
    seconds: float


def photo_of(
    truth: synthetic.SyntheticPhoto, model: MorphableModel, config: OptimConfig, folder: Path
) -> tuple[Photo, str]:
    """The photo as a user's file would be read, and where its landmarks come from."""
    path = folder / f"{truth.name}.png"
    Image.fromarray(truth.pixels).save(path, compress_level=1)
    try:
        return read_photo(path, config), "detected"
    except NoFaceError:
        landmarks = projected_landmarks(truth.scene, model)
        return crop_to_face(load_image(path), landmarks, config.max_resolution), "projected"


def projected_landmarks(scene: Scene, model: MorphableModel) -> Landmarks:
    """The true places of the embedded points with one pixel of noise."""
    embedding = model.landmarks[CONVENTION]
    corners = scene.vertices_camera(model)[:, model.triangles[embedding.triangle[:, 0]]]
    points = (corners * embedding.barycentric[:, 0, :, None]).sum(-2)
    pixels = Camera.of(scene).project(points)[0]
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    return Landmarks(CONVENTION, embedding.index, pixels + noise, torch.ones(len(pixels)))


def truth_in_crop(truth: synthetic.SyntheticPhoto, photo: Photo) -> Scene:
    crop = photo.crop
    return synthetic.seen_through(truth.scene, crop.left, crop.top, crop.scale, crop.height, crop.width)


def face_texels(model: MorphableModel, resolution: int) -> Tensor:
    """Texels that lie wholly on the face's skin. Bool [T, T]"""
    face = metrics.face_vertices(model).float()[None, :, None]
    return bake(face, model, resolution)[0, ..., 0] > 0.99


def diffuse_map(scene: Scene, resolution: int) -> Tensor:
    """Exported diffuse map averaged down to `resolution`². [T, T, 3]"""
    assert scene.maps is not None
    full = scene.maps.images()["diffuse"].permute(0, 3, 1, 2)
    return torch.nn.functional.interpolate(full, (resolution, resolution), mode="area")[0].permute(1, 2, 0)


def face_pixels(scene: Scene, model: MorphableModel) -> Tensor:
    """Pixels that show the face's skin. Bool [H, W]"""
    face = metrics.face_vertices(model).float()
    marked = replace(
        model, diffuse_mean=face[:, None].expand(-1, 3), diffuse_basis=torch.zeros_like(model.diffuse_basis)
    )
    return render(scene, marked, maps=False).diffuse[0, ..., 0] > 0.99


def score(
    truth: synthetic.SyntheticPhoto, found: Reconstruction, landmarks: str, seconds: float
) -> tuple[Score, dict[str, Tensor]]:
    """The photo's row and the pictures of its strip, linear [H, W, 3] each."""
    model, fit = found.model, found.scene
    true_scene = truth_in_crop(truth, found.photo)
    face = metrics.face_vertices(model)
    true_vertices, fit_vertices = true_scene.vertices_model(model)[0], fit.vertices_model(model)[0]
    errors = metrics.vertex_errors(fit_vertices, true_vertices, face, metrics.interocular(true_vertices, model))

    resolution = min(512, fit.maps.diffuse.resolution if fit.maps else 512)
    skin = face_texels(model, resolution)
    true_map, fit_map = diffuse_map(true_scene, resolution), diffuse_map(fit, resolution)
    confidence = torch.nn.functional.interpolate(fit.maps.confidence.permute(0, 3, 1, 2), (resolution, resolution))
    measured = skin & (confidence[0, 0] > 0.75)
    angle = float(metrics.typology_angle(true_map[skin].mean(0)))

    with torch.no_grad():
        true_shadows, shadows = (Transport.of_head(scene, model) for scene in (true_scene, fit))
        relit_true = render(true_scene, model, radiance=truth.relight, transport=true_shadows)
        relit_fit = render(fit, model, radiance=truth.relight, transport=shadows)
        drawn = render(fit, model, transport=shadows)
        drawn_true = render(true_scene, model)
        shown = face_pixels(true_scene, model) & relit_fit.mask[0]
    relit = relit_fit.image[0], relit_true.image[0]
    pictures = {
        "photo": found.photo.image,
        "fit": torch.where(drawn.mask[0, ..., None], drawn.image[0], found.photo.image * 0.25),
        "albedo, truth": drawn_true.diffuse[0],
        "albedo, fit": drawn.diffuse[0],
        "relit, truth": relit_true.image[0],
        "relit, fit": relit_fit.image[0],
    }
    row = Score(
        name=truth.name,
        light=truth.light,
        yaw=truth.yaw,
        landmarks=landmarks,
        vertex=float(errors.mean()),
        worst=float(errors.quantile(0.95)),
        rotation=metrics.rotation_error(fit.head_rotation()[0], true_scene.head_rotation()[0]),
        albedo=metrics.psnr(fit_map[skin], true_map[skin], scaled=True),
        seen=metrics.psnr(fit_map[measured], true_map[measured], scaled=True),
        relit=metrics.psnr(relit[0][shown], relit[1][shown], scaled=True),
        unscaled=metrics.psnr(relit[0][shown], relit[1][shown]),
        typology=angle,
        typology_error=float(metrics.typology_angle(fit_map[skin].mean(0))) - angle,
        focal_ratio=float(fit.focal / true_scene.focal),
        seconds=seconds,
    )
    return row, pictures


def strip(pictures: dict[str, Tensor]) -> Image.Image:
    """The pictures side by side, sRGB."""
    rows = [(linear_to_srgb(picture.detach()) * 255.0).round().to(torch.uint8).numpy() for picture in pictures.values()]
    return Image.fromarray(np.concatenate(rows, 1))


def table(scores: list[Score]) -> str:
    """All rows, their medians and the typology error by skin type, in Markdown."""
    lines = [
        "| photo | light | yaw ° | ITA ° | skin type | vertex mm | 95% mm | rotation ° | albedo dB | seen dB | relit dB |"
        " no scale dB | ITA error ° | focal fit/truth | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in scores:
        name = row.name.removeprefix("synthetic_") + ("" if row.landmarks == "detected" else " (projected landmarks)")
        lines.append(
            f"| {name} | {row.light} | {row.yaw:.0f} | {row.typology:.0f} | {metrics.skin_type(row.typology)} | {row.vertex:.2f}"
            f" | {row.worst:.2f} | {row.rotation:.2f} | {row.albedo:.1f} | {row.seen:.1f} | {row.relit:.1f} | {row.unscaled:.1f}"
            f" | {row.typology_error:+.0f} | {row.focal_ratio:.2f} | {row.seconds:.0f} |"
        )
    lines += ["", f"Medians of {len(scores)} photos:", ""]
    for key, unit in (("vertex", "mm"), ("rotation", "°"), ("albedo", "dB"), ("relit", "dB")):
        value, bound = statistics.median(getattr(row, key) for row in scores), BOUNDS[key]
        met = value <= bound if unit in ("mm", "°") else value >= bound
        lines.append(f"- {key}: {value:.2f} {unit} (bound {bound:g} {unit}: {'met' if met else 'MISSED'})")
    lines += ["", "Typology error (fit − truth) by skin type:", ""]
    for name in [name for _, name in metrics.SKIN_TYPES] + ["dark"]:
        of_type = [row.typology_error for row in scores if metrics.skin_type(row.typology) == name]
        if of_type:
            lines.append(
                f"- {name}: mean {statistics.mean(of_type):+.0f}°, largest {max(of_type, key=abs):+.0f}° ({len(of_type)} photos)"
            )
    return "\n".join(lines)


def worst(scores: list[Score]) -> dict[str, Score]:
    """The worst photo by each measure."""
    return {
        "vertex": max(scores, key=lambda row: row.vertex),
        "rotation": max(scores, key=lambda row: row.rotation),
        "relit": min(scores, key=lambda row: row.relit),
        "typology": max(scores, key=lambda row: abs(row.typology_error)),
    }


def write_docs(scores: list[Score], folder: Path) -> None:
    """Put the table and the worst cases' strips between the markers of docs/fidelity.md."""
    before, rest = DOCS.read_text(encoding="utf-8").split(MARKERS[0])
    after = rest.split(MARKERS[1])[1]
    lines = [table(scores), "", "Worst cases (photo | fit | albedo: truth, fit | relit: truth, fit):", ""]
    for measure, row in worst(scores).items():
        picture = f"images/fidelity_{measure}.jpg"
        shutil.copyfile(folder / f"{row.name}_strip.jpg", DOCS.parent / picture)
        lines += [f"**{measure}**: {row.name.removeprefix('synthetic_')}", "", f"![worst {measure}]({picture})", ""]
    DOCS.write_text(before + "\n".join([MARKERS[0], "", *lines, MARKERS[1]]) + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, nargs=2, default=(0, 16), metavar=("FIRST", "END"))
    parser.add_argument("--folder", type=Path, default=Path("output/fidelity"))
    parser.add_argument("--max-resolution", type=int, default=256)
    parser.add_argument("--texture", type=int, default=512)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--docs", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    config = replace(
        OptimConfig(), device="cpu", max_resolution=arguments.max_resolution, texture_resolution=arguments.texture
    )
    model = load_model(config.path)
    results = arguments.folder / "results.json"
    scores = {row["name"]: Score(**row) for row in json.loads(results.read_text())} if results.exists() else {}
    for number in range(*arguments.photos):
        truth = synthetic.make(model, number)
        photo, origin = photo_of(truth, model, config, arguments.folder)
        start = time.perf_counter()
        found = nextface.reconstruct(photo, config)
        row, pictures = score(truth, found, origin, time.perf_counter() - start)
        scores[row.name] = row
        found.scene.save(arguments.folder / f"{row.name}.safetensors")
        strip(pictures).save(arguments.folder / f"{row.name}_strip.jpg", quality=90)
        results.write_text(json.dumps([asdict(scores[name]) for name in sorted(scores)], indent=1))
        print(
            f"{row.name}: vertex {row.vertex:.2f} mm, rotation {row.rotation:.2f}°, albedo {row.albedo:.1f} dB, relit {row.relit:.1f} dB"
        )
    ordered = [scores[name] for name in sorted(scores)]
    print(table(ordered))
    if arguments.docs:
        (DOCS.parent / "images").mkdir(exist_ok=True)
        write_docs(ordered, arguments.folder)


if __name__ == "__main__":
    main()
