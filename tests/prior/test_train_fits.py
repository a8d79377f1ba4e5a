"""Fits of generated people as training rows: what was written is what is trained on, and every mistake in the folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from training_data import SIDE, SIZES, batches, same

from nextface.errors import ConfigError, InputError
from nextface.prior.batch import UNKNOWN
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS
from nextface.prior.train.fits import FitSource, save_fit
from nextface.prior.train.sources import beside_fits, open_source
from nextface.train_config import TrainSettings

ENCODING = Encoding(image_size=SIDE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three people, the last seen in one view only. A crop's values tell person, view and domain, a fit lacks half of them."""
    for person in range(3):
        save_fit(tmp_path / f"{person:04d}.safetensors", ENCODING, *crops(person, views=3 if person < 2 else 1))
    return tmp_path


def crops(person: int, views: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    known = torch.zeros(views, 1, SIDE, SIDE)
    known[..., : SIDE // 2] = 1.0
    value = 0.25 * person + 0.0625 * torch.arange(views)[:, None, None, None]
    true = {
        name: (value + 0.015625 * number).expand(-1, 3, SIDE, SIDE).clone() for number, name in enumerate(DOMAINS[1:])
    }
    return known, {name: 0.5 * each for name, each in true.items()}, true


def test_rows_are_the_crops_of_the_files(folder: Path):
    batch = next(FitSource.of(folder, ENCODING, 400, seed=1))
    assert batch.mask is not None and batch.corrupted is not None and batch.partner is None
    assert (batch.identity == UNKNOWN).all() and set(batch.domain.tolist()) == {1, 2, 3, 4}
    left = batch.mask[:, 0, 0, 0] == 1.0
    assert 0.4 < left.float().mean() < 0.6, "half are mirrored"
    assert not (batch.image * (1.0 - batch.mask)).any() and not (batch.corrupted * (1.0 - batch.mask)).any()
    values = torch.where(left, batch.image[:, 2, 0, 0], batch.image[:, 2, 0, -1]) - 0.015625 * (batch.domain - 1)
    people, views = values.div(0.25, rounding_mode="floor"), values.remainder(0.25) / 0.0625
    met = {(int(person), int(view)) for person, view in zip(people, views, strict=True)}
    assert met == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)}
    sign = torch.where(~left & (batch.domain == DOMAINS.index("normal")), -1.0, 1.0)
    assert torch.equal(batch.image[:, 0].abs(), batch.image[:, 2].abs())
    assert torch.equal(batch.image[:, 0], sign[:, None, None] * batch.image[:, 2])
    assert torch.equal(batch.corrupted, 0.5 * batch.image)


def test_the_stream_goes_on_and_is_shared(folder: Path):
    source = FitSource.of(folder, ENCODING, 4, seed=3)
    first, second, third = batches(source, 3)
    assert not same(first, second)
    other = FitSource.of(folder, ENCODING, 4, seed=3)
    next(other)
    state = other.state_dict()
    again = FitSource.of(folder, ENCODING, 4, seed=3)
    again.load_state_dict(state)
    assert same(next(again), second)
    halves = [again.shard(rank, 2) for rank in range(2)]
    parts = [next(half) for half in halves]
    assert torch.equal(torch.cat([part.image for part in parts]), third.image)
    with pytest.raises(ConfigError, match="batch = 4"):
        source.shard(0, 3)


def test_fits_go_with_generated_faces_alone(folder: Path):
    settings = replace(TrainSettings.of("denoise", "small"), fits=str(folder))
    for other in ("photos", "reflectance"):
        with pytest.raises(ConfigError, match="generated faces alone"):
            open_source("denoise", replace(settings, **{other: str(folder)}), SIZES, torch.device("cpu"))


def test_folders_that_do_not_fit(folder: Path, tmp_path: Path):
    for encoding in (replace(ENCODING, image_size=64), replace(ENCODING, roughness=(0.0, 1.0))):
        with pytest.raises(ConfigError, match="make the fits again"):
            FitSource.of(folder, encoding, 4, 0)
    empty = tmp_path / "empty"
    with pytest.raises(InputError, match=r"holds no fits.*fit_generated"):
        FitSource.of(empty, ENCODING, 4, 0)
    save_file({"a": torch.zeros(1)}, folder / "0003.safetensors")
    with pytest.raises(InputError, match=r"0003\.safetensors: not a fit"):
        FitSource.of(folder, ENCODING, 4, 0)
    with pytest.raises(ConfigError, match="even number"):
        beside_fits(replace(TrainSettings.of("denoise", "small"), batch=7))
