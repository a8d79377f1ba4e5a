"""Maps too large for careless copies: strips give what the whole gives, and a fit holds few arrays of their size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_fit_texels import moving_texels, step_arguments
from torch import Tensor

from nextface import textures
from nextface.export.images import map_pictures
from nextface.fitting.fill import fill_unseen
from nextface.fitting.texels import adam_torch
from nextface.morphable.model import MorphableModel
from nextface.rendering.bake import bake
from nextface.textures import LaplacianTexture, SkinMaps, row_strips

SIZE = 64
TEXTURE = 2048
SIDE = 800
"""Pixels of the photo, enough for the finest level to move."""
STACK = 7 * 4 / 3 * TEXTURE**2 * 4
"""Bytes of all levels of the maps."""


def random_image(channels: int, seed: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, SIZE, SIZE, channels, generator=torch.Generator().manual_seed(seed))


def baked(toy: MorphableModel) -> list[Tensor]:
    return [bake(torch.cat([toy.mean, toy.diffuse_mean], -1)[None].expand(2, -1, -1), toy, SIZE)]


def filled(toy: MorphableModel) -> list[Tensor]:
    fitted, start = (LaplacianTexture.from_image(random_image(3, seed, batch=2)) for seed in (0, 1))
    return fill_unseen(fitted, start, random_image(1, 2, batch=2), torch.tensor([1.0, 1.0, -1.0])).levels


def stepped(toy: MorphableModel) -> list[Tensor]:
    arguments = step_arguments(SIZE, 7, 0.5)
    adam_torch(*arguments, moving_texels(SIZE, 0.5))
    return [arguments[0], arguments[2], arguments[3]]


def encoded(toy: MorphableModel) -> list[Tensor]:
    parts = {name: LaplacianTexture.from_image(random_image(count, 3)) for name, count in textures.MAP_CHANNELS.items()}
    pictures = map_pictures(SkinMaps(**parts, confidence=random_image(1, 4)), 0)
    return [torch.from_numpy(picture) for picture in pictures.values()]


def test_strips_cover_every_row_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(textures, "_STRIP", 300)
    for rows, columns in ((7, 100), (9, 100), (5, 1000), (1, 1)):
        strips = row_strips(rows, columns)
        assert np.concatenate([np.arange(rows)[strip] for strip in strips]).tolist() == list(range(rows))
        assert all(columns * (strip.stop - strip.start) <= max(300, columns) for strip in strips)


@pytest.mark.parametrize("work", [baked, filled, stepped, encoded])
def test_strips_give_what_the_whole_gives(work, toy: MorphableModel, monkeypatch: pytest.MonkeyPatch):
    whole = work(toy)
    monkeypatch.setattr(textures, "_STRIP", 5 * SIZE)
    assert len(row_strips(SIZE, SIZE)) == 13
    for strips, expected in zip(work(toy), whole, strict=True):
        torch.testing.assert_close(strips, expected, rtol=1e-6, atol=1e-6)


FIT = f"""
import resource, sys
sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]!r}
from synthetic_photo import known_scene, portrait_of
from toy import toy_model
from nextface.config import OptimConfig
from nextface.fitting.maps import fit_maps
from nextface.fitting.progress import Progress

toy = toy_model()
portrait = portrait_of(known_scene(toy, seed=1, size={SIDE}), toy)
for texture in (256, {TEXTURE}):
    config = OptimConfig(device="cpu", bands=5, texture_resolution=texture, iter_step3=2)
    fit_maps(portrait.truth, portrait.observation, toy, config, Progress("maps", 2))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
RELAY = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True)"


def test_a_fit_holds_few_arrays_of_the_maps_size():
    """2.9 of them when written. A process begins with its parent's peak memory, so a small one stands between this and the one
    that fits."""
    pytest.importorskip("resource")
    command = [sys.executable, "-c", RELAY, FIT]
    small, large = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    assert unit * (int(large) - int(small)) < 4.0 * STACK
