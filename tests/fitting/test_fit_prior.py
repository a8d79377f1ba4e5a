"""The maps stage with a prior: off is off, one that does not fit is told, and every photo is on its own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from known_prior import save_constant_prior, save_random_prior, with_face_points
from synthetic_photo import BANDS, Portrait, known_scene, portrait_of
from torch import Tensor

from nextface import paths, pipeline
from nextface.config import OptimConfig
from nextface.fitting import pull as stage_pull
from nextface.fitting.maps import MOVES_WITH_PRIOR, fit_maps
from nextface.fitting.observation import Observation
from nextface.fitting.progress import Progress
from nextface.fitting.pull import SHIPPED, Pull, prior_file
from nextface.morphable.model import MorphableModel
from nextface.rendering.jit import plain_torch
from nextface.scene import Scene
from nextface.textures import SkinMaps

CONFIG = OptimConfig(device="cpu", bands=BANDS, texture_resolution=256, iter_step3=12, prior_every=4)
NONE = {f"weight_prior_{name}": 0.0 for name in ("diffuse", "specular", "roughness", "normal")} | {"prior_tint": 0.0}


@pytest.fixture(scope="module")
def model(toy: MorphableModel) -> MorphableModel:
    return with_face_points(toy)


@pytest.fixture(scope="module")
def portraits(model: MorphableModel) -> list[Portrait]:
    return [portrait_of(known_scene(model, seed=seed, yaw=yaw, size=64), model) for seed, yaw in ((1, -8.0), (2, 20.0))]


@pytest.fixture(scope="module")
def rough(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior that answers a high roughness and specular weight, and one grey, whatever it is asked."""
    return save_constant_prior(tmp_path_factory.mktemp("prior") / "constant.safetensors", 0.6)


@pytest.fixture(autouse=True)
def read_anew() -> None:
    """Each test meets its checkpoint for the first time."""
    stage_pull._read.cache_clear()


def fitted(portraits: list[Portrait], model: MorphableModel, config: OptimConfig) -> SkinMaps:
    scene = Scene.join([portrait.truth for portrait in portraits])
    observation = Observation.join([portrait.observation for portrait in portraits])
    maps = fit_maps(scene, observation, model, config, Progress("maps", 1)).maps
    assert maps is not None
    return maps


def all_levels(maps: SkinMaps) -> list[Tensor]:
    return [level for texture in maps.textures().values() for level in texture.levels]


def same(one: SkinMaps, two: SkinMaps) -> bool:
    return all(torch.equal(first, second) for first, second in zip(all_levels(one), all_levels(two), strict=True))


@pytest.fixture(scope="module")
def without(portraits: list[Portrait], model: MorphableModel) -> SkinMaps:
    return fitted(portraits[:1], model, replace(CONFIG, **NONE))


def test_zero_weights_and_too_few_iterations_leave_every_byte(portraits, model, rough: Path, without: SkinMaps):
    late = replace(CONFIG, prior_checkpoint=str(rough), prior_every=100)
    for config in (replace(CONFIG, prior_checkpoint=str(rough), **NONE), late):
        assert same(fitted(portraits[:1], model, config), without)


def test_the_prior_pulls_the_maps_of_its_domains(portraits, model, rough: Path, without: SkinMaps):
    only = {**NONE, "weight_prior_roughness": 20.0}
    found = fitted(portraits[:1], model, replace(CONFIG, prior_checkpoint=str(rough), **only))
    seen = found.confidence[..., 0] > 0.99
    raised = (found.roughness.full() - without.roughness.full())[seen]
    assert float(raised.mean()) > 0.002
    assert torch.equal(found.confidence, without.confidence)
    moved = [
        float((one - two).abs().mean())
        for one, two in zip(found.roughness.levels, without.roughness.levels, strict=True)
    ]
    assert moved[0] > 10.0 * moved[2]  # 64² is beyond what crops of 32 pixels resolve; it only answers to the photo
    weaker = fitted(
        portraits[:1], model, replace(CONFIG, prior_checkpoint=str(rough), **{**only, "weight_prior_roughness": 2.0})
    )
    assert 0.0 < float((weaker.roughness.full() - without.roughness.full())[seen].mean()) < float(raised.mean())


