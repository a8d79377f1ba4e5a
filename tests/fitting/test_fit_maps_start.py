"""Where the maps stage starts: at the statistical maps, or at the prior's in the photo's tone."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from known_bundle import save_known_bundle, save_network
from known_prior import save_random_prior, with_face_points
from synthetic_photo import BANDS, Portrait, known_scene, portrait_of
from torch import Tensor

from nextface import pipeline
from nextface.config import OptimConfig
from nextface.fitting import maps_start
from nextface.fitting.maps import fit_maps
from nextface.fitting.maps_start import in_tone, starting_maps
from nextface.fitting.observation import Observation
from nextface.fitting.progress import Progress
from nextface.fitting.pull import prior_file
from nextface.fitting.surface import Surface
from nextface.morphable.model import MorphableModel
from nextface.prior.swapping import Swapping
from nextface.rendering.skin import statistical_maps
from nextface.scene import Scene
from nextface.textures import SkinMaps

PLAIN = OptimConfig(
    device="cpu", bands=BANDS, texture_resolution=256, iter_step3=2, self_shadowing=False,
    **{f"weight_prior_{name}": 0.0 for name in ("diffuse", "specular", "roughness", "normal")},
    prior_tint=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(toy: MorphableModel) -> MorphableModel:
    return with_face_points(toy)


@pytest.fixture(scope="module")
def portraits(model: MorphableModel) -> list[Portrait]:
    return [portrait_of(known_scene(model, seed=seed, yaw=yaw, size=64), model) for seed, yaw in ((1, -8.0), (2, 20.0))]


@pytest.fixture(scope="module")
def config(model: MorphableModel, tmp_path_factory: pytest.TempPathFactory) -> OptimConfig:
    path = save_known_bundle(tmp_path_factory.mktemp("prior"), model)
    return replace(PLAIN, maps_init="prior", prior_checkpoint=str(path))


@pytest.fixture(autouse=True)
def read_anew() -> None:
    maps_start._read.cache_clear()


def started(portraits: list[Portrait], model: MorphableModel, config: OptimConfig) -> tuple[SkinMaps, Tensor]:
    """The start, and how far the photos show skin. [B, T, T, 1]"""
    scene = Scene.join([portrait.truth for portrait in portraits])
    observation = Observation.join([portrait.observation for portrait in portraits])
    surface = Surface.of(scene, model, config.texture_resolution, False)
    skin = surface.seen.interpolate(model.regions["skin"][None, :, None])[:, 0]
    return starting_maps(scene, surface, observation, model, config), surface.shown(skin)


def fitted(portrait: Portrait, model: MorphableModel, config: OptimConfig) -> Scene:
    return fit_maps(portrait.truth, portrait.observation, model, config, Progress("maps", 1))


def state(scene: Scene) -> dict[str, Tensor]:
    return scene.state()


def test_the_start_is_the_priors_in_the_photos_tone(portraits, model, config, monkeypatch: pytest.MonkeyPatch):
    """With a swap that changes nothing: the template's flat maps, but for the tone and for eyes and mouth."""
    monkeypatch.setattr(Swapping, "swap", lambda self, crops, identity: crops)
    made, seen = started(portraits[:1], model, config)
    plain = statistical_maps(portraits[0].truth, model, config.texture_resolution)
    assert torch.equal(made.confidence, plain.confidence)
    tone, wanted = ((seen * maps.diffuse.full()).sum((1, 2)) / seen.sum() for maps in (made, plain))
    torch.testing.assert_close(tone, wanted, atol=6e-3, rtol=0.0)
    skin = seen[..., 0] > 0.9
    assert float(made.diffuse.full()[skin].std(0).max()) < 0.02 < float(plain.diffuse.full()[skin].std(0).max())
    weight = made.specular.full()[skin]
    assert min(abs(float(weight.median()) - known) for known in (0.7, 0.55, 0.45)) < 0.01
    assert float(((weight - weight.median()).abs() < 0.01).float().mean()) > 0.9
    assert [len(levels) for levels in (made.normal.levels, plain.normal.levels)] == [5, 5]


