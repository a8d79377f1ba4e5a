"""The statistical stage: its objective's gradient, what it recovers, and how it stops."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from synthetic_photo import BANDS, Portrait, degrees_apart, known_scene, portrait_of
from torch import Tensor

from nextface.config import OptimConfig
from nextface.fitting import light, statistical
from nextface.fitting.appearance import Painter
from nextface.fitting.losses import encode
from nextface.fitting.pose import fit_pose, start
from nextface.fitting.progress import Progress
from nextface.fitting.skin_tone import SkinTone
from nextface.fitting.statistical import fit_statistical
from nextface.morphable.model import MorphableModel
from nextface.rendering.camera import Camera
from nextface.rendering.cpu import CpuRasterizer
from nextface.rendering.render import render
from nextface.rendering.sh import irradiance
from nextface.scene import Scene

CONFIG = OptimConfig(device="cpu", bands=BANDS, iter_step2=400, self_shadowing=False)


class Probed(Exception):
    """Raised when the objective has been evaluated often enough."""


class Probe:
    """Stands in for Adam: instead of descending it visits a start and, either side of it, points along random directions, and
    keeps the gradient at the start. The stage's own losses at these points give the directional derivatives.
    """

    def __init__(
        self, groups: list[dict], betas: tuple[float, float], directions: int = 2, width: float = 1e-6
    ) -> None:
        self.param_groups = [dict(group) for group in groups]
        self.parameters = [group["params"][0] for group in groups]
        self.width = width
        random = torch.Generator().manual_seed(4)
        self.probes = [
            (number, torch.randn(parameter.shape, generator=random, dtype=parameter.dtype))
            for number, parameter in enumerate(self.parameters)
            for _ in range(directions)
        ]
        self.start: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.visited = -1
        Probe.latest = self

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        if self.visited < 0:
            self.start = [parameter.detach().clone() for parameter in self.parameters]
            self.gradients = [parameter.grad.clone() for parameter in self.parameters]
        self.visited += 1
        if self.visited > 2 * len(self.probes):
            raise Probed
        for parameter, value in zip(self.parameters, self.start, strict=True):
            parameter.copy_(value)
        if self.visited < 2 * len(self.probes):
            number, direction = self.probes[self.visited // 2]
            sign = 1.0 if self.visited % 2 == 0 else -1.0
            self.parameters[number].add_(sign * self.width * direction)

    def compared(self, losses: list[float]) -> dict[str, list[tuple[float, float]]]:
        """Per unknown, (analytic, numeric) derivatives along each direction. losses: of the start, then the visited points."""
        pairs: dict[str, list[tuple[float, float]]] = {}
        for probe, (number, direction) in enumerate(self.probes):
            numeric = (losses[1 + 2 * probe] - losses[2 + 2 * probe]) / (2.0 * self.width)
            analytic = float((self.gradients[number] * direction).sum())
            pairs.setdefault(list(statistical._RATES)[number], []).append((analytic, numeric))
        return pairs


def in_double(thing):  # type: ignore[no-untyped-def]
    """A dataclass of tensors, or a mapping of them, in double precision."""
    if isinstance(thing, Tensor):
        return thing.double() if thing.is_floating_point() else thing
    if isinstance(thing, dict):
        return {name: in_double(item) for name, item in thing.items()}
    if hasattr(thing, "__dataclass_fields__"):
        return replace(thing, **{name: in_double(getattr(thing, name)) for name in thing.__dataclass_fields__})
    return thing


def evenly_coloured(model: MorphableModel) -> MorphableModel:
    """The model with one skin colour all over, so that no albedo slides when the head moves."""

    def even(values: Tensor) -> Tensor:
        return values.mean(-2, keepdim=True).expand_as(values).contiguous()

    names = ("diffuse_mean", "diffuse_basis", "specular_mean", "specular_basis", "roughness_mean")
    return replace(model, **{name: even(getattr(model, name)) for name in names})


@pytest.fixture
def whole_objective(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Double precision, and what a gradient takes as given: visible triangles, the mask, inliers, and how the tone that the photo
    shows is shared between skin and exposure."""
    seen: dict[int, object] = {}
    masks: dict[int, Tensor] = {}
    believed, visible = statistical._believed, CpuRasterizer.visible_triangles

    def once_visible(self, vertices, triangles, camera):  # type: ignore[no-untyped-def]
        if camera.height not in seen:
            seen[camera.height] = visible(self, vertices, triangles, camera)
        return seen[camera.height]

    def once_believed(fragments, *rest):  # type: ignore[no-untyped-def]
        if len(fragments) not in masks:
            masks[len(fragments)] = believed(fragments, *rest)
        return masks[len(fragments)]

    shares: list[Tensor] = []
    share = SkinTone.share

    def once_shared(self, tone, weight):  # type: ignore[no-untyped-def]
        if not shares:
            shares.append(share(self, tone, weight))
        return shares[0]

    monkeypatch.setattr(SkinTone, "share", once_shared)
    monkeypatch.setattr(CpuRasterizer, "visible_triangles", once_visible)
    monkeypatch.setattr(statistical, "_believed", once_believed)
    monkeypatch.setattr(statistical, "_LIGHT_ONLY", 0.0)
    monkeypatch.setattr(statistical, "_INLIER_EVERY", 10**6)
    monkeypatch.setattr(statistical, "light_prior", cache(lambda bands: in_double(light.light_prior(bands))))
    monkeypatch.setattr(torch.optim, "Adam", Probe)


