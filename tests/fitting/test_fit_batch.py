"""Photos fitted together come out as each does alone, and one that diverges leaves the others as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from synthetic_photo import BANDS, known_scene, portrait_of
from torch import Tensor

from nextface.config import OptimConfig
from nextface.fitting import driver, maps, statistical
from nextface.fitting.driver import Fit, run_stages
from nextface.fitting.last_good import LastGood
from nextface.fitting.observation import Observation
from nextface.fitting.pose import start
from nextface.morphable.model import MorphableModel
from nextface.scene import Scene

CONFIG = OptimConfig(
    device="cpu", bands=BANDS, texture_resolution=256, iter_step1=20, iter_step2=20, iter_step3=4, debug_frequency=5
)
MILLIMETRES = 1e-3
VALUES = 1e-5
"""How far a photo's result in a batch may be from its result alone: vertices; albedo, light and texels."""


def cut(observation: Observation, height: int, width: int) -> Observation:
    """The upper left part of a photo."""
    return replace(
        observation,
        image=observation.image[:, :height, :width].contiguous(),
        valid=observation.valid[:, :height, :width].contiguous(),
    )


@pytest.fixture(scope="module")
def photos(toy: MorphableModel) -> list[Observation]:
    """Of different sizes and people; the first cuts the chin off and stands beside padding."""
    portraits = [
        portrait_of(known_scene(toy, seed=seed, yaw=yaw, size=size), toy).observation
        for seed, yaw, size in ((1, 14.0, 64), (2, -20.0, 96), (3, 3.0, 80))
    ]
    return [cut(portraits[0], 58, 60), cut(portraits[1], 96, 90), portraits[2]]


def fits(photos: list[Observation], model: MorphableModel, **options: object) -> list[Fit]:
    return [
        Fit(start(photo, model, BANDS), photo, name=f"{number}.jpg", **options)  # type: ignore[arg-type]
        for number, photo in enumerate(photos)
    ]


@dataclass(frozen=True)
class Fitted:
    alone: list[Fit]
    together: list[Fit]


@pytest.fixture(scope="module", params=[False, True], ids=["lit", "shadowed"])
def fitted(request: pytest.FixtureRequest, photos: list[Observation], toy: MorphableModel) -> Fitted:
    config = replace(CONFIG, self_shadowing=request.param)
    result = Fitted(fits(photos, toy), fits(photos, toy))
    for fit in result.alone:
        run_stages([fit], toy, config)
    run_stages(result.together, toy, config)
    return result


@pytest.fixture(scope="module")
def unshadowed(photos: list[Observation], toy: MorphableModel) -> list[Fit]:
    """Fitted together."""
    batch = fits(photos, toy)
    run_stages(batch, toy, replace(CONFIG, self_shadowing=False))
    return batch


def assert_same(one: Scene, other: Scene, model: MorphableModel) -> None:
    distance = (one.vertices_camera(model) - other.vertices_camera(model)).norm(dim=-1)
    assert float(distance.max()) < MILLIMETRES
    assert torch.allclose(model.diffuse(one.albedo), model.diffuse(other.albedo), atol=VALUES)
    assert torch.allclose(one.radiance(), other.radiance(), atol=VALUES)
    assert (one.height, one.width, one.sizes) == (other.height, other.width, other.sizes)
    assert one.maps is not None and other.maps is not None
    images = other.maps.images()
    for name, image in one.maps.images().items():
        assert torch.allclose(image, images[name], atol=VALUES), name
    assert torch.allclose(one.maps.confidence, other.maps.confidence, atol=VALUES)


def test_a_photo_of_a_batch_comes_out_as_alone(fitted: Fitted, toy: MorphableModel):
    for alone, together in zip(fitted.alone, fitted.together, strict=True):
        assert_same(alone.scene, together.scene, toy)


def test_loss_curves_are_each_photo_s_own(fitted: Fitted):
    for alone, together in zip(fitted.alone, fitted.together, strict=True):
        for stage, losses in alone.record.losses.items():
            found = together.record.losses[stage]
            both = min(len(losses), len(found))
            assert found[:both] == pytest.approx(losses[:both], rel=1e-5), stage
            assert found[-1] == pytest.approx(losses[-1], rel=1e-5), stage
            # At the minimum rounding decides whether the pose stage takes another step.
            assert len(found) == len(losses) or stage == "pose"
        assert together.record.stopped == {}
    lengths = {len(fit.record.losses["pose"]) for fit in fitted.together}
    assert len(lengths) > 1, "all settled after as many steps: nothing tested"


