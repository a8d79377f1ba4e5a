"""How fast the prior's training faces are drawn, and contact sheets of them and of the unseen ones.

Usage: python -m benchmarks.prior_data [--device cuda] [--sheets FOLDER]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.unseen.faces import YAWS, photo_crop, scene_crop, turned, unseen_photo
from nextface.morphable.model import MorphableModel
from nextface.morphable.open_head import read_open_head
from nextface.paths import default_model_folder
from nextface.prior.data.faces import FaceDrawer, Faces
from nextface.prior.data.heads import BANDS, Heads
from nextface.prior.data.lights import draw_lights
from nextface.prior.data.noise import NoiseVolume
from nextface.prior.data.people import draw_people
from nextface.prior.data.skin import Places, draw_skin
from nextface.prior.data.source import FacesSettings, GeneratedFaces
from nextface.prior.data.zones import FaceZones
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS

ROUNDS, FACES, SHEET_ROWS = 6, 16, 8


def seconds(call: Callable[[], object], device: str) -> float:
    """Least of several rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def rates(model: MorphableModel, device: str) -> None:
    """Crops per second, whole batches: drawn, exposed, masked, encoded."""
    cases = {"all domains, 5 crops per face": (5, (0.2,) * 5), "as in training, 2 crops per face": (2, None)}
    for number, domain in enumerate(DOMAINS):
        cases[f"{domain} alone"] = (1, tuple(float(other == number) for other in range(5)))
    for name, (crops, weights) in cases.items():
        settings = FacesSettings(FACES * crops, crops, people=500, identities=4, expressions=1)
        if weights:
            settings = FacesSettings(FACES * crops, crops, weights, people=500, identities=4, expressions=1)
        source = GeneratedFaces(model, settings, Encoding(), device)
        print(f"{name:34s} {FACES * crops / seconds(lambda source=source: next(source), device):7.0f} crops per second")


def shares(model: MorphableModel, device: str) -> None:
    """Milliseconds per face of each part of the drawing."""
    drawer, people, lights, rows = sheet_parts(model, device, 4, FACES)
    with torch.no_grad():
        views = drawer.heads.views.rows(rows)
        table = drawer._at_pixels(views, drawer.zones.vertices[None], drawer.triangles).mT.contiguous()
        frames = drawer._at_pixels(views, drawer.zones.frames[None], drawer.uv_triangles).mT.contiguous()
        places = Places.of(table)
        skin = draw_skin(places, frames, people, drawer.noise)
        still = torch.zeros(FACES, device=device)
        balance = torch.zeros(FACES, 2, device=device)
        parts: dict[str, Callable[[], object]] = {
            "zones at the pixels": lambda: drawer._at_pixels(
                views, drawer.zones.vertices[None], drawer.triangles
            ).mT.contiguous(),
            "skin": lambda: draw_skin(places, frames, people, drawer.noise),
            "self-shadow": lambda: drawer._lit(views, lights),
            "light, self-shadow included": lambda: drawer.lit(views, skin, places.skin(), lights, still, balance),
            "a face, everything": lambda: drawer.draw(rows, people, lights, still, balance),
        }
        for name, part in parts.items():
            print(f"{name:34s} {seconds(part, device) / FACES * 1e3:7.2f} ms per face")


def sheet_parts(model: MorphableModel, device: str, heads: int, count: int) -> tuple:  # type: ignore[type-arg]
    generator = torch.Generator().manual_seed(11)
    zones, noise = FaceZones.of(model), NoiseVolume.make(generator, device)
    moved = model.to(device)
    bank = Heads.make(moved, heads, 1, "tight", 128, generator)
    people = draw_people(count, zones, generator)
    people = people.rows(people.melanin.argsort())
    rows = torch.arange(count) % len(bank.views.head)
    lights = draw_lights(count, BANDS, generator).to(device)
    return FaceDrawer.of(bank, zones.to(device), noise, moved), people.to(device), lights, rows.to(device)


def training_sheet(model: MorphableModel) -> Tensor:
    """A person per row: three views, of each the photo and every map. [3, H, W]"""
    drawer, people, lights, _ = sheet_parts(model, "cpu", SHEET_ROWS, 3 * SHEET_ROWS)
    rows = torch.arange(3 * SHEET_ROWS)
    faces = drawer.draw(rows, people.rows(rows // 3 * 3), lights, torch.zeros(len(rows)), torch.zeros(len(rows), 2))
    return joined([shown(faces, number) for number in rows.tolist()], 3)


def shown(faces: Faces, number: int) -> Tensor:
    parts = {name: getattr(faces, "photo" if name == "shared" else name)[number : number + 1] for name in DOMAINS}
    return pictures(parts, faces.covered[number : number + 1])


def unseen_sheet(model: MorphableModel) -> Tensor:
    """The same of the unseen faces, with the crop of the photo first."""
    cells = []
    for number in range(SHEET_ROWS):
        photo = unseen_photo(model, number, texture=512)
        crops = [photo_crop(photo, model, Encoding())]
        crops += [scene_crop(turned(photo.scene, yaw), model, Encoding()) for yaw in YAWS]
        cells += [pictures(crop.domains, crop.covered) for crop in crops]
    return joined(cells, 1 + len(YAWS))


def pictures(parts: dict[str, Tensor], covered: Tensor) -> Tensor:
    """All domains of one crop side by side, as the networks see them. [3, S, 5 S] in 0..1"""
    encoding = Encoding()
    row = [encoding.encode(name, parts[name])[0] * (1.0 if name == "shared" else covered[0]) for name in DOMAINS]
    return torch.cat(row, 2) * 0.5 + 0.5


def joined(cells: list[Tensor], columns: int) -> Tensor:
    lines = [torch.cat(cells[start : start + columns], 2) for start in range(0, len(cells), columns)]
    return torch.cat(lines, 1)


def save(sheet: Tensor, path: Path) -> None:
    pixels = (sheet.clamp(0.0, 1.0) * 255.0).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, quality=72)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets; nothing is timed then")
    arguments = parser.parse_args()
    model = read_open_head(default_model_folder() / "open_head.h5")
    if arguments.sheets:
        arguments.sheets.mkdir(parents=True, exist_ok=True)
        save(training_sheet(model), arguments.sheets / "prior_training_faces.jpg")
        save(unseen_sheet(model), arguments.sheets / "prior_unseen_faces.jpg")
        return
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{arguments.device}, {torch.get_num_threads()} threads, load {load:.1f}")
    rates(model, arguments.device)
    shares(model, arguments.device)


if __name__ == "__main__":
    main()
