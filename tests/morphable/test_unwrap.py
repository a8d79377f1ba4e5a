"""The UV unwrap: symmetric, in range, free of folds and overlaps, even on the face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from toy import toy_model

from nextface.errors import ModelError
from nextface.morphable import load_model
from nextface.morphable.charts import cut, edges_of, signed_areas
from nextface.morphable.exposure import exposure
from nextface.morphable.mirror import mirror_index
from nextface.morphable.unwrap import stretch_statistics, unwrap
from nextface.paths import default_model_folder


@dataclass
class Mesh:
    vertices: np.ndarray
    triangles: np.ndarray


def toy_mesh() -> Mesh:
    model = toy_model()
    return Mesh(model.mean.double().numpy(), model.triangles.numpy())


def face_patch() -> Mesh:
    """The toy head's front alone: open at the crown, the neck and before the back."""
    mesh = toy_mesh()
    front = (mesh.vertices[mesh.triangles][..., 2].mean(1) > -20) & (mesh.vertices[mesh.triangles][..., 1].mean(1) < 95)
    used, triangles = np.unique(mesh.triangles[front], return_inverse=True)
    return Mesh(mesh.vertices[used], triangles.reshape(-1, 3))


def sphere(centre: tuple[float, float, float], radius: float, mirrored: bool) -> Mesh:
    """A closed ball of 8 x 12 quads, cut into triangles the other way where `mirrored`."""
    rows, columns = 7, 12
    angle, turn = np.meshgrid(
        np.arange(1, rows + 1) * np.pi / (rows + 1), np.arange(columns) * 2 * np.pi / columns, indexing="ij"
    )
    ring = np.stack([np.sin(angle) * np.sin(turn), np.cos(angle), np.sin(angle) * np.cos(turn)], -1).reshape(-1, 3)
    vertices = np.concatenate([ring, [[0, 1, 0], [0, -1, 0]]]) * radius + centre
    triangles = []
    for row in range(rows - 1):
        for column in range(columns):
            a, b = row * columns + column, row * columns + (column + 1) % columns
            c, d = b + columns, a + columns
            triangles += [[a, d, c], [a, c, b]] if mirrored else [[a, d, b], [b, d, c]]
    for column in range(columns):
        after = (column + 1) % columns
        triangles.append([rows * columns, column, after])
        triangles.append([rows * columns + 1, (rows - 1) * columns + after, (rows - 1) * columns + column])
    return Mesh(vertices, np.array(triangles))


def head_with_eyes_and_tongue() -> Mesh:
    head = toy_mesh()
    parts = [head, sphere((31, 10, 60), 14, False), sphere((-31, 10, 60), 14, True), sphere((0, -40, 50), 12, False)]
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts)])
    return Mesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.triangles + offset for part, offset in zip(parts, offsets, strict=False)]),
    )