def test_domains_that_the_file_leaves_out_are_not_pulled(
    portraits, model, rough: Path, without: SkinMaps, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    alone = replace(CONFIG, prior_checkpoint=str(rough), **{**NONE, "weight_prior_roughness": 1.0})
    off = {"diffuse": 0.0, "specular": 0.0, "normal": 0.0}
    for weights, expected in ((off, fitted(portraits[:1], model, alone)), (off | {"roughness": 0.0}, without)):
        caplog.clear()
        path = save_constant_prior(tmp_path / f"{len(weights)}.safetensors", 0.6, weights=weights)
        for _ in range(2):
            assert same(fitted(portraits[:1], model, replace(CONFIG, prior_checkpoint=str(path))), expected)
        (message,) = [record.getMessage() for record in caplog.records if "no say" in record.getMessage()]
        assert "diffuse, specular" in message


def test_the_prior_splits_the_tint_between_skin_and_light(portraits, model, rough: Path, without: SkinMaps):
    """A grey answer makes the skin greyer and the light redder by as much, so that the skin looks the same."""
    scene, observation = Scene.join([portraits[0].truth]), Observation.join([portraits[0].observation])
    before = scene.detached()
    found = {}
    for share in (0.5, 1.0):
        config = replace(CONFIG, prior_checkpoint=str(rough), **{**NONE, "prior_tint": share})
        after = fit_maps(scene, observation, model, config, Progress("maps", 1))
        old = before.state()
        moved = [name for name, new in after.state().items() if name not in old or not torch.equal(old[name], new)]
        assert {name.split(".")[0] for name in moved} == set(MOVES_WITH_PRIOR)
        assert after.maps is not None
        found[share] = (after.gain() / before.gain())[0]
        same = after.maps.diffuse.full() * found[share]
        assert torch.allclose(same, without.diffuse.full(), atol=1e-5)
        for name in ("specular", "roughness", "normal"):
            assert torch.equal(getattr(after.maps, name).full(), getattr(without, name).full())
    red, _, blue = found[1.0].log()
    assert red > blue + 0.02
    assert torch.allclose(found[0.5], found[1.0].sqrt(), atol=1e-5)


def test_photos_that_were_lost_keep_their_colour(portraits, model, without: SkinMaps):
    """A tint that was read off maps which had diverged says nothing, nor does a stage that ended before it asked."""
    scene = Scene.join([replace(portrait.truth, maps=without) for portrait in portraits])
    tints = torch.tensor([[float("nan"), 1.0, 1.0], [1.2, 1.0, 0.8]])
    told = [SimpleNamespace(tint=tint) for tint in tints]
    found = Pull(None, [], None, [], model, CONFIG, told).tinted(scene)  # type: ignore[arg-type]
    assert torch.equal(found.gain()[0], scene.gain()[0])
    assert torch.equal(found.maps.diffuse.full()[0], without.diffuse.full()[0])
    share = tints[1] ** CONFIG.prior_tint
    assert torch.allclose(found.gain()[1], scene.gain()[1] / share)
    assert torch.allclose(found.maps.diffuse.full()[1], without.diffuse.full()[0] * share, atol=1e-6)
    assert Pull(None, [], None, [], model, CONFIG).tinted(scene) is scene  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["uv", "image"])
def test_a_photo_comes_out_of_a_batch_as_alone(mode: str, portraits, model, tmp_path: Path):
    prior = save_random_prior(tmp_path / "random.safetensors")
    config = replace(CONFIG, prior_checkpoint=str(prior), prior_mode=mode, weight_prior_diffuse=5.0)
    together = fitted(portraits, model, config)
    for row, portrait in enumerate(portraits):
        alone = fitted([portrait], model, config)
        for one, both in zip(all_levels(alone), all_levels(together), strict=True):
            assert torch.allclose(one[0], both[row], atol=1e-5)


