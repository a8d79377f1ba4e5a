from __future__ import annotations

import torch
from drawing import doubled, toy_scene
from torch.autograd import gradcheck

from nextface.rendering.camera import Camera
from nextface.rendering.cpu import CpuRasterizer
from nextface.rendering.filter import blur, blur_torch
from nextface.rendering.normals import vertex_normals, vertex_normals_torch


def test_normals_point_out_of_the_head(toy):
    normals = vertex_normals(toy.mean[None], toy.triangles)[0]
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(toy.mean)))
    outward = toy.mean / torch.tensor([75.0, 112.0, 92.0]) ** 2
    assert ((normals * outward).sum(-1) > 0).float().mean() > 0.99


def test_normals_twin_and_gradcheck(toy):
    model = doubled(toy)
    vertices = model.mean[None].clone().requires_grad_()
    fast, slow = vertex_normals(vertices, model.triangles), vertex_normals_torch(vertices, model.triangles)
    torch.testing.assert_close(fast, slow)
    cotangent = torch.randn(fast.shape, generator=torch.Generator().manual_seed(0), dtype=fast.dtype)
    ours, twin = (torch.autograd.grad(out, vertices, cotangent)[0] for out in (fast, slow))
    torch.testing.assert_close(ours, twin)
    few = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1]])
    corners = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda points: vertex_normals(points, few), (corners,))


def test_vertex_without_triangle_has_no_normal_and_a_finite_gradient():
    vertices = torch.eye(3)[None].repeat(1, 2, 1).requires_grad_()
    normals = vertex_normals(vertices, torch.tensor([[0, 1, 2]]))
    assert (normals[0, 3:] == 0).all()
    normals.sum().backward()
    assert torch.isfinite(vertices.grad).all()


def test_blur_keeps_constants_and_matches_its_twin(toy):
    scene = toy_scene(toy, batch=2)
    pixels = CpuRasterizer().visible_triangles(scene.vertices_camera(toy), toy.triangles, Camera.of(scene))
    ones = torch.ones(len(pixels), 2, dtype=torch.float64)
    torch.testing.assert_close(blur(ones, pixels), ones)
    values = torch.randn(len(pixels), 3, dtype=torch.float64, requires_grad=True)
    fast, slow = blur(values, pixels), blur_torch(values, pixels)
    torch.testing.assert_close(fast, slow)
    cotangent = torch.randn_like(fast)
    ours, twin = (torch.autograd.grad(out, values, cotangent)[0] for out in (fast, slow))
    torch.testing.assert_close(ours, twin)


def test_blur_inside_is_the_gaussian(toy):
    scene = toy_scene(toy)
    pixels = CpuRasterizer().visible_triangles(scene.vertices_camera(toy), toy.triangles, Camera.of(scene))
    middle = (pixels.row - pixels.row.float().mean()).abs() + (pixels.column - pixels.column.float().mean()).abs()
    centre = int(middle.argmin())
    impulse = torch.zeros(len(pixels), 1)
    impulse[centre] = 1.0
    image = pixels.unpack(blur(impulse, pixels))[0, ..., 0]
    row, column = pixels.row[centre], pixels.column[centre]
    line = torch.tensor([-1.0, 0.0, 1.0]).square().mul(-0.5).exp()
    line = line / line.sum()
    torch.testing.assert_close(image[row - 1 : row + 2, column - 1 : column + 2], line[:, None] * line)