def compared_gradients(model: MorphableModel, truth: Scene, start: Scene) -> dict[str, list[tuple[float, float]]]:
    portrait = portrait_of(truth, model)
    progress = Progress("statistical", 1)
    with pytest.raises(Probed):
        fit_statistical(in_double(start), in_double(portrait.observation), in_double(model), CONFIG, progress)
    return Probe.latest.compared(progress.losses[0])


@pytest.mark.grad
def test_the_objective_s_gradient_reaches_every_unknown(whole_objective, toy: MorphableModel):
    """All terms together, as the stage runs them, along random directions of each unknown. The skin is of one colour: gradients
    of albedo that slides over the photo are cut on purpose, and finite differences would see them."""
    model = evenly_coloured(toy)
    truth = known_scene(model, seed=2, yaw=25.0)
    start = replace(known_scene(model, seed=3, yaw=22.0), translation=truth.translation + 4.0)
    start.expression[0] = torch.tensor([0.5, 0.4, 0.1])
    pairs = compared_gradients(model, truth, start)
    assert set(pairs) == set(statistical._RATES)
    for name, values in pairs.items():
        for analytic, numeric in values:
            assert analytic == pytest.approx(numeric, rel=2e-4, abs=1e-4), name
            assert abs(numeric) > 1e-3, f"{name}: nothing to compare"


@pytest.mark.grad
def test_reflectance_and_light_gradients_on_textured_skin(whole_objective, toy: MorphableModel):
    pairs = compared_gradients(toy, known_scene(toy, seed=2), known_scene(toy, seed=3))
    for name in set(pairs) - set(statistical._GEOMETRY):
        for analytic, numeric in pairs[name]:
            assert analytic == pytest.approx(numeric, rel=2e-4, abs=1e-4), name


@pytest.mark.grad
def test_sliding_albedo_does_not_turn_the_head(toy: MorphableModel):
    """Under light that is the same from everywhere, and without gloss, only silhouettes depend on the pose."""
    scene = in_double(known_scene(toy, seed=1, yaw=0.0, pitch=0.0))
    dull = in_double(replace(toy, specular_mean=0 * toy.specular_mean, specular_basis=0 * toy.specular_basis))
    constant = torch.zeros_like(scene.light)
    constant[:, 0] = 3.0
    rotation = scene.rotation.clone().requires_grad_(True)
    scene = replace(scene, light=constant, rotation=rotation, shape=0 * scene.shape)
    colour, seen, _ = Painter(dull, CpuRasterizer()).draw(scene, Camera.of(scene), scene.vertices_camera(dull))
    middle = (seen.pixels.column > 38) & (seen.pixels.column < 58) & (seen.pixels.row > 25) & (seen.pixels.row < 45)
    inside = colour.detach()[middle]
    spread = (inside.amax(0) - inside.amin(0)).min()
    assert float(spread) > 0.01, "the skin has texture"
    (gradient,) = torch.autograd.grad(colour[middle].sum(), rotation)
    assert float(gradient.abs().max()) < 1e-6 * float(inside.sum())


def test_the_loss_falls(lit):
    (losses,) = lit.progress.losses
    assert losses[-1] < 0.7 * losses[0]
    assert lit.progress.stopped == {}


def test_picture_and_light_come_closer_to_the_truth(lit, portrait: Portrait, head: MorphableModel):
    truth, found = portrait.truth, lit.after
    assert float(degrees_apart(truth, found)) < 2.0
    drawn = render(found, head)
    skin = drawn.mask & portrait.covered & (render(truth, head).specular[..., 0] > 0)
    error = (encode(drawn.image) - encode(portrait.observation.image))[skin].abs().mean()
    assert float(error) < 0.03
    shading = [shaded(scene) for scene in (truth, lit.before, found)]
    wrong = [float((image / image.mean() - shading[0] / shading[0].mean()).abs().mean()) for image in shading]
    assert wrong[2] < 0.5 * wrong[1]


