"""Antialiasing across the silhouettes that lie inside the head's image: nose against cheek, chin against neck.

As in nvdiffrast (Laine et al. 2020), a silhouette edge that crosses the segment between two pixel centres blends the one
whose square it cuts, by the share cut off, and that share carries the gradient of visibility to the edge's vertices. Pairs
are found from the edges and not from the pixels' own triangles, so that triangles smaller than a pixel lose no silhouette.
The outer contour is left alone: the background is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from nextface.rendering.camera import Camera
from nextface.rendering.fragments import Fragments, at_corners, interpolate
from nextface.rendering.jit import array, compiled, kernel

_NEAR = 1.0
_STEP = 1.0  # mm; smaller steps in depth are folds of one surface


@dataclass(frozen=True)
class MeshEdges:
    """Edges of a mesh. vertices: [E, 2]; opposite: third vertices of the two triangles that share it, -1 for none. [E, 2]"""

    vertices: Tensor
    opposite: Tensor

    @classmethod
    @lru_cache(maxsize=4)
    def of(cls, triangles: Tensor) -> MeshEdges:
        """From `[T, 3]`, kept for the last few tensors. Where more than two triangles share an edge, two of them count."""
        corners = triangles.cpu().numpy()
        pairs = np.sort(np.concatenate([corners[:, [1, 2]], corners[:, [2, 0]], corners[:, [0, 1]]]), 1)
        opposite = corners.T.ravel()
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        pairs, opposite = pairs[order], opposite[order]
        same_as_last = np.append(False, (pairs[1:] == pairs[:-1]).all(1))
        first = np.flatnonzero(~same_as_last)
        second = np.minimum(first + 1, len(pairs) - 1)
        partner = np.where(same_as_last[second] & (second > first), opposite[second], -1)
        both = np.stack([opposite[first], partner], 1)
        return cls(torch.from_numpy(pairs[first]).to(triangles.device), torch.from_numpy(both).to(triangles.device))


def antialias(colours: Tensor, covered: Fragments, vertices_camera: Tensor, camera: Camera, edges: MeshEdges) -> Tensor:
    """Blend covered neighbours across silhouettes; differentiable in colours, vertices and camera.

    colours: [P, C]; vertices_camera: [B, V, 3] mm -> [P, C]
    """
    near, far, edge, vertical = _crossings(covered, vertices_camera, camera, edges)
    if len(near) == 0:
        return colours
    pixels = covered.pixels
    image = pixels.image[near]
    ends = at_corners(vertices_camera, image, edges.vertices[edge])
    place = camera.focal[image, None, None] * ends[..., :2] / ends[..., 2:] + camera.principal[image, None, :]
    # Along the pair's axis and along the other one.
    along = torch.where(vertical[:, None], place[..., 1], place[..., 0])
    line = torch.where(vertical[:, None], place[..., 0], place[..., 1])
    row, column = pixels.row + 0.5, pixels.column + 0.5
    start = torch.where(vertical, row[near], column[near])
    direction = torch.where(vertical, row[far], column[far]) - start
    level = torch.where(vertical, column[near], row[near])
    share = (level - line[:, 0]) / (line[:, 1] - line[:, 0])
    extent = (along[:, 0] + share * (along[:, 1] - along[:, 0]) - start) * direction
    overlap = extent - 0.5
    receiver, donor = torch.where(overlap > 0, far, near), torch.where(overlap > 0, near, far)
    return colours.index_add(0, receiver, overlap.abs()[:, None] * (colours[donor] - colours[receiver]))


def _crossings(covered: Fragments, vertices_camera: Tensor, camera: Camera, edges: MeshEdges) -> tuple[Tensor, ...]:
    """Pixel pairs cut by a visible silhouette: near and far pixel, the edge, and whether they lie above one another. [K]

    Where several edges cross a pair, the one that reaches farthest over the far pixel counts.
    """
    pixels = covered.pixels
    with torch.no_grad():
        vertices = vertices_camera.detach()
        depth = interpolate(vertices[..., 2:], pixels.image, covered.corners, covered.barycentric.detach())[:, 0]
        screen = camera.project(vertices)
        numbers = torch.arange(len(pixels), device=depth.device)[:, None]
        index = pixels.unpack(numbers, background=-1)[..., 0]
        search = _crossings_compiled if compiled(depth) else crossings_torch
        return search(screen, vertices[..., 2], edges, index, depth)


def _crossings_compiled(
    screen: Tensor, z: Tensor, edges: MeshEdges, index: Tensor, depth: Tensor
) -> tuple[Tensor, ...]:
    found = []
    for b, packed in enumerate(array(index)):
        shape = (2, *packed.shape)
        best, reach, swapped = np.full(shape, -1, np.int64), np.zeros(shape), np.zeros(shape, np.bool_)
        inputs = (screen[b], z[b], edges.vertices, edges.opposite, index[b], depth)
        _find(*(array(part) for part in inputs), best, reach, swapped)
        vertical, row, column = np.nonzero(best >= 0)
        first, second = packed[row, column], packed[row + vertical, column + 1 - vertical]
        turned = swapped[vertical, row, column]
        edge = best[vertical, row, column]
        found.append((np.where(turned, second, first), np.where(turned, first, second), edge, vertical == 1))
    return tuple(torch.from_numpy(np.concatenate(part)) for part in zip(*found, strict=True))


def crossings_torch(screen: Tensor, z: Tensor, edges: MeshEdges, index: Tensor, depth: Tensor) -> tuple[Tensor, ...]:
    """The search in plain torch, on any device, in another order. The host waits three times, for counts.

    screen: pixels, [B, V, 2]; z: mm, [B, V]; index: packed number of each pixel, -1 for background, [B, H, W]; depth: [P] mm
    """
    batch, height, width = index.shape
    image, edge, side = _silhouettes(screen, z, edges)
    # Every silhouette crosses the lines of pixel centres between its ends, columns' (across x) and rows' (across y).
    ends = screen[image[:, None], edges.vertices[edge]].double()
    low, high = ends.amin(1), ends.amax(1)
    limit = torch.stack([torch.full_like(image, width), torch.full_like(image, height)], 1)
    first = (low - 0.5).ceil().long().clamp_min(0)
    count = (torch.minimum((high - 0.5).ceil().long(), limit) - first).clamp_min(0).flatten()
    owner = torch.repeat_interleave(count)
    line = torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count - first.flatten())[owner]
    silhouette, across = owner // 2, owner % 2
    vertical = across == 0
    image, edge, side, ends = image[silhouette], edge[silhouette], side[silhouette], ends[silhouette]
    (ax, ay), (bx, by) = ends[:, 0].unbind(-1), ends[:, 1].unbind(-1)
    start, stop = torch.where(vertical, ax, ay), torch.where(vertical, bx, by)
    along, along_stop = torch.where(vertical, ay, ax), torch.where(vertical, by, bx)
    t = (line + 0.5 - start) / (stop - start)
    place = along + t * (along_stop - along) - 0.5
    before = place.floor().long()
    length = torch.where(vertical, height, width)
    inside = (before >= 0) & (before + 1 < length)
    before = before.clamp_min(0).minimum(length - 2)
    row, column = torch.where(vertical, before, line), torch.where(vertical, line, before)
    p = index[image, row, column]
    q = index[image, row + vertical.long(), column + (~vertical).long()]
    # The surface lies on the side of its third vertex.
    surface_first = side * torch.where(vertical, ax - bx, by - ay) > 0
    near, far = torch.where(surface_first, p, q), torch.where(surface_first, q, p)
    za, zb = z[image[:, None], edges.vertices[edge]].double().unbind(1)
    edge_depth = 1.0 / ((1.0 - t) / za + t / zb)
    behind = depth[far] - edge_depth
    visible = (p >= 0) & (q >= 0) & inside & (behind >= _STEP) & (behind >= (edge_depth - depth[near]).abs())
    extent = torch.where(surface_first, place - before, before + 1.0 - place)
    kept = torch.nonzero(visible & _farthest(extent, visible, 2 * p.clamp_min(0) + vertical, edge, 2 * len(depth)))[
        :, 0
    ]
    return near[kept], far[kept], edge[kept], vertical[kept]


def _silhouettes(screen: Tensor, z: Tensor, edges: MeshEdges) -> tuple[Tensor, Tensor, Tensor]:
    """Image, edge and side of the surface (sign) of every edge that has surface on one side only. [S] each"""
    corners = torch.cat([edges.vertices, edges.opposite.clamp_min(0)], 1)
    a, b, c, other = screen[:, corners].unbind(2)
    ends = b - a

    def side(point: Tensor) -> Tensor:
        return ends[..., 0] * (point[..., 1] - a[..., 1]) - ends[..., 1] * (point[..., 0] - a[..., 0])

    first, second = side(c), side(other)
    alone = edges.opposite[:, 1] < 0
    in_front = (z[:, corners[:, :3]] >= _NEAR).all(-1)
    image, edge = torch.nonzero(in_front & (alone | (first * second > 0))).unbind(1)
    return image, edge, first[image, edge]


def _farthest(extent: Tensor, visible: Tensor, pair: Tensor, edge: Tensor, pairs: int) -> Tensor:
    """Whether a crossing reaches farthest of those of its pair, the lowest edge first among equals. [K] bool"""
    reach = torch.where(visible, extent, -torch.inf)
    farthest = reach.new_full((pairs,), -torch.inf).scatter_reduce(0, pair, reach, "amax")[pair] == reach
    numbers = torch.where(visible & farthest, edge, torch.iinfo(edge.dtype).max)
    return farthest & (
        numbers.new_full((pairs,), torch.iinfo(edge.dtype).max).scatter_reduce(0, pair, numbers, "amin")[pair] == edge
    )


@kernel
def _find(screen, z, edges, opposite, index, depth, best, reach, swapped):  # type: ignore[no-untyped-def]
    """Fill `best` with one edge per pixel pair, the one that reaches farthest over the far pixel. [2, H, W]

    Index 0 pairs a pixel with the one to its right, 1 with the one below; `swapped` where the first of them is the far one.
    """
    height, width = index.shape
    for e in range(edges.shape[0]):
        a, b, c, other = edges[e, 0], edges[e, 1], opposite[e, 0], opposite[e, 1]
        if z[a] < _NEAR or z[b] < _NEAR or z[c] < _NEAR:
            continue
        ex, ey = screen[b, 0] - screen[a, 0], screen[b, 1] - screen[a, 1]
        side = ex * (screen[c, 1] - screen[a, 1]) - ey * (screen[c, 0] - screen[a, 0])
        if other >= 0 and side * (ex * (screen[other, 1] - screen[a, 1]) - ey * (screen[other, 0] - screen[a, 0])) <= 0:
            continue
        for vertical in range(2):
            axis, across = vertical, 1 - vertical
            low, high = screen[a, across], screen[b, across]
            if low == high:
                continue
            lines = width if vertical else height
            length = height if vertical else width
            first = max(int(np.ceil(min(low, high) - 0.5)), 0)
            last = min(int(np.ceil(max(low, high) - 0.5)) - 1, lines - 1)
            for line in range(first, last + 1):
                t = (line + 0.5 - low) / (high - low)
                place = screen[a, axis] + t * (screen[b, axis] - screen[a, axis]) - 0.5
                before = int(np.floor(place))
                if before < 0 or before + 1 >= length:
                    continue
                r, column = (before, line) if vertical else (line, before)
                p, q = index[r, column], index[r + vertical, column + 1 - vertical]
                if p < 0 or q < 0:
                    continue
                # The surface lies on the side of its third vertex.
                upward = -ex if vertical else ey
                surface_first = side * upward > 0
                near, far = (p, q) if surface_first else (q, p)
                edge_depth = 1.0 / ((1.0 - t) / z[a] + t / z[b])
                behind = depth[far] - edge_depth
                if behind < _STEP or behind < abs(edge_depth - depth[near]):
                    continue
                extent = place - before if surface_first else before + 1.0 - place
                if best[vertical, r, column] < 0 or extent > reach[vertical, r, column]:
                    best[vertical, r, column] = e
                    reach[vertical, r, column] = extent
                    swapped[vertical, r, column] = not surface_first
