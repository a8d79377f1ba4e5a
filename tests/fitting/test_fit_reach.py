"""Every stage moves all parameters that it lists, and nothing else."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from nextface.fitting import maps, pose, statistical
from nextface.scene import Scene


@pytest.mark.parametrize(
    ("stage", "fixture"), [(pose, "posed"), (statistical, "lit"), (maps, "mapped")], ids=["pose", "statistical", "maps"]
)
def test_a_stage_moves_exactly_what_it_lists(stage, fixture: str, request: pytest.FixtureRequest):
    step = request.getfixturevalue(fixture)
    changed = {item.name for item in fields(Scene) if differs(step.before, step.after, item.name)}
    assert changed == set(stage.MOVES)
    assert step.after.is_finite()
    assert not any(tensor.requires_grad for tensor in step.after.state().values())


def test_the_pose_stage_reaches_every_coefficient(posed):
    """Shape and expression units one by one; a unit at its bound of 0 may stay there."""
    assert ((posed.after.shape != 0).float().mean()) > 0.95
    assert (posed.after.expression != 0).sum() >= 2
    assert bool((posed.after.rotation != posed.before.rotation).all())
    assert bool((posed.after.translation != posed.before.translation).all())


def test_the_statistical_stage_reaches_every_coefficient(lit):
    for name in ("light", "exposure", "white_balance", "albedo", "shape", "rotation", "translation"):
        moved = getattr(lit.after, name) != getattr(lit.before, name)
        assert moved.float().mean() > 0.95, name


def test_the_maps_stage_reaches_every_map(mapped, lit, head, quick):
    from nextface.rendering.skin import statistical_maps

    start = statistical_maps(lit.after, head, quick.texture_resolution)
    for name, texture in mapped.after.maps.textures().items():
        before = start.textures()[name]
        for level, old in zip(texture.levels, before.levels, strict=True):
            if name == "normal" and level.shape[1] < 64:
                assert torch.equal(level, old), "coarse relief is the mesh's"
            else:
                assert not torch.equal(level, old), f"{name} at {level.shape[1]}"


def differs(before: Scene, after: Scene, name: str) -> bool:
    old, new = getattr(before, name), getattr(after, name)
    if isinstance(old, Tensor):
        return not torch.equal(old, new)
    return old is not new if name == "maps" else old != new
