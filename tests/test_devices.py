"""Every stage on every kind of device (tests/devices.py): the compiled CPU path is the measure of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from devices import cuda, pretended, twins
from PIL import Image
from pretend_device import PRETEND, PretendDevice
from synthetic_photo import Portrait, known_scene, portrait_of

from nextface.config import OptimConfig
from nextface.export import debug_strip
from nextface.fitting.maps import fit_maps
from nextface.fitting.pose import fit_pose, start
from nextface.fitting.progress import Progress
from nextface.fitting.statistical import fit_statistical
from nextface.morphable.model import MorphableModel
from nextface.rendering.render import render
from nextface.scene import Scene

BANDS = 5
CONFIG = OptimConfig(
    device="cpu", bands=BANDS, texture_resolution=256, max_resolution=96, iter_step1=20, iter_step2=6, iter_step3=4
)
STAGES = {"pose": fit_pose, "statistical": fit_statistical, "maps": fit_maps}
TOLERANCE = {"pose": 1e-3, "statistical": 2e-3, "maps": 2e-3}
"""Root mean square difference of the drawn heads that the stages end with, linear RGB: rounding grows in every iteration."""


@pytest.fixture(scope="module")
def portrait(toy: MorphableModel) -> Portrait:
    return portrait_of(known_scene(toy, seed=1, size=64), toy)


@pytest.fixture(scope="module")
def reached(portrait: Portrait, toy: MorphableModel) -> dict[str, tuple[Scene, Scene]]:
    """Start and end of every stage on the compiled path."""
    scene, found = start(portrait.observation, toy, BANDS), {}
    for name, stage in STAGES.items():
        after = stage(scene, portrait.observation, toy, CONFIG, Progress(name, 1))
        found[name], scene = (scene, after), after
    return found


def drawn(scene: Scene, model: MorphableModel) -> torch.Tensor:
    return render(scene, model).image


@pytest.mark.parametrize("on", [twins, pretended, cuda])
@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_ends_where_the_compiled_path_does(
    on: Callable, name: str, reached: dict[str, tuple[Scene, Scene]], portrait: Portrait, toy: MorphableModel
):
    before, expected = reached[name]
    with on() as device:
        after = STAGES[name](
            before.to(device), portrait.observation.to(device), toy.to(device), CONFIG, Progress(name, 1)
        )
        assert {tensor.device.type for tensor in after.state().values()} == {torch.device(device).type}
        after = after.to("cpu")
    difference = (drawn(after, toy) - drawn(expected, toy)).square().mean().sqrt()
    assert float(difference) < TOLERANCE[name]
    assert float((after.light - expected.light).norm()) < 1e-2 * float(expected.light.norm())


@pytest.mark.parametrize("on", [twins, pretended, cuda])
def test_a_drawing_and_its_gradients(on: Callable, portrait: Portrait, toy: MorphableModel):
    def run(device: torch.device | str) -> list[torch.Tensor]:
        leaf = portrait.truth.shape.detach().clone().to(device).requires_grad_(True)
        image = drawn(replace(portrait.truth.to(device), shape=leaf), toy.to(device))
        image.square().sum().backward()
        assert leaf.grad is not None
        return [image.detach().cpu(), leaf.grad.cpu()]

    expected = run("cpu")
    with on() as device:
        found = run(device)
    # Single pixels may see another triangle through another rasterizer.
    assert float((found[0] - expected[0]).square().mean().sqrt()) < (5e-3 if on is cuda else 1e-5)
    assert float((found[1] - expected[1]).norm()) < (0.05 if on is cuda else 1e-4) * float(expected[1].norm())


@pytest.mark.parametrize("on", [pretended, cuda])
def test_a_debug_picture_of_a_scene_on_the_device(
    on: Callable, portrait: Portrait, toy: MorphableModel, tmp_path: Path
):
    photo = SimpleNamespace(image=portrait.observation.image[0])
    paths = [debug_strip(tmp_path / "cpu", 2, 30, photo, portrait.truth, toy)]
    with on() as device:
        paths.append(debug_strip(tmp_path / "far", 2, 30, photo, portrait.truth.to(device), toy.to(device)))
    pictures = [np.asarray(Image.open(path), np.float32) for path in paths]
    assert float(np.abs(pictures[0] - pictures[1]).mean()) < 0.5


def counted(name: str, before: Scene, portrait: Portrait, model: MorphableModel, config: OptimConfig) -> PretendDevice:
    with PretendDevice() as device:
        arguments = (before.to(PRETEND), portrait.observation.to(PRETEND), model.to(PRETEND))
        for counter in (device.launches, device.waits, device.uploads):
            counter.clear()
        STAGES[name](*arguments, config, Progress(name, 1))
    return device


def files(places: Counter[str]) -> set[str]:
    """Of the places that the stand-in for a GPU's rasterizer does not account for."""
    return {place.rpartition(":")[0] for place in places} - {"/rendering/cpu.py"}


@pytest.fixture(scope="module")
def per_iteration(
    reached: dict[str, tuple[Scene, Scene]], portrait: Portrait, toy: MorphableModel
) -> dict[str, tuple[float, set[str], set[str]]]:
    """Launches per iteration, and the files that wait or upload in every iteration, of the stages that draw."""
    found = {}
    for name, key in (("statistical", "iter_step2"), ("maps", "iter_step3")):
        few, many = (
            counted(name, reached[name][0], portrait, toy, replace(CONFIG, **{key: count})) for count in (3, 6)
        )
        launches = (sum(many.launches.values()) - sum(few.launches.values())) / 3
        found[name] = (launches, files(many.waits - few.waits), files(many.uploads - few.uploads))
    return found


def test_the_host_waits_for_nothing_while_maps_are_fitted(per_iteration: dict[str, tuple[float, set[str], set[str]]]):
    launches, waits, uploads = per_iteration["maps"]
    assert not waits and not uploads
    assert launches < 700, "a GPU is bound by the number of launches"


def test_the_host_waits_for_counts_of_pixels_alone_while_the_model_is_fitted(
    per_iteration: dict[str, tuple[float, set[str], set[str]]],
):
    """The directions of the self-shadowing travel whenever it is made anew."""
    _, waits, uploads = per_iteration["statistical"]
    assert waits <= {"/rendering/antialias.py"} and uploads <= {"/rendering/transport.py"}


def test_the_pretended_device_finds_what_a_gpu_would_refuse():
    with PretendDevice() as device:
        far, near = torch.ones(3).to(PRETEND), torch.ones(3)
        with pytest.raises(RuntimeError, match="on the CPU beside one on the device"):
            far + near
        with pytest.raises((RuntimeError, TypeError)):
            far.numpy()
        assert float((far + 2.0).sum()) == 9.0 and (far.cpu() + near).tolist() == [2.0] * 3
        assert sum(device.waits.values()) == 2
