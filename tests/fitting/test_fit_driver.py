"""The driver: checkpoints, resuming, leaving stages out, repeatability. On the toy head, in a second or two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from synthetic_photo import BANDS, Portrait, known_scene, portrait_of

from nextface.config import OptimConfig
from nextface.fitting import driver, statistical
from nextface.fitting.driver import Fit, FitRecord, checkpoint_path, run_stages
from nextface.fitting.pose import start
from nextface.fitting.progress import Progress
from nextface.morphable.model import MorphableModel
from nextface.scene import Scene

CONFIG = OptimConfig(
    device="cpu", bands=BANDS, texture_resolution=256, iter_step1=8, iter_step2=10, iter_step3=4, debug_frequency=4
)


@pytest.fixture(scope="module")
def subject(toy: MorphableModel) -> Portrait:
    return portrait_of(known_scene(toy, seed=2, yaw=10.0, size=64), toy)


def fit(subject: Portrait, model: MorphableModel, **options) -> tuple[Scene, FitRecord]:  # type: ignore[no-untyped-def]
    config = options.pop("config", CONFIG)
    scene = options.pop("scene", None) or start(subject.observation, model, BANDS)
    settings = {name: options.pop(name) for name in ("skip", "show_progress") if name in options}
    one = Fit(scene, subject.observation, **options)
    run_stages([one], model, config, **settings)
    return one.scene, one.record


@pytest.fixture(scope="module")
def whole(
    subject: Portrait, toy: MorphableModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Scene, FitRecord, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    scene, record = fit(subject, toy, folder=folder, fingerprint="a", notes={"name": "someone"})
    return scene, record, folder


def same_bytes(first: Scene, second: Scene) -> bool:
    one, other = first.state(), second.state()
    return one.keys() == other.keys() and all(
        tensor.numpy().tobytes() == other[name].numpy().tobytes() for name, tensor in one.items()
    )


def interrupt(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Ctrl-C while `stage` runs."""

    def stopped(*_) -> Scene:  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    plans = tuple(replace(plan, fit=stopped) if plan.name == stage else plan for plan in driver.STAGES)
    monkeypatch.setattr(driver, "STAGES", plans)


def test_every_stage_leaves_a_checkpoint(whole):
    scene, record, folder = whole
    for number, name in ((1, "pose"), (2, "statistical"), (3, "maps")):
        saved, header = Scene.load(checkpoint_path(folder, number))
        assert header["stage"] == name
        assert header["fingerprint"] == "a"
        assert header["name"] == "someone"
        assert header["losses"] == record.losses[name]
        assert (saved.maps is not None) == (number == 3)
    assert same_bytes(saved, scene)
    assert not list(folder.glob("*.part"))


def test_the_record_has_each_stage(whole):
    _, record, _ = whole
    assert list(record.losses) == list(record.timings) == ["pose", "statistical", "maps"]
    assert 0 < len(record.losses["pose"]) <= CONFIG.iter_step1
    assert len(record.losses["statistical"]) == CONFIG.iter_step2
    assert len(record.losses["maps"]) == CONFIG.iter_step3
    assert all(seconds > 0 for seconds in record.timings.values())
    assert record.stopped == {}


def test_same_seed_same_bytes(whole, subject: Portrait, toy: MorphableModel):
    scene, _ = fit(subject, toy)
    assert same_bytes(scene, whole[0])


@pytest.mark.parametrize(("killed_in", "left"), [("statistical", ["statistical", "maps"]), ("maps", ["maps"])])
def test_an_interrupted_run_resumes_to_the_same_bytes(
    killed_in: str, left: list[str], whole, subject: Portrait, toy: MorphableModel, tmp_path: Path, runs: list[str]
):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, killed_in)
        fit(subject, toy, folder=tmp_path, fingerprint="a")
    runs.clear()
    scene, record = fit(subject, toy, folder=tmp_path, fingerprint="a")
    assert runs == left
    assert same_bytes(scene, whole[0])
    assert record.losses == whole[1].losses


def test_a_finished_run_fits_nothing_again(whole, subject: Portrait, toy: MorphableModel, runs: list[str]):
    scene, record = fit(subject, toy, folder=whole[2], fingerprint="a")
    assert runs == []
    assert same_bytes(scene, whole[0])


