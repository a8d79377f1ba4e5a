"""The maps stage: what the maps gain, what holds them back, and texels that nobody saw."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from synthetic_photo import BANDS, Portrait, known_scene, portrait_of
from test_fit_statistical import in_double
from torch import Tensor

from nextface.color import luminance
from nextface.config import OptimConfig
from nextface.fitting import maps as stage
from nextface.fitting.evidence import Evidence
from nextface.fitting.fill import MIRRORED
from nextface.fitting.losses import encode
from nextface.fitting.maps import fit_maps
from nextface.fitting.progress import Progress
from nextface.fitting.surface import CHANNELS, Surface
from nextface.morphable.model import MorphableModel
from nextface.rendering.render import render
from nextface.rendering.skin import statistical_maps
from nextface.scene import Scene
from nextface.textures import MAP_CHANNELS, SkinMaps

OFF = OptimConfig(
    device="cpu",
    bands=BANDS,
    texture_resolution=256,
    iter_step3=30,
    weight_diffuse_symmetry_reg=0.0,
    weight_diffuse_consistency_reg=0.0,
    weight_diffuse_smoothness_reg=0.0,
)


@pytest.fixture(scope="module")
def spotted(toy: MorphableModel) -> tuple[Portrait, Scene]:
    """A toy portrait with a mole on one cheek, and the scene without it."""
    truth = known_scene(toy, seed=1, yaw=-8.0, size=64)
    portrait = portrait_of(truth, toy)
    portrait.observation.image[0, 36:40, 37:41] *= torch.tensor([0.7, 0.6, 0.5])
    return portrait, portrait.truth


def fitted(spotted: tuple[Portrait, Scene], model: MorphableModel, config: OptimConfig) -> SkinMaps:
    portrait, scene = spotted
    found = fit_maps(scene, portrait.observation, model, config, Progress("maps", 1)).maps
    assert found is not None
    return found


def seen_on_both_sides(maps: SkinMaps) -> Tensor:
    """[T, T] bool"""
    confidence = maps.confidence[0, ..., 0]
    return (confidence > 0.99) & (confidence.flip(1) > 0.99)


def test_the_residual_falls(mapped, lit, portrait: Portrait, head: MorphableModel):
    (losses,) = mapped.progress.losses
    assert losses[-1] < 0.7 * losses[0]
    errors = []
    for scene in (lit.after, mapped.after):
        drawn = render(scene, head)
        inside = drawn.mask & portrait.covered
        errors.append(float((encode(drawn.image) - encode(portrait.observation.image))[inside].abs().mean()))
    assert errors[1] < 0.95 * errors[0]


def test_a_mole_lands_in_the_diffuse_map(spotted, toy: MorphableModel):
    portrait, scene = spotted
    found = replace(scene, maps=fitted(spotted, toy, replace(OFF, weight_diffuse_smoothness_reg=1e-6)))
    drawn = [render(each, toy).diffuse[0, 37:39, 38:40].mean() for each in (scene, found)]
    beside = [render(each, toy).diffuse[0, 37:39, 22:24].mean() for each in (scene, found)]
    assert float(drawn[1] / drawn[0]) < 0.9
    assert float(beside[1] / beside[0]) == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("resolution", [256, 1024])
def test_maps_may_be_finer_than_the_photo(resolution: int, spotted, toy: MorphableModel):
    found = fitted(spotted, toy, replace(OFF, texture_resolution=resolution, iter_step3=3))
    images = found.images()
    assert {name: tuple(image.shape) for name, image in images.items()} == {
        name: (1, resolution, resolution, 3 if name == "normal" else count) for name, count in MAP_CHANNELS.items()
    }
    assert found.confidence.shape == (1, resolution, resolution, 1)
    assert all(bool(torch.isfinite(image).all()) for image in images.values())


def test_finer_maps_change_no_coarser_level(spotted, toy: MorphableModel):
    """The photo cannot see 512² texels at 64 pixels: it gives the same coarse levels either way."""
    coarse, fine = (fitted(spotted, toy, replace(OFF, texture_resolution=size, iter_step3=5)) for size in (256, 512))
    starts = [statistical_maps(spotted[1], toy, size) for size in (256, 512)]
    moved = [
        [level - base for level, base in zip(maps.diffuse.levels, start.diffuse.levels, strict=True)]
        for maps, start in ((coarse, starts[0]), (fine, starts[1]))
    ]
    for one, other in zip(moved[0][:3], moved[1][:3], strict=True):
        assert float((one - other).abs().mean()) < 0.1 * float(one.abs().mean())


def test_symmetry_weight(spotted, toy: MorphableModel):
    """Without it the mole stays on its side; with a heavy one what was seen on both sides becomes alike."""
    asymmetry = []
    for weight in (0.0, 300.0, 1e4):
        maps = fitted(spotted, toy, replace(OFF, weight_diffuse_symmetry_reg=weight))
        full = maps.diffuse.full()[0]
        asymmetry.append(float((full - full.flip(1)).abs()[seen_on_both_sides(maps)].mean()))
    assert asymmetry[0] > asymmetry[1] > asymmetry[2]
    assert asymmetry[2] < 0.25 * asymmetry[0]


def test_consistency_weight_keeps_the_chroma(spotted, toy: MorphableModel):
    """The photo turned blue: with a heavy weight the map may grow darker or lighter but not change its hue."""
    portrait, scene = spotted
    blue = replace(portrait.observation, image=portrait.observation.image * torch.tensor([0.8, 1.0, 1.25]))
    shifts = []
    for weight in (0.0, 1e5):
        config = replace(OFF, weight_diffuse_consistency_reg=weight)
        maps = fit_maps(scene, blue, toy, config, Progress("maps", 1)).maps
        assert maps is not None
        moved = (maps.diffuse.full() - statistical_maps(scene, toy, 256).diffuse.full())[0]
        moved = moved[maps.confidence[0, ..., 0] > 0.99]
        shifts.append(float((moved - moved.mean(-1, keepdim=True)).abs().mean()))
    assert shifts[1] < 0.3 * shifts[0]


@pytest.mark.parametrize("name", ["diffuse", "specular", "roughness"])
def test_smoothness_weight_keeps_fine_levels_at_their_start(name: str, spotted, toy: MorphableModel):
    start = statistical_maps(spotted[1], toy, 256).textures()[name]
    departure = []
    for weight in (0.0, 1.0):
        config = replace(OFF, **{f"weight_{name}_smoothness_reg": weight})
        levels = fitted(spotted, toy, config).textures()[name].levels
        departure.append(float((levels[2] - start.levels[2]).abs().mean()))
    assert departure[1] < 0.5 * departure[0]


def test_unseen_texels_are_the_mirror_image_or_the_statistics(mapped, lit, head: MorphableModel, quick):
    start = statistical_maps(lit.after, head, quick.texture_resolution)
    maps = mapped.after.maps
    confidence = maps.confidence[0, ..., 0]
    nowhere, mirrored = confidence == 0.0, confidence == MIRRORED
    assert float(nowhere.float().mean()) > 0.03
    assert float(mirrored.float().mean()) > 0.001
    assert float((confidence > 0.99).float().mean()) > 0.1
    for name, texture in maps.textures().items():
        finest, base = texture.levels[-1][0], start.textures()[name].levels[-1][0]
        assert torch.equal(finest[nowhere], base[nowhere]), name
        sign = torch.tensor([-1.0, 1.0]) if name == "normal" else torch.ones(finest.shape[-1])
        departure = (finest - base).flip(1) * sign
        assert torch.allclose((finest - base)[mirrored], departure[mirrored], atol=1e-6), name


def test_the_side_that_the_camera_sees_is_the_confident_one(spotted, toy: MorphableModel):
    """A head turned to show its left side: that side's half of the map (u > 0.5 is the subject's left) was seen more."""
    truth = known_scene(toy, seed=1, yaw=-35.0, size=64)
    portrait = portrait_of(truth, toy)
    maps = fitted((portrait, portrait.truth), toy, replace(OFF, iter_step3=2))
    half = maps.confidence.shape[2] // 2
    left_side_u = float((toy.uv[:, 0] > 0.5)[toy.mean[toy.uv_to_vertex, 0] > 20.0].float().mean()) > 0.5
    seen = (maps.confidence[0, ..., 0] > 0.9).float()
    halves = seen[:, half:].sum(), seen[:, :half].sum()
    left, right = halves if left_side_u else halves[::-1]
    assert float(left) > 1.3 * float(right)


def test_maps_stay_in_range(mapped):
    images = mapped.after.maps.images()
    for name in ("diffuse", "specular", "roughness"):
        assert float(images[name].min()) >= 0.0
        assert float(images[name].max()) <= 1.0
    assert torch.allclose(images["normal"].norm(dim=-1), torch.ones(()), atol=1e-5)
    assert float(images["normal"][..., 2].min()) > 0.0


def test_divergence_keeps_good_maps(spotted, toy: MorphableModel, monkeypatch: pytest.MonkeyPatch):
    calls = []
    cost = stage._photo_cost

    def broken(*arguments) -> Tensor:  # type: ignore[no-untyped-def]
        calls.append(1)
        return cost(*arguments) * (float("nan") if len(calls) > 2 else 1.0)

    monkeypatch.setattr(stage, "_photo_cost", broken)
    portrait, scene = spotted
    progress = Progress("maps", 1)
    found = fit_maps(scene, portrait.observation, toy, OFF, progress)
    assert "iteration 2;" in progress.stopped[0]
    assert len(progress.losses[0]) == 2
    assert found.maps is not None
    assert found.is_finite()


class Probe:
    """Stands in for the texels' Adam: moves one map along a random direction, either way, and keeps the first gradient."""

    levels: list[Probe]
    WIDTH = 1e-6

    def __init__(self, start: Tensor, penalties: object, rate: Tensor, touched: Tensor) -> None:
        self.level, self.start, self.visits = start.clone(), start, 0
        Probe.levels.append(self)
        self.direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(1), dtype=start.dtype)

    def typical(self, gradient: Tensor) -> Tensor:
        return gradient.new_zeros(len(gradient), gradient.shape[3])

    def step(self, gradient: Tensor, decay: float, epsilon: Tensor) -> None:
        if self.visits == 0:
            self.gradient = gradient.clone()
        self.level.copy_(self.start)
        names, sign = list(CHANNELS), 1.0 if self.visits % 2 == 0 else -1.0
        if self.visits < 2 * len(names):
            where = CHANNELS[names[self.visits // 2]]
            self.level[..., where] += sign * self.WIDTH * self.direction[..., where]
        self.visits += 1


@pytest.mark.grad
def test_the_photo_term_s_gradient_reaches_every_map(spotted, toy: MorphableModel, monkeypatch: pytest.MonkeyPatch):
    """As the stage runs it, against finite differences along a random direction of each map, all levels together."""
    portrait, scene = spotted
    model = in_double(toy)
    monkeypatch.setattr(stage, "TexelAdam", Probe)
    Probe.levels = []
    shifted = replace(in_double(scene), albedo=in_double(scene).albedo + 0.5)
    progress = Progress("maps", 1)
    fit_maps(shifted, in_double(portrait.observation), model, replace(OFF, iter_step3=9), progress)
    for number, where in enumerate(CHANNELS.values()):
        analytic = sum(float((probe.gradient * probe.direction)[..., where].sum()) for probe in Probe.levels)
        (losses,) = progress.losses
        numeric = (losses[1 + 2 * number] - losses[2 + 2 * number]) / (2.0 * Probe.WIDTH)
        assert analytic == pytest.approx(numeric, rel=1e-4, abs=1e-7)
        assert abs(numeric) > 1e-6


def test_pixels_in_deep_shadow_count_less_than_lit_ones(toy: MorphableModel):
    """With the light from one side the dark cheek is left to its mirror image, but only where shadows are known."""
    scene = known_scene(toy, seed=1, yaw=0.0, size=64)
    light = torch.zeros_like(scene.light)
    light[:, 0], light[:, 3] = 1.0, 1.2  # a constant and x: from the right of the photo
    portrait = portrait_of(replace(scene, light=light), toy)
    for shadows in (True, False):
        surface = Surface.of(portrait.truth, toy, 64, shadows)
        believed = Evidence.of(surface, portrait.observation, toy).believed
        arriving = luminance(surface.incoming())
        eyes = surface.seen.interpolate(toy.regions["eyes"][None, :, None])[:, 0] > 0
        dim, bright = (arriving < 0.25 * arriving.mean()) & ~eyes, arriving > arriving.mean()
        assert int(dim.sum()) > 20
        assert float(believed[bright].mean()) > 0.2
        assert (float(believed[dim].mean()) < 0.02) == shadows