def test_dark_skin_is_found_dark(head: MorphableModel, quick: OptimConfig):
    """Well before the last iteration the tone is on its way into the albedo, although more or less light explains it too."""
    face = head.regions["skin"] > 0.5
    tone = int(head.diffuse_basis[:, face].mean((1, 2)).abs().argmax())
    truth = known_scene(head, seed=6, strength=0.0, size=64)
    truth.albedo[0, tone] = -1.8 * torch.sign(head.diffuse_basis[tone, face].mean())
    portrait = portrait_of(truth, head)
    config = replace(quick, iter_step1=15, iter_step2=100)
    scene = fit_pose(start(portrait.observation, head, BANDS), portrait.observation, head, config, Progress("p", 1))
    found = fit_statistical(scene, portrait.observation, head, config, Progress("s", 1))
    expected, reached = (float(head.diffuse(each.albedo)[0, face].mean()) for each in (truth, found))
    mean = float(head.diffuse_mean[face].mean())
    assert expected < 0.5 * mean
    assert reached < 0.85 * mean


def shaded(scene: Scene) -> Tensor:
    """Irradiance on normals spread over the front. [500, 3]"""
    random = torch.Generator().manual_seed(0)
    normals = torch.randn(500, 3, generator=random)
    normals[:, 2] = normals[:, 2].abs() + 0.5
    normals = torch.nn.functional.normalize(normals, dim=-1)
    return irradiance(normals, scene.radiance(), torch.zeros(500, dtype=torch.int64)).clamp_min(0.01)


def test_expression_units_stay_within_their_bounds(lit, head: MorphableModel):
    assert bool((lit.after.expression >= head.expression_lower).all())
    assert bool((lit.after.expression <= head.expression_upper).all())


def test_a_focal_length_given_as_fixed_stays(toy: MorphableModel, quick: OptimConfig):
    portrait = portrait_of(known_scene(toy, seed=2), toy)
    scene = known_scene(toy, seed=3)
    config = replace(quick, iter_step2=12)
    for spread, stays in ((0.0, True), (0.4, False)):
        observation = replace(portrait.observation, focal_sd=torch.full_like(portrait.observation.focal_sd, spread))
        found = fit_statistical(scene, observation, toy, config, Progress("s", 1))
        assert torch.equal(scene.focal, found.focal) == stays


@pytest.mark.parametrize("when", [0, 5, 25])
def test_divergence_stops_the_stage_and_keeps_a_good_scene(
    when: int, posed, portrait: Portrait, head: MorphableModel, quick: OptimConfig, monkeypatch: pytest.MonkeyPatch
):
    calls = []
    cost = statistical._photo_cost

    def broken(residual: Tensor, weight: Tensor, seen) -> Tensor:  # type: ignore[no-untyped-def]
        calls.append(1)
        return cost(residual, weight, seen) * (float("nan") if len(calls) > when else 1.0)

    monkeypatch.setattr(statistical, "_photo_cost", broken)
    progress = Progress("statistical", quick.iter_step2)
    scene = fit_statistical(posed.after, portrait.observation, head, quick, progress)
    assert scene.is_finite()
    assert f"iteration {when};" in progress.stopped[0]
    assert len(progress.losses[0]) == when
    assert float(degrees_apart(scene, portrait.truth)) < 5.0


def test_a_last_step_into_nowhere_is_not_kept(
    posed, portrait: Portrait, head: MorphableModel, quick: OptimConfig, monkeypatch: pytest.MonkeyPatch
):
    class Careless(torch.optim.Adam):
        def step(self) -> None:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.fill_(float("nan"))

    monkeypatch.setattr(torch.optim, "Adam", Careless)
    progress = Progress("statistical", 1)
    scene = fit_statistical(posed.after, portrait.observation, head, replace(quick, iter_step2=1), progress)
    assert scene.is_finite()
    assert progress.stopped


def test_no_iterations_leave_geometry_as_it_was(posed, portrait: Portrait, head: MorphableModel, quick: OptimConfig):
    scene = fit_statistical(posed.after, portrait.observation, head, replace(quick, iter_step2=0), Progress("s", 0))
    for name in ("shape", "expression", "rotation", "translation", "focal"):
        assert torch.equal(getattr(scene, name), getattr(posed.after, name)), name
