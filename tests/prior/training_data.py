"""Tiny folders of training crops: coloured blobs that stand for faces."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from toy_prior import TOY, TOY_FUSION, TOY_IDENTITY, TOY_SWAP

from nextface.prior.batch import Batch, BatchSource
from nextface.prior.train.sizes import Sizes
from nextface.train_config import TrainSettings

SIZES = Sizes(
    replace(TOY, image_size=16, attention_sizes=(8,), codes=24),
    TOY_FUSION,
    replace(TOY_SWAP, sizes=(8, 16)),
    TOY_IDENTITY,
    patch_width=4,
    patch_layers=2,
)
SIDE = SIZES.autoencoder.image_size
FILE_SIDE = 32


def write_crops(folder: Path) -> Path:
    """photos/ in FFHQ's nested layout, reflectance/ with its four domains, people/ with three people; and sizes.json."""
    draw = np.random.default_rng(0)
    for number in range(6):
        _save(folder / "photos" / f"{number // 3:05d}" / f"{number:05d}.png", _face(draw, draw.uniform(60, 220, 3)))
    for number in range(4):
        place = folder / "reflectance"
        _save(place / "diffuse" / f"{number}.png", _face(draw, np.array([190, 140, 110]) * draw.uniform(0.6, 1.2)))
        _save(place / "specular" / f"{number}.png", _face(draw, np.full(3, draw.uniform(80, 140))))
        _save(place / "roughness" / f"{number}.png", _face(draw, np.full(3, draw.uniform(120, 200))))
        _save(place / "normal" / f"{number}.png", _normals(draw))
    for person, colour in {"ann": (220, 60, 60), "bob": (60, 220, 60), "cyd": (60, 60, 220)}.items():
        for number in range(3):
            _save(folder / "people" / person / f"{number}.jpg", _face(draw, np.array(colour)))
    (folder / "sizes.json").write_text(json.dumps(SIZES.notes()), encoding="utf-8")
    return folder


def toy_settings(stage: str, folder: Path, **changes: object) -> TrainSettings:
    """Settings of a run of seconds on the folders of `write_crops`."""
    own = TrainSettings.of(stage, "small")
    quick = {
        "photos": str(folder / "photos"),
        "reflectance": str(folder / "reflectance"),
        "people": str(folder / "people"),
        "device": "cpu",
        "iterations": 6,
        "batch": 8,
        "learning_rate": 3e-3,
        "final_rate": 3e-3,
        "perceptual": "laplacian",
        "start_batches": 2,
        "restart_every": 3,
        "log_every": 2,
        "sample_every": 0,
        "workers": 1,
    }
    if stage in ("stage1", "identity"):
        quick["sizes"] = str(folder / "sizes.json")
    return replace(own, **(quick | changes))


def batches(source: BatchSource, count: int) -> list[Batch]:
    return [next(source) for _ in range(count)]


def same(first: Batch, second: Batch) -> bool:
    names = ("image", "domain", "identity", "mask", "partner")
    pairs = [(getattr(first, name), getattr(second, name)) for name in names]
    return all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)


def _face(draw: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:FILE_SIDE, :FILE_SIDE] / FILE_SIDE - 0.5
    dx, dy = draw.uniform(-0.05, 0.05, 2)
    skin = np.hypot((x - dx) * 1.3, y - dy) < draw.uniform(0.3, 0.42)
    eyes = np.hypot(np.abs(x - dx) - 0.15, y - dy + 0.08) < 0.06
    picture = np.where(skin[..., None], colour, 40.0) * np.where(eyes[..., None], 0.3, 1.0)
    return np.clip(picture * (1.0 + 0.2 * x[..., None]), 0, 255).astype(np.uint8)


def _normals(draw: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:FILE_SIDE, :FILE_SIDE] / FILE_SIDE - 0.5
    bend = draw.uniform(1.0, 2.0)
    normal = np.stack([bend * x, -bend * y, np.ones_like(x)], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.rint((normal * 0.5 + 0.5) * 255.0).astype(np.uint8)


def _save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
