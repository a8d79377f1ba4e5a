"""Blocked directions: the compiled depth maps and those of plain torch over a rasterizer."""

from __future__ import annotations

import torch

from nextface.morphable.model import MorphableModel
from nextface.rendering.jit import plain_torch
from nextface.rendering.normals import vertex_normals
from nextface.rendering.visibility import blocked, sphere_directions


def test_twin_agrees(toy: MorphableModel):
    """Texel centres on a triangle's edge may go to either side, so single shares may differ, the mean may not."""
    heads = torch.stack([toy.mean, 1.1 * toy.mean + toy.shape_basis[0]])
    arguments = (heads, vertex_normals(heads, toy.triangles), toy.triangles, sphere_directions(32))
    compiled = blocked(*arguments)
    with plain_torch():
        plain = blocked(*arguments)
    assert plain.shape == compiled.shape == (2, len(toy.mean), 32)
    assert 0.01 < float(compiled.mean()) < 0.5
    difference = (plain - compiled).abs()
    assert float(difference.mean()) < 1e-3
    assert (
        float((difference > 0.05).float().mean()) < 0.005 and 0.0 <= float(plain.min()) <= float(plain.max()) < 1.0001
    )