def test_statistical_is_what_it_was(portraits, model):
    """Also where a prior is installed."""
    made, _ = started(portraits[:1], model, PLAIN)
    plain = statistical_maps(portraits[0].truth, model, PLAIN.texture_resolution)
    for name, texture in plain.textures().items():
        assert all(torch.equal(*pair) for pair in zip(texture.levels, made.textures()[name].levels, strict=True))
    assert "nextface.prior" not in maps_start.__dict__


def test_the_start_changes_the_maps_and_nothing_else(portraits, model, config):
    one, two = (state(fitted(portraits[0], model, each)) for each in (PLAIN, config))
    changed = {name for name in one if not torch.equal(one[name], two[name])}
    assert all(name.startswith("maps.") for name in changed)
    assert {f"maps.{name}.{level}" for name in ("diffuse", "specular", "roughness") for level in range(3)} <= changed
    assert not {"maps.normal.0", "maps.normal.1"} & changed  # 16² and 32²: that is the mesh's matter


def test_a_scene_with_maps_goes_on_from_them(portraits, model, config):
    scene = fitted(portraits[0], model, PLAIN)
    again = [fit_maps(scene, portraits[0].observation, model, each, Progress("maps", 1)) for each in (PLAIN, config)]
    assert all(torch.equal(*pair) for pair in zip(*(state(each).values() for each in again), strict=True))


def test_photos_of_a_batch_start_as_alone(portraits, model, config):
    together, _ = started(portraits, model, config)
    for row, portrait in enumerate(portraits):
        alone, _ = started([portrait], model, config)
        for name, texture in alone.textures().items():
            for one, both in zip(texture.levels, together.textures()[name].levels, strict=True):
                torch.testing.assert_close(one[0], both[row], atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("case", ["missing", "other model", "no templates", "none installed"])
def test_what_cannot_start_there_is_told(
    case: str, portraits, model, config, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch
):
    expected = {"missing": "absent.safetensors", "other model": "heads of the toy head, not of the giant",
                "no templates": "cannot swap", "none installed": "there is no prior; set priorCheckpoint"}  # fmt: skip
    if case == "missing":
        config = replace(config, prior_checkpoint=str(tmp_path / "absent.safetensors"))
    elif case == "other model":
        model = replace(model, name="giant")
    elif case == "no templates":
        config = replace(config, prior_checkpoint=str(save_random_prior(tmp_path / "plain.safetensors")))
    else:
        monkeypatch.setattr(maps_start, "prior_file", lambda config: None)
    made, _ = started(portraits[:1], model, config)
    plain = statistical_maps(portraits[0].truth, model, config.texture_resolution)
    assert torch.equal(made.diffuse.full(), plain.diffuse.full())
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert expected[case] in message and "start from the statistical ones" in message


def test_the_tone_of_what_was_not_seen_is_taken_along():
    albedo = torch.rand(1, 8, 8, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    seen = torch.zeros(1, 8, 8, 1)
    seen[:, :4] = 1.0
    found = in_tone(albedo, torch.full_like(albedo, 0.3), seen)
    torch.testing.assert_close(found[:, :4].mean((1, 2)), torch.full((1, 3), 0.3))
    gain = found / albedo
    torch.testing.assert_close(gain, gain[:, :1, :1].expand_as(gain))
    assert torch.equal(in_tone(albedo, 2.0 * albedo, 0.0 * seen), albedo)


def test_an_interrupted_run_is_not_taken_up_with_another_start(model, config, tmp_path: Path):
    landmarks = SimpleNamespace(points=torch.zeros(1), index=torch.zeros(1), confidence=torch.zeros(1))
    photo = SimpleNamespace(
        image=torch.zeros(1), valid=torch.zeros(1), landmarks=landmarks, known_focal=lambda config: None
    )

    def fingerprint(config: OptimConfig) -> str:
        return pipeline._fingerprint(SimpleNamespace(photo=photo, config=config, model=model), None, ())  # type: ignore[arg-type]

    own = save_network(tmp_path / "own.safetensors", "IdentityEncoder")
    with_own = replace(config, identity_checkpoint=str(own))
    prints = [fingerprint(each) for each in (config, replace(config, maps_init="statistical"), with_own)]
    save_network(own, "IdentityEncoder", seed=9)
    prints.append(fingerprint(with_own))
    assert len(set(prints)) == 4
    assert prior_file(config) == Path(config.prior_checkpoint)
    assert prior_file(replace(config, maps_init="statistical")) is None