def spoil(monkeypatch: pytest.MonkeyPatch, stage, photo: int, when: int) -> None:  # type: ignore[no-untyped-def]
    """From iteration `when` on, the stage's loss of one photo of the batch is no number."""
    cost, calls = stage._photo_cost, []

    def spoilt(*arguments) -> Tensor:  # type: ignore[no-untyped-def]
        calls.append(1)
        found = cost(*arguments)
        wrong = torch.ones_like(found)
        if len(calls) > when:
            wrong[photo] = torch.nan
        return found * wrong

    monkeypatch.setattr(stage, "_photo_cost", spoilt)


@pytest.mark.parametrize(("stage", "when"), [(statistical, 9), (maps, 2)])
def test_one_that_diverges_does_not_stop_the_others(
    stage,
    when: int,
    unshadowed: list[Fit],
    photos: list[Observation],
    toy: MorphableModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    config = replace(CONFIG, self_shadowing=False)
    good = unshadowed
    spoil(monkeypatch, stage, 1, when)
    found = fits(photos, toy)
    run_stages(found, toy, config)
    name = "maps" if stage is maps else "statistical"
    for number in (0, 2):
        assert_same(found[number].scene, good[number].scene, toy)
        assert found[number].record.stopped == {}
    assert found[1].scene.is_finite()
    assert f"diverged at iteration {when};" in found[1].record.stopped[name]
    assert len(found[1].record.losses[name]) == when
    assert len(found[0].record.losses[name]) == len(good[0].record.losses[name])
    assert "1.jpg: " in caplog.text and "0.jpg" not in caplog.text


def test_a_batch_takes_up_where_each_photo_stopped(
    unshadowed: list[Fit], photos: list[Observation], toy: MorphableModel, tmp_path: Path
):
    """One photo has all its checkpoints, one the first, one none: the same results as in one go."""
    config = replace(CONFIG, self_shadowing=False)
    parts = fits(photos, toy, fingerprint="a")
    for number, fit in enumerate(parts):
        fit.folder = tmp_path / str(number)
        fit.folder.mkdir()
    run_stages(parts[:1], toy, config)
    run_stages(parts[1:2], toy, config, skip={2, 3})
    again = fits(photos, toy, fingerprint="a")
    for fit, part in zip(again, parts, strict=True):
        fit.folder = part.folder
    ran: list[tuple[str, int]] = []
    with pytest.MonkeyPatch.context() as patch:

        def counted(plan: driver.StagePlan) -> driver.StagePlan:
            def stage(scene, *rest):  # type: ignore[no-untyped-def]
                ran.append((plan.name, scene.batch))
                return plan.fit(scene, *rest)

            return replace(plan, fit=stage)

        patch.setattr(driver, "STAGES", tuple(counted(plan) for plan in driver.STAGES))
        run_stages(again, toy, config)
    assert ran == [("pose", 1), ("statistical", 2), ("maps", 2)]
    for fit, one in zip(again, unshadowed, strict=True):
        assert_same(fit.scene, one.scene, toy)
        assert fit.record.losses.keys() == one.record.losses.keys()


def test_watchers_see_their_own_photo(photos: list[Observation], toy: MorphableModel):
    seen: list[tuple[int, int, tuple[int, int]]] = []
    batch = fits(photos, toy)
    for number in (0, 2):

        def watch(stage: int, iteration: int, scene: Scene, number: int = number) -> None:
            assert scene.batch == 1 and scene.is_finite()
            seen.append((number, stage, (scene.height, scene.width)))

        batch[number].watch = watch
    run_stages(batch, toy, replace(CONFIG, self_shadowing=False, iter_step1=6, iter_step2=6, iter_step3=1))
    assert {number for number, _, _ in seen} == {0, 2}
    assert {stage for _, stage, _ in seen} == {1, 2, 3}
    assert {size for number, _, size in seen if number == 0} == {(58, 60)}


def test_good_states_are_kept_for_the_lost_alone():
    state = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[1.0], [2.0], [3.0]])]
    fates = LastGood(state)
    shown = fates.judge(torch.tensor([0.5, torch.nan, torch.inf]))
    assert shown[0] == 0.5 and bool(shown[1:].isnan().all())
    for tensor in state:
        tensor.add_(10.0)
    fates.keep()
    state[1][0] = torch.nan
    fates.judge_state()
    fates.restore()
    assert state[0].tolist() == [11.0, 2.0, 3.0]
    assert state[1].flatten().tolist() == [11.0, 2.0, 3.0]
    assert fates.lost() == [0, 1, 2] and fates.all_lost()
    assert bool(fates.judge(torch.zeros(3)).isnan().all()), "who is lost stays lost"