@pytest.fixture(
    scope="module", params=[toy_mesh, face_patch, head_with_eyes_and_tongue], ids=lambda make: make.__name__
)
def unwrapped(request: pytest.FixtureRequest) -> tuple[Mesh, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    mesh = request.param()
    mirror = mirror_index(mesh.vertices, mesh.triangles)
    return mesh, mirror, *unwrap(mesh.vertices, mesh.triangles, mirror)


def coverage(uv: np.ndarray, triangles: np.ndarray, size: int) -> np.ndarray:
    """How many triangles strictly contain each sample of a `size`² grid. Slow and plain. [size, size]"""
    count = np.zeros((size, size), dtype=int)
    centres = (np.arange(size) + 0.5) / size
    for a, b, c in uv[triangles].astype(np.float64):
        low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
        columns = np.flatnonzero((centres >= low[0]) & (centres <= high[0]))
        rows = np.flatnonzero((centres >= low[1]) & (centres <= high[1]))
        if not len(columns) or not len(rows):
            continue
        x, y = np.meshgrid(centres[columns], centres[rows])
        inside = np.ones(x.shape, dtype=bool)
        for p, q in ((a, b), (b, c), (c, a)):
            inside &= (q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) > 1e-12
        count[np.ix_(rows, columns)] += inside
    return count


def test_range_and_links(unwrapped):
    mesh, _, uv, uv_triangles, uv_to_vertex = unwrapped
    assert uv.dtype == np.float32
    assert uv.min() >= 0 and uv.max() <= 1
    assert (uv_to_vertex[uv_triangles] == mesh.triangles).all()
    assert set(np.unique(uv_triangles)) == set(range(len(uv)))


def test_no_fold_and_no_overlap(unwrapped):
    _, _, uv, uv_triangles, _ = unwrapped
    assert (signed_areas(uv.astype(np.float64), uv_triangles) > 0).all()
    count = coverage(uv, uv_triangles, 193)
    assert count.max() == 1
    assert (count == 1).mean() > 0.75


def test_symmetric(unwrapped):
    mesh, mirror, uv, uv_triangles, uv_to_vertex = unwrapped
    corners = {}
    for triangle, own in zip(mesh.triangles.tolist(), uv_triangles.tolist(), strict=True):
        corners[tuple(sorted(triangle))] = dict(zip(triangle, own, strict=True))
    checked = 0
    for triangle, own in list(corners.items()):
        partner = corners.get(tuple(sorted(mirror[list(triangle)].tolist())))
        if partner is None:
            continue
        for vertex, place in own.items():
            other = uv[partner[int(mirror[vertex])]]
            assert np.allclose([1 - uv[place][0], uv[place][1]], other, atol=2e-6)
            checked += 1
    assert checked > 2 * len(mesh.triangles)


def test_up_is_up_and_left_is_right(unwrapped):
    """v grows with y and u with x on the face, so the map shows the face as a viewer sees it."""
    mesh, _, uv, _, uv_to_vertex = unwrapped
    vertices = mesh.vertices[uv_to_vertex]
    face = (vertices[:, 2] > 75) & (np.arange(len(uv)) < 650)
    assert np.corrcoef(vertices[face, 0], uv[face, 0])[0, 1] > 0.95
    assert np.corrcoef(vertices[face, 1], uv[face, 1])[0, 1] > 0.95


def test_even_on_the_face():
    mesh = toy_mesh()
    uv, uv_triangles, _ = unwrap(mesh.vertices, mesh.triangles, mirror_index(mesh.vertices))
    centre = mesh.vertices[mesh.triangles].mean(1)
    face = (centre[:, 2] > 40) & (np.abs(centre[:, 1]) < 70)
    numbers = stretch_statistics(mesh.vertices, mesh.triangles, uv.astype(np.float64), uv_triangles, face)
    area = np.linalg.norm(np.cross(*(np.diff(mesh.vertices[mesh.triangles], axis=1).transpose(1, 0, 2))), axis=1)
    assert numbers["flipped"] == 0
    assert numbers["anisotropy"] < 1.6
    assert numbers["size_spread"] < 0.3
    assert numbers["share"] > 1.3 * area[face].sum() / area.sum()


def test_seam_only_at_the_back():
    mesh = toy_mesh()
    _, _, uv_to_vertex = unwrap(mesh.vertices, mesh.triangles, mirror_index(mesh.vertices))
    doubled = np.flatnonzero(np.bincount(uv_to_vertex) > 1)
    assert len(doubled) >= 20
    assert np.abs(mesh.vertices[doubled, 0]).max() < 1e-6
    assert mesh.vertices[doubled, 2].max() < 5


def test_open_patch_has_no_seam():
    mesh = face_patch()
    _, _, uv_to_vertex = unwrap(mesh.vertices, mesh.triangles, mirror_index(mesh.vertices))
    assert (np.bincount(uv_to_vertex) == 1).all()


def test_same_bytes_twice():
    mesh = head_with_eyes_and_tongue()
    mirror = mirror_index(mesh.vertices)
    first, second = (unwrap(mesh.vertices, mesh.triangles, mirror)[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_handle_is_refused():
    turn = np.arange(12) * 2 * np.pi / 12
    big, small = np.meshgrid(turn, turn, indexing="ij")
    torus = np.stack(
        [(60 + 20 * np.cos(small)) * np.sin(big), 20 * np.sin(small), (60 + 20 * np.cos(small)) * np.cos(big)], -1
    )
    triangles = []
    for i in range(12):
        for j in range(12):
            a, b, c, d = i * 12 + j, (i + 1) % 12 * 12 + j, (i + 1) % 12 * 12 + (j + 1) % 12, i * 12 + (j + 1) % 12
            triangles += [[a, b, c], [a, c, d]]
    vertices = torus.reshape(-1, 3)
    with pytest.raises(ModelError, match="Euler number|seam"):
        unwrap(vertices, np.array(triangles), mirror_index(vertices))


def test_cut_opens_one_edge_chain():
    mesh = toy_mesh()
    chain = np.array([[0, 24], [24, 48], [48, 72]])
    triangles, original = cut(mesh.triangles, chain)
    assert len(original) == len(mesh.vertices) + 3
    assert (original[triangles] == mesh.triangles).all()
    assert sorted(np.flatnonzero(np.bincount(original) > 1)) == [0, 24, 48]
    assert (
        len(np.unique(np.sort(edges_of(triangles), 1), axis=0))
        == len(np.unique(np.sort(edges_of(mesh.triangles), 1), axis=0)) + 3
    )


def test_exposure_tells_pockets_from_skin():
    mesh = head_with_eyes_and_tongue()
    seen = exposure(mesh.vertices, mesh.triangles)
    head = len(toy_mesh().vertices)
    assert seen[:head][np.abs(mesh.vertices[:head, 1]) < 80].min() > 0.5
    assert np.median(seen[-86:]) < 0.1  # a little light comes through the open neck


def test_open_head():
    """A whole head with eyeballs, teeth and inner mouth: even on the open skin of the face, with a fair share of the texels."""
    model = load_model(default_model_folder() / "open_head.h5")
    vertices, triangles = model.mean.double().numpy(), model.triangles.numpy()
    uv, uv_triangles, uv_to_vertex = unwrap(vertices, triangles, model.mirror.numpy())
    uv = uv.astype(np.float64)
    assert coverage(uv, uv_triangles, 257).max() == 1
    once = np.bincount(uv_to_vertex, minlength=len(vertices)) == 1
    once &= once[model.mirror.numpy()]
    first = np.zeros(len(vertices), dtype=int)
    first[uv_to_vertex] = np.arange(len(uv))
    off = np.abs(uv[first[model.mirror.numpy()[once]]] * [-1, 1] + [1, 0] - uv[first[once]])
    assert off.max() < 1e-5
    nose = vertices[vertices[:, 2].argmax()]
    centre = vertices[triangles].mean(1)
    open_skin = exposure(vertices, triangles)[triangles].min(1) > 0.2
    face = (
        (np.linalg.norm(centre - nose, axis=1) < 90)
        & open_skin
        & (model.regions["eyes"].numpy()[triangles].max(1) < 0.5)
    )
    numbers = stretch_statistics(vertices, triangles, uv, uv_triangles, face)
    assert numbers["flipped"] == 0
    assert numbers["anisotropy"] < 1.7
    assert numbers["size_spread"] < 0.2
    assert numbers["share"] > 0.2
