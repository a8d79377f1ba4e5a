"""Smaller copies of the photos: exact scale, exact means, and no trace of padding or of the other photos."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from synthetic_photo import known_scene, observe_scene

from nextface.fitting.ladder import climb, rung
from nextface.fitting.observation import Observation
from nextface.morphable.model import MorphableModel


def photo(model: MorphableModel, height: int, width: int, seed: int = 0) -> Observation:
    """Noise, away from black and white."""
    image = 0.2 + 0.4 * torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))
    scene = replace(known_scene(model), height=height, width=width)
    return observe_scene(scene, model, image=image)


def test_both_axes_have_one_exact_scale(toy: MorphableModel):
    """A ramp stays a ramp: a pixel of the copy holds the mean of what its square covers, also where that cuts pixels."""
    observation = photo(toy, 211, 163)
    across, down = torch.arange(163.0) + 0.5, torch.arange(211.0) + 0.5
    ramp = torch.stack(torch.broadcast_tensors(across / 400, down[:, None] / 400, torch.tensor(0.3)), -1)
    found = rung(replace(observation, image=ramp[None]), 0.5)
    scale = float(found.scale)
    assert scale == pytest.approx(0.5)
    assert found.image.shape == (1, 106, 82, 3)
    place = (torch.arange(81) + 0.5) / scale / 400, (torch.arange(105) + 0.5) / scale / 400
    assert torch.allclose(found.image[0, 0, :81, 0], place[0], atol=1e-6)
    assert torch.allclose(found.image[0, :105, 0, 1], place[1], atol=1e-6)
    smallest = rung(replace(observation, image=ramp[None]), 0.1)
    assert float(smallest.scale) == pytest.approx(48 / 211)
    place = (torch.arange(37) + 0.5) / float(smallest.scale) / 400
    assert torch.allclose(smallest.image[0, 5, :37, 0], place, atol=0.15 / 400)


def test_the_last_pixels_count_by_what_they_cover(toy: MorphableModel):
    found = rung(photo(toy, 211, 163), 0.5)
    assert float(found.usable[0, :-1, :-1].min()) == pytest.approx(1.0)
    assert torch.allclose(found.usable[0, -1, :-1], torch.tensor(0.5))
    assert float(found.usable[0, -1, -1]) == pytest.approx(0.25)
    even = photo(toy, 211, 163)
    even.image.fill_(0.4)
    assert torch.allclose(rung(even, 0.5).image, torch.tensor(0.4)), "what lies outside darkens nothing"


def test_invalid_and_clipped_pixels_are_told(toy: MorphableModel):
    observation = photo(toy, 100, 100)
    observation.valid[0, 40:50] = False
    observation.image[0, 60:70] = 1.0
    found = rung(observation, 0.5)
    assert float(found.usable[0, 20:25].max()) == 0.0
    assert float(found.usable[0, 30:35].max()) == 0.0
    assert float(found.image[0, 31, 0, 0]) == pytest.approx(1.0)
    observation.image[0, 40:50] = 0.9
    assert torch.equal(rung(observation, 0.5).image[0, :20], found.image[0, :20])
    assert float(rung(observation, 0.5).image[0, 19].max()) < 0.7


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_copy_is_the_same_alone_and_beside_larger_photos(share: float, toy: MorphableModel):
    photos = [photo(toy, 90, 70, 1), photo(toy, 211, 163, 2), photo(toy, 120, 300, 3)]
    together = rung(Observation.join(photos), share)
    for index, each in enumerate(photos):
        alone = rung(each, share)
        height, width = alone.image.shape[1:3]
        assert torch.equal(together.scale[index], alone.scale[0])
        assert torch.equal(together.image[index, :height, :width], alone.image[0])
        assert torch.equal(together.usable[index, :height, :width], alone.usable[0])
        assert together.frame is not None
        assert int(together.frame[index].sum()) == height * width
        assert bool(together.frame[index, :height, :width].all())
    assert float(together.image[0, -1, -1].abs().max()) == 0.0


def test_a_photo_s_full_copy_is_the_photo(toy: MorphableModel):
    observation = photo(toy, 120, 90)
    assert torch.equal(rung(observation, 1.0).image, observation.image)


def test_the_climb_gives_every_iteration_once(toy: MorphableModel):
    steps = list(climb(photo(toy, 200, 160), 10))
    assert [number for number, _, _ in steps] == list(range(10))
    assert [number for number, _, first in steps if first] == [0, 3, 7]
    scales = [float(level.scale) for _, level, first in steps if first]
    assert scales == pytest.approx([0.25, 0.5, 1.0])
    assert list(climb(photo(toy, 200, 160), 0)) == []
