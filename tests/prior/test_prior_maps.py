"""The benchmark of the prior's maps: its yardsticks against answers worked out by hand, and the whole of it at toy size."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from known_prior import save_random_prior, with_face_points
from synthetic_photo import BANDS, known_scene, portrait_of
from torch import Tensor

pytest.importorskip("benchmarks", reason="needs a checkout")

from benchmarks import map_arms, map_tables, prior_maps
from benchmarks.map_arms import Arm, fitted, known_maps, pulled_to, stacked
from benchmarks.map_scores import MapScore, change, gain, map_score, paired, photo_residual, root_change, spread
from benchmarks.prior_maps import NOTHING, Bench, summary, tune
from benchmarks.prior_photos import compare
from benchmarks.shared_scenes import SharedScene, photo_name
from benchmarks.unseen.faces import LIGHTS
from nextface.config import OptimConfig
from nextface.fitting.pull import Pull
from nextface.morphable.model import MorphableModel
from nextface.rendering.skin import statistical_maps
from nextface.textures import LaplacianTexture, SkinMaps

CONFIG = OptimConfig(device="cpu", bands=BANDS, texture_resolution=256, iter_step3=16, prior_every=8)
STRONG = (30.0, 30.0, 30.0, 30.0)


@pytest.fixture(autouse=True)
def toy_mean(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The mean skin of the toy, which nobody is generated for."""
    if "head" in request.fixturenames:
        return

    def mean(model: MorphableModel, resolution: int) -> Tensor:
        scene = known_scene(model, seed=1)
        return stacked(statistical_maps(replace(scene, albedo=0.0 * scene.albedo), model, resolution))

    monkeypatch.setattr(map_arms, "mean_maps", mean)


