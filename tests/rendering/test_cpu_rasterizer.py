from __future__ import annotations

import numpy as np
import pytest
import torch

from nextface.rendering.camera import Camera
from nextface.rendering.cpu import CpuRasterizer

SIZE = 32


def camera(batch: int = 1, size: int = SIZE) -> Camera:
    return Camera(torch.full((batch,), 1.0), torch.zeros(batch, 2), size, size)


def flat(points: np.ndarray, depth: np.ndarray | float = 10.0) -> torch.Tensor:
    """Vertices that project to the given pixels with focal length 1. [N, 2] -> [1, N, 3]"""
    depth = np.broadcast_to(depth, len(points))
    return torch.tensor(np.column_stack([points * depth[:, None], depth]), dtype=torch.float32)[None]


def brute_force(vertices: torch.Tensor, triangles: torch.Tensor, size: int) -> np.ndarray:
    """Exact twin: every triangle against every pixel centre in rational arithmetic (integers of 1/256 pixel)."""
    z = vertices[0, :, 2].double().numpy()
    grid = np.floor(vertices[0, :, :2].double().numpy() / z[:, None] * 256 + 0.5).astype(object)
    visible, depth = np.full((size, size), -1), np.zeros((size, size))
    for t, corners in enumerate(triangles.numpy()):
        p = [tuple(grid[v]) for v in corners]
        near = list(1.0 / z[corners])
        area = (p[1][0] - p[0][0]) * (p[2][1] - p[0][1]) - (p[1][1] - p[0][1]) * (p[2][0] - p[0][0])
        if area == 0:
            continue
        if area < 0:
            p[1], p[2], near[1], near[2], area = p[2], p[1], near[2], near[1], -area
        for row in range(size):
            for column in range(size):
                x, y = column * 256 + 128, row * 256 + 128
                weights = []
                for k in range(3):
                    (ax, ay), (bx, by) = p[(k + 1) % 3], p[(k + 2) % 3]
                    dx, dy = bx - ax, by - ay
                    value = dx * (y - ay) - dy * (x - ax)
                    owns = dy < 0 or (dy == 0 and dx > 0)
                    weights.append(value if value > 0 or (value == 0 and owns) else None)
                if None in weights:
                    continue
                inverse = np.float32(sum(float(w) * i for w, i in zip(weights, near, strict=True)) / float(area))
                if inverse > depth[row, column]:
                    visible[row, column], depth[row, column] = t, inverse
    return visible


def image_of(pixels) -> np.ndarray:
    return pixels.unpack(pixels.triangle[:, None], background=-1)[0, ..., 0].numpy()


def test_agrees_with_brute_force_on_random_triangles():
    random = np.random.default_rng(3)
    points = random.uniform(-6, SIZE + 6, (60, 2))
    vertices = flat(points, random.uniform(5, 20, 60))
    triangles = torch.from_numpy(random.integers(0, 60, (40, 3)))
    triangles = triangles[(triangles[:, 0] != triangles[:, 1]) & (triangles[:, 1] != triangles[:, 2])]
    drawn = CpuRasterizer().visible_triangles(vertices, triangles, camera())
    np.testing.assert_array_equal(image_of(drawn), brute_force(vertices, triangles, SIZE))


def test_no_crack_and_no_double_cover():
    """A jittered grid with corners on pixel centres covers every pixel exactly once."""
    random = np.random.default_rng(5)
    cells = 9
    grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(-1, 2) * 4.0
    inner = ((grid > 0) & (grid < 32)).all(1)
    grid[inner] += np.round(random.uniform(-1.5, 1.5, (inner.sum(), 2)) * 2) / 2  # many land on centres
    triangles = []
    for row in range(cells - 1):
        for column in range(cells - 1):
            a = row * cells + column
            triangles += [[a, a + 1, a + cells], [a + 1, a + cells + 1, a + cells]]
    vertices, total = flat(grid), np.zeros((SIZE, SIZE), int)
    for triangle in triangles:
        single = CpuRasterizer().visible_triangles(vertices, torch.tensor([triangle]), camera())
        total += image_of(single) >= 0
    np.testing.assert_array_equal(total, 1)


def test_both_faces_cover_and_the_nearer_wins():
    points = np.array([[2, 2], [30, 2], [2, 30]], float)
    vertices = torch.cat([flat(points, 10.0), flat(points, 8.0)], 1)
    triangles = torch.tensor([[0, 1, 2], [3, 5, 4]])
    pixels = CpuRasterizer().visible_triangles(vertices, triangles, camera())
    assert len(pixels) > 300
    assert (pixels.triangle == 1).all()


def test_equal_depth_takes_the_lower_index():
    vertices = flat(np.array([[2, 2], [30, 2], [2, 30]], float))
    pixels = CpuRasterizer().visible_triangles(vertices, torch.tensor([[0, 1, 2], [0, 2, 1]]), camera())
    assert (pixels.triangle == 0).all()


@pytest.mark.parametrize("bad", [-3.0, 0.0, 0.5, float("nan")])
def test_triangles_at_or_behind_the_camera_are_dropped(bad):
    vertices = flat(np.array([[2, 2], [30, 2], [2, 30], [30, 30]], float))
    vertices[0, 3, 2] = bad
    pixels = CpuRasterizer().visible_triangles(vertices, torch.tensor([[0, 1, 2], [1, 2, 3]]), camera())
    assert set(pixels.triangle.tolist()) == {0}


def test_neighbours_match_the_images():
    random = np.random.default_rng(1)
    vertices = torch.cat([flat(random.uniform(0, SIZE, (30, 2))) for _ in range(2)])
    triangles = torch.from_numpy(random.permutation(30)[:18].reshape(-1, 3))
    pixels = CpuRasterizer().visible_triangles(vertices, triangles, camera(2))
    index = pixels.unpack(torch.arange(len(pixels))[:, None], background=-1)[..., 0]
    padded = torch.nn.functional.pad(index, (1, 1, 1, 1), value=-1)
    b, r, c = pixels.image, pixels.row + 1, pixels.column + 1
    expected = torch.stack([padded[b, r, c - 1], padded[b, r, c + 1], padded[b, r - 1, c], padded[b, r + 1, c]], 1)
    assert torch.equal(pixels.neighbours, expected)
    order = (b * SIZE + pixels.row) * SIZE + pixels.column
    assert (order.diff() > 0).all()


def test_nothing_in_view_gives_no_pixels():
    vertices = flat(np.array([[50, 50], [60, 50], [50, 60]], float))
    pixels = CpuRasterizer().visible_triangles(vertices, torch.tensor([[0, 1, 2]]), camera())
    assert len(pixels) == 0 and pixels.neighbours.shape == (0, 4)
