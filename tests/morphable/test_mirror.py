"""The left-right partner of every vertex."""

from __future__ import annotations

import numpy as np
from toy import toy_model

from nextface.morphable.mirror import mirror_index


def smooth_noise(vertices: np.ndarray, size: float) -> np.ndarray:
    """A lopsided smooth deformation, up to `size`."""
    wave = np.sin(
        vertices @ np.array([[0.021, 0.013, -0.017], [0.011, -0.024, 0.013], [0.015, 0.019, 0.022]]) + [0.3, 1.1, 2.0]
    )
    return size * wave


def test_exact_positions_suffice():
    model = toy_model()
    partner = mirror_index(model.mean.numpy())
    assert (partner == model.mirror.numpy()).all()
    assert np.abs(model.mean.numpy()[partner] * [-1, 1, 1] - model.mean.numpy()).max() < 1e-3


def test_lopsided_head_is_paired_by_its_triangles():
    """A deformation larger than the vertex spacing: nearest positions pair wrongly, the triangles pair rightly."""
    model = toy_model()
    vertices, triangles = model.mean.numpy().astype(np.float64), model.triangles.numpy()
    lopsided = vertices + smooth_noise(vertices, 6.0)
    assert (mirror_index(lopsided) != model.mirror.numpy()).mean() > 0.1
    assert (mirror_index(lopsided, triangles) == model.mirror.numpy()).all()


def test_pieces_find_their_partners():
    model = toy_model()
    vertices, triangles = model.mean.numpy().astype(np.float64), model.triangles.numpy()
    small = vertices * 0.1
    count = len(vertices)
    left, right = small + [30.0, 10.0, 60.0], small[::-1] * [-1.0, 1.0, 1.0] + [-30.0, 10.0, 60.0]
    together = np.concatenate([vertices, left, right])
    together += smooth_noise(together, 0.5)
    faces = np.concatenate([triangles, triangles + count, (count - 1 - triangles)[:, ::-1] + 2 * count])
    partner = mirror_index(together, faces)
    assert (partner[:count] == model.mirror.numpy()).all()
    assert (partner[count : 2 * count] == 3 * count - 1 - np.arange(count)).all()
    assert (partner[partner] == np.arange(3 * count)).all()


def test_asymmetric_triangles_fall_back_on_positions():
    model = toy_model()
    vertices, triangles = model.mean.numpy().astype(np.float64), model.triangles.numpy()
    slightly = vertices + smooth_noise(vertices, 0.05)
    partner = mirror_index(slightly, triangles[:-40])
    assert (partner == model.mirror.numpy()).mean() > 0.99