def test_other_devices_code_does_the_same(portraits, model, rough: Path):
    config = replace(CONFIG, prior_checkpoint=str(rough), iter_step3=4, prior_every=2)
    fast = fitted(portraits[:1], model, config)
    with plain_torch():
        plain = fitted(portraits[:1], model, config)
    for one, two in zip(all_levels(fast), all_levels(plain), strict=True):
        assert float((one - two).abs().mean()) < 1e-4


@pytest.mark.parametrize("content", [None, b"no network"])
def test_a_checkpoint_that_does_not_fit_is_told_once(
    content: bytes | None, portraits, model, without: SkinMaps, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "broken.safetensors"
    if content is not None:
        path.write_bytes(content)
    config = replace(CONFIG, prior_checkpoint=str(path))
    assert same(fitted(portraits[:1], model, config), without)
    fitted(portraits[:1], model, replace(config, iter_step3=3))
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "broken.safetensors" in message
    assert "without the prior" in message


def test_a_model_without_the_points_of_crops_is_told(toy, rough: Path, caplog: pytest.LogCaptureFixture):
    portrait = portrait_of(known_scene(toy, seed=1, size=48), toy)
    config = replace(CONFIG, prior_checkpoint=str(rough), iter_step3=4)
    plain = fitted([portrait], toy, replace(config, **NONE))
    assert same(fitted([portrait], toy, config), plain)
    assert "without the prior" in caplog.text


@pytest.mark.parametrize(("seconds", "level"), [(0.01, logging.INFO), (9.0, logging.WARNING)])
def test_how_long_it_takes_is_said_before(
    seconds: float, level: int, portraits, model, rough: Path, caplog: pytest.LogCaptureFixture, monkeypatch
):
    read = stage_pull._read
    monkeypatch.setattr(stage_pull, "_read", lambda *given: replace(read(*given), seconds=seconds))
    caplog.set_level(logging.INFO)
    fitted(portraits[:1], model, replace(CONFIG, prior_checkpoint=str(rough), iter_step3=3))
    (record,) = [record for record in caplog.records if "asked 1 times" in record.getMessage()]
    assert record.levelno == level
    assert f"about {seconds * 12:.1f} s each" in record.getMessage()  # three views, four domains


def test_the_shipped_prior_is_used_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "data_root", lambda: tmp_path)
    assert prior_file(CONFIG) is None
    (tmp_path / "resources").mkdir()
    (tmp_path / "resources" / SHIPPED).write_bytes(b"")
    assert prior_file(CONFIG) == tmp_path / "resources" / SHIPPED
    assert prior_file(replace(CONFIG, prior_checkpoint="own.pth")) == Path("own.pth")
    assert prior_file(replace(CONFIG, **NONE)) is None


def test_an_interrupted_run_is_not_taken_up_with_another_prior(model, tmp_path: Path):
    path = tmp_path / "prior.safetensors"
    config = replace(CONFIG, prior_checkpoint=str(path))
    landmarks = SimpleNamespace(points=torch.zeros(1), index=torch.zeros(1), confidence=torch.zeros(1))
    photo = SimpleNamespace(
        image=torch.zeros(1), valid=torch.zeros(1), landmarks=landmarks, known_focal=lambda config: None
    )
    prints = []
    for content in (b"one", b"one", b"two"):
        path.write_bytes(content)
        prints.append(pipeline._fingerprint(SimpleNamespace(photo=photo, config=config, model=model), None, ()))  # type: ignore[arg-type]
    assert prints[0] == prints[1] != prints[2]


def test_nothing_of_the_prior_is_imported_without_one():
    code = "import sys, nextface.pipeline; print([name for name in sys.modules if name.startswith('nextface.prior')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.stdout.strip() == "[]", done.stderr
