from __future__ import annotations

import torch
from drawing import toy_scene
from torch.nn.functional import normalize

from nextface.rendering.camera import Camera
from nextface.rendering.cpu import CpuRasterizer
from nextface.rendering.fragments import fragments
from nextface.rendering.normals import vertex_normals
from nextface.rendering.render import to_view
from nextface.rendering.tangents import pixel_frames, vertex_tangents


def frames_of(toy):
    scene = toy_scene(toy)
    camera, vertices = Camera.of(scene), scene.vertices_camera(toy)
    pixels = CpuRasterizer().visible_triangles(vertices, toy.triangles, camera)
    covered = fragments(vertices, toy.triangles, pixels, camera)
    view = to_view(vertices)
    return pixel_frames(covered, view, vertex_normals(view, toy.triangles), toy), covered, view


def test_tangents_are_unit_and_perpendicular(toy):
    vertices = toy.mean[None]
    normals = vertex_normals(vertices, toy.triangles)
    tangents = vertex_tangents(vertices, normals, toy)[0]
    torch.testing.assert_close(tangents[:, :3].norm(dim=-1), torch.ones(len(toy.uv)))
    assert (tangents[:, :3] * normals[0, toy.uv_to_vertex]).sum(-1).abs().max() < 1e-5
    assert set(tangents[:, 3].tolist()) <= {-1.0, 1.0}


def test_frames_follow_the_unwrap(toy):
    """Along +u and +v of the visible triangle, position moves along tangent and bitangent."""
    frames, covered, view = frames_of(toy)
    points = view[0, covered.corners]
    uv = toy.uv[toy.uv_triangles[covered.pixels.triangle]]
    edges, steps = points[:, 1:] - points[:, :1], uv[:, 1:] - uv[:, :1]
    towards = torch.linalg.solve(steps, edges)  # rows: d position / du, d position / dv
    along_u = (normalize(towards[:, 0], dim=-1) * normalize(frames.tangent, dim=-1)).sum(-1)
    along_v = (normalize(towards[:, 1], dim=-1) * normalize(frames.bitangent, dim=-1)).sum(-1)
    assert along_u.median() > 0.98 and along_u.quantile(0.05) > 0.7
    assert along_v.median() > 0.9 and along_v.quantile(0.05) > 0.4


def test_flat_map_leaves_the_normal_and_green_tilts_up(toy):
    frames, *_ = frames_of(toy)
    count = len(frames.normal)
    torch.testing.assert_close(frames.bend(torch.zeros(count, 2)), frames.normal)
    up = frames.bend(torch.tensor([[0.0, 0.5]]).expand(count, -1))
    assert ((up * frames.bitangent).sum(-1) > 0.2).float().mean() > 0.95
    torch.testing.assert_close(up.norm(dim=-1), torch.ones(count))