def test_the_mean_is_that_of_generated_people(head: MorphableModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(map_arms, "_MEANS", {})
    found = {}
    for count in (1, 2):
        monkeypatch.setattr(map_arms, "PEOPLE", count)
        found[count] = map_arms._mean_maps(head, 64)
    assert found[2].shape == (64, 64, 7)
    assert not torch.equal(found[1], found[2])
    assert torch.equal(map_arms.mean_maps(head, 64), found[2])
    again = [map_arms.mean_maps(head, 64).data_ptr() for _ in range(2)]
    assert again[0] == again[1]


def flat_maps(albedo: float = 0.4, specular: float = 0.5, roughness: float = 0.4, slope: float = 0.0) -> SkinMaps:
    values = {"diffuse": [albedo, 0.6 * albedo, 0.5 * albedo], "specular": [specular], "roughness": [roughness]}
    values["normal"] = [slope, 0.0]
    textures = {name: LaplacianTexture.constant(torch.tensor([value]), 32) for name, value in values.items()}
    return SkinMaps(**textures, confidence=torch.ones(1, 32, 32, 1))


def test_errors_of_maps_that_differ_by_a_known_amount():
    face = torch.ones(32, 32, dtype=torch.bool)
    found = map_score(flat_maps(0.2, 0.6, 0.35, math.tan(math.radians(5.0))), flat_maps(), face, 0.25)
    assert found.albedo > 100.0, "half as bright is the same colour"
    assert found.specular == pytest.approx(0.1, abs=1e-5)
    assert found.roughness == pytest.approx(0.05, abs=1e-5)
    assert found.normal == pytest.approx(5.0, abs=1e-3)
    assert found.residual == 0.25


def test_only_the_face_s_shown_texels_count():
    face = torch.ones(32, 32, dtype=torch.bool)
    fit = flat_maps()
    fit.specular.levels[1][:, :16] += 0.2
    fit.confidence[:, :16] = 0.5  # taken from the mirror
    assert map_score(fit, flat_maps(), face, 0.0).specular == pytest.approx(0.0, abs=1e-5)
    fit.confidence[:] = 1.0
    assert map_score(fit, flat_maps(), face, 0.0).specular == pytest.approx(0.2 / math.sqrt(2.0), abs=1e-5)
    face[:16] = False
    assert map_score(fit, flat_maps(), face, 0.0).specular == pytest.approx(0.0, abs=1e-5)


def test_intervals_of_the_bootstrap():
    rng = np.random.default_rng(1)
    other = rng.normal(30.0, 3.0, 64)
    same = paired(gain, other + 0.5, other)
    assert (same.value, same.low, same.high) == pytest.approx((0.5, 0.5, 0.5))
    assert paired(change, 0.9 * other, other).high == pytest.approx(-0.1)
    assert paired(root_change, 0.81 * other, other).low == pytest.approx(-0.1)
    noise = rng.normal(0.0, 1.0, 64)
    found = paired(gain, other + noise, other)
    assert found.value == pytest.approx(noise.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * noise.std() / 8.0, rel=0.1)
    assert found == paired(gain, other + noise, other), "the same each time"


def test_spread_within_and_between_people():
    """Two people, levels 0.2 and 0.6, seen 0.1 too dark, right and 0.1 too bright; where only one is seen tells nothing of both."""
    level = torch.tensor([0.2, 0.6])[:, None, None, None]
    light = torch.tensor([-0.1, 0.0, 0.1])[None, :, None, None]
    albedo = (level + light).expand(2, 3, 5, 3).clone()
    shown = torch.ones(2, 5, dtype=torch.bool)
    shown[0, 4] = False
    albedo[0, :, 4] = torch.tensor([0.0, 9.0, 0.0])[:, None]
    found = spread(albedo, shown)
    assert found.within == pytest.approx([0.01, 0.01])
    assert found.between == pytest.approx(0.08)
    assert found.ratio == pytest.approx(8.0)


def a_row(tone: float = 45.0, light: str = "studio", **changed: float) -> map_tables.Row:
    score = MapScore(albedo=30.0, whole=29.0, specular=0.1, roughness=0.05, normal=3.0, residual=0.01)
    return {"photo": "p", "tone": tone, "light": light, "seconds": 1.0, **score.values(), **changed}


def test_what_is_met_and_what_is_missed():
    none = [a_row(tone=tone) for tone in (45.0, 45.0, -40.0)]
    good = [a_row(tone=tone, albedo=30.7, specular=0.09, roughness=0.047) for tone in (45.0, 45.0, -40.0)]
    assert "MISSED" not in map_tables.verdicts(good, none, none)
    uneven = [*good[:2], a_row(tone=-40.0, albedo=29.7, specular=0.097, roughness=0.047, normal=3.1)]
    missed = [line for line in map_tables.verdicts(uneven, none, None).splitlines() if "MISSED" in line]
    assert [line.split(" | ")[0].strip("| ") for line in missed] == ["albedo", "normal", "dark"]
    assert "-0.30" in missed[-1]
    assert map_tables.residual_change([a_row(residual=0.0102)], [a_row()]).value == pytest.approx(0.02)


def test_each_domain_takes_the_weight_with_its_own_best_measure():
    tried = {
        0.0: [a_row()],
        1.0: [a_row(albedo=31.0, specular=0.2, roughness=0.04)],
        3.0: [a_row(albedo=30.5, normal=2.0)],
    }
    assert map_tables.best_weights(tried) == (1.0, 0.0, 1.0, 3.0)


@pytest.fixture(scope="module")
def model(toy: MorphableModel) -> MorphableModel:
    return with_face_points(toy)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_prior(tmp_path_factory.mktemp("prior") / "random.safetensors")


def toy_scene(model: MorphableModel, seed: int, name: str, light: int = 0) -> SharedScene:
    """A photo of skin that the toy's statistics do not span, fitted by its own coefficients."""
    plain = replace(known_scene(model, seed=seed, yaw=6.0, size=64), light=known_scene(model, seed=seed + light).light)
    maps = statistical_maps(plain, model, CONFIG.texture_resolution)
    wave = torch.sin(torch.linspace(0.0, 18.0, 64))
    pattern = LaplacianTexture.from_image((0.05 * wave[:, None] * wave)[None, ..., None]).levels
    for level, extra in zip(maps.diffuse.levels, pattern, strict=False):
        level += extra
    for texture, more in ((maps.specular, -0.15), (maps.roughness, 0.08)):
        texture.levels[0] += more
    maps.confidence += 1.0
    portrait = portrait_of(replace(plain, maps=maps), model)
    return SharedScene(
        name, portrait.observation, replace(portrait.truth, maps=None), portrait.truth, 20.0 + seed, f"light {light}"
    )


@pytest.fixture(scope="module")
def shared(model: MorphableModel) -> SharedScene:
    return toy_scene(model, 1, "toy")


def test_a_scene_comes_back_from_its_folder(shared, tmp_path: Path):
    shared.save(tmp_path / "toy")
    found = SharedScene.load(tmp_path / "toy")
    assert (found.name, found.tone, found.light) == (shared.name, shared.tone, shared.light)
    assert torch.equal(found.observation.image, shared.observation.image)
    assert found.scene.maps is None and found.truth is not None and found.truth.maps is not None
    assert torch.equal(found.truth.maps.diffuse.levels[0], shared.truth.maps.diffuse.levels[0])
    replace(shared, name="real", truth=None).save(tmp_path / "real")
    assert SharedScene.load(tmp_path / "real").truth is None


def test_a_pull_to_the_truth_leads_there_and_one_to_the_mean_away(shared, model, prior: Path):
    face = prior_maps.face_texels(model, CONFIG.texture_resolution)
    begun = Pull._begun
    found = {}
    for kind in ("none", "truth", "mean"):
        scene, seconds = fitted(shared, Arm(kind, STRONG), model, prior, CONFIG)
        residual = photo_residual(scene, shared.observation, model, True)
        found[kind] = map_score(scene.maps, shared.truth.maps, face, residual)
        assert seconds > 0.0
    assert Pull._begun is begun
    assert found["truth"].albedo > found["none"].albedo + 0.3
    assert found["truth"].specular < 0.9 * found["none"].specular
    assert found["truth"].roughness < 0.9 * found["none"].roughness
    assert found["mean"].albedo < found["truth"].albedo
    assert 0.0 < found["none"].residual < found["mean"].residual


def test_the_photo_residual_is_what_differs_on_measured_skin(shared, model):
    truth = shared.truth
    assert photo_residual(truth, shared.observation, model, True) == pytest.approx(0.0, abs=2e-3)
    unknown = replace(truth, maps=replace(truth.maps, confidence=torch.zeros_like(truth.maps.confidence)))
    assert math.isnan(photo_residual(unknown, shared.observation, model, True))
    darker = replace(truth, exposure=truth.exposure - 0.1)
    assert photo_residual(darker, shared.observation, model, True) > 0.02


def test_arms_depend_on_no_more_of_a_prior_than_they_use(prior: Path, tmp_path: Path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(save_random_prior(tmp_path / "same.safetensors").read_bytes())
    arms = {kind: Arm(kind).needs(prior) for kind in ("none", "prior", "mean")}
    assert arms["none"] == "" and len({*arms.values()}) == 3
    assert Arm("prior").needs(other) == arms["prior"], "by content, not by name"
    assert str(Arm("prior", (1.0, 0.3, 0.0, 10.0))) == "prior uv 1,0.3,0,10 tint 0.7"
    assert not any(
        value for name, value in vars(NOTHING.config(prior, CONFIG)).items() if name.startswith("weight_prior")
    )


def test_pulled_to_lets_go_when_something_fails(shared, model):
    begun = Pull._begun
    with pytest.raises(RuntimeError), pulled_to(known_maps(shared, "mean", model, 256)):
        assert Pull._begun is not begun
        raise RuntimeError
    assert Pull._begun is begun


def test_from_photos_to_tables(model, prior: Path, tmp_path: Path, monkeypatch, capsys):
    """Single photos and one person under three lights; what was measured is not measured again."""
    quick = replace(CONFIG, iter_step3=3, prior_every=2)
    photos, lit = [(0, None), (1, None)], [(number, light) for number in (32, 33) for light in range(LIGHTS)]
    for number, light in photos + lit:
        made = toy_scene(model, 1 + number % 2, photo_name(number, light), light or 0)
        made.save(tmp_path / "scenes" / made.name)
    bench = Bench(model, tmp_path, tmp_path / "scenes", prior, quick)
    arms = [NOTHING, Arm("prior"), Arm("mean")]
    assert summary(bench, (0, 1), (32, 33), arms) == "nothing is complete yet"
    for number, light in photos:
        bench.measure(number, light, arms)
    for number, light in lit:
        bench.measure(number, light, arms[:2])
    text = summary(bench, (0, 1), (32, 33), arms)
    for part in (
        "## 2 photos",
        "prior uv 1,1,1,1 tint 0.7",
        "| albedo | mean |",
        "## 2 people under 3 lights",
        "| light 2 | prior |",
    ):
        assert part in text
    tune(bench, (0, 1), ["prior"], (1.0,), "uv")
    assert "best of prior: weights " in capsys.readouterr().out
    monkeypatch.setattr(prior_maps, "fitted", None)
    for number, light in photos:
        bench.measure(number, light, arms)
    assert len((tmp_path / "rows" / "unseen_32_light_1.jsonl").read_text().splitlines()) == 2


def test_pictures_of_a_real_photo(shared, model, prior: Path, tmp_path: Path):
    residuals = compare(shared, model, [NOTHING, Arm("prior")], prior, tmp_path)
    assert len(residuals) == 2 and min(residuals) > 0.0
    from PIL import Image

    strip, face = (Image.open(tmp_path / f"toy_{name}.png") for name in ("strip", "face"))
    assert strip.size == (7 * 64, 2 * 64)
    assert face.width > 64 * 4