@pytest.mark.parametrize("fingerprint", ["b", ""])
def test_another_fingerprint_does_not_resume(
    fingerprint: str, whole, subject: Portrait, toy: MorphableModel, tmp_path: Path, runs: list[str]
):
    """Other photo, other settings, or none named: everything is fitted anew."""
    for number in (1, 2, 3):
        checkpoint_path(tmp_path, number).write_bytes(checkpoint_path(whole[2], number).read_bytes())
    fit(subject, toy, folder=tmp_path, fingerprint=fingerprint)
    assert runs == ["pose", "statistical", "maps"]


def test_a_truncated_checkpoint_is_fitted_again(
    whole, subject: Portrait, toy: MorphableModel, tmp_path: Path, runs: list[str]
):
    for number in (1, 2):
        checkpoint_path(tmp_path, number).write_bytes(checkpoint_path(whole[2], number).read_bytes())
    path = checkpoint_path(tmp_path, 2)
    path.write_bytes(path.read_bytes()[:500])
    scene, _ = fit(subject, toy, folder=tmp_path, fingerprint="a")
    assert runs == ["statistical", "maps"]
    assert same_bytes(scene, whole[0])


@pytest.mark.parametrize("number", [1, 2, 3])
def test_each_stage_alone_from_the_scene_before_it(
    number: int, whole, subject: Portrait, toy: MorphableModel, runs: list[str]
):
    scene, _, folder = whole
    before = None if number == 1 else Scene.load(checkpoint_path(folder, number - 1))[0]
    found, record = fit(subject, toy, scene=before, skip={1, 2, 3} - {number})
    assert runs == [driver.STAGES[number - 1].name]
    assert same_bytes(found, Scene.load(checkpoint_path(folder, number))[0])
    assert list(record.losses) == runs


def test_skipping_everything_changes_nothing(subject: Portrait, toy: MorphableModel):
    scene = start(subject.observation, toy, BANDS)
    found, record = fit(subject, toy, scene=scene, skip={1, 2, 3})
    assert same_bytes(found, scene)
    assert record.losses == {}


def test_a_stage_that_diverges_is_named_and_the_run_goes_on(
    subject: Portrait, toy: MorphableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cost = statistical._photo_cost

    def broken(residual, weight, seen):  # type: ignore[no-untyped-def]
        return cost(residual, weight, seen) * float("nan")

    monkeypatch.setattr(statistical, "_photo_cost", broken)
    scene, record = fit(subject, toy, folder=tmp_path, fingerprint="a")
    assert list(record.stopped) == ["statistical"]
    assert "diverged" in record.stopped["statistical"]
    assert scene.is_finite()
    assert scene.maps is not None
    assert len(record.losses["maps"]) == CONFIG.iter_step3
    _, resumed = fit(subject, toy, folder=tmp_path, fingerprint="a")
    assert resumed.stopped == record.stopped, "an early end is still known after resuming"


def test_watchers_see_the_scene_as_often_as_asked(subject: Portrait, toy: MorphableModel):
    seen: list[tuple[int, int]] = []

    def watch(stage: int, iteration: int, scene: Scene) -> None:
        assert scene.is_finite()
        assert not scene.rotation.requires_grad
        assert (scene.maps is not None) == (stage == 3)
        seen.append((stage, iteration))

    fit(subject, toy, watch=watch)
    assert [iteration for stage, iteration in seen if stage == 2] == [0, 4, 8]
    assert [iteration for stage, iteration in seen if stage == 3] == [0]
    seen.clear()
    fit(subject, toy, watch=watch, config=replace(CONFIG, debug_frequency=0))
    assert seen == []


def test_watching_does_not_change_the_result(whole, subject: Portrait, toy: MorphableModel):
    scene, _ = fit(subject, toy, watch=lambda stage, iteration, scene: None, config=replace(CONFIG, debug_frequency=1))
    assert same_bytes(scene, whole[0])


def test_progress_is_quiet_unless_asked(capfd: pytest.CaptureFixture[str], subject: Portrait, toy: MorphableModel):
    fit(subject, toy)
    assert capfd.readouterr() == ("", "")
    fit(subject, toy, show_progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    for name in ("pose", "statistical", "maps"):
        assert name in shown.err


def test_progress_records_losses_and_reasons_of_each_photo():
    progress = Progress("stage", 3, names=("a.jpg", "b.jpg"))
    for losses in ([3.0, 1.0], [2.0, torch.nan], [1.0, torch.nan]):
        progress.step(torch.tensor(losses))
    progress.diverged([1], "scene")
    progress.close()
    assert progress.losses == [[3.0, 2.0, 1.0], [1.0]]
    assert list(progress.stopped) == [1]
    assert "iteration 1;" in progress.stopped[1]
