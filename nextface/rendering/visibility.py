"""Which directions a head's own surface blocks at every vertex, from depth maps along many directions.

A depth map along ω serves −ω as well when it keeps the farthest depths beside the nearest ones, so directions come in pairs.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from nextface.rendering.backend import rasterizer_for
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import at_corners
from nextface.rendering.jit import array, compiled, kernel, spread

SIDE = 224
"""Texels across a depth map, along the head's longer side."""
ALONG_NORMAL, IN_DEPTH = 0.3, 1.5
"""How far a vertex is lifted from its own surface, in texels."""
_FAR_AWAY = 1e4
"""mm; farther than any head is deep."""
_NOTHING = np.float32(1e30)
"""Depth, mm, of a texel that no triangle covers."""


def sphere_directions(count: int) -> Tensor:
    """Evenly spread unit directions, `[count, 3]`, each with the same solid angle 4π/count. count: even.

    The first half is a Fibonacci spiral (Swinbank & Purser 2006) on the half sphere z > 0, the second half its antipodes.
    """
    number = torch.arange(count // 2, dtype=torch.float64)
    z = 1.0 - (number + 0.5) / (count // 2)
    angle = number * math.pi * (3.0 - math.sqrt(5.0))
    radius = (1.0 - z * z).sqrt()
    half = torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1)
    return torch.cat([half, -half]).float()


def blocked(vertices: Tensor, normals: Tensor, triangles: Tensor, directions: Tensor) -> Tensor:
    """Share of the light along each direction that the mesh keeps from each vertex, `[B, V, K]` in 0..1; 0 below the horizon.

    Each vertex is compared with the four depths around it, blended bilinearly (percentage-closer filtering, Reeves et al.
    1987).

    vertices: mm, [B, V, 3]; normals: unit, same frame, [B, V, 3]; triangles: [T, 3]; directions: of `sphere_directions`, [K, 3]
    """
    if not compiled(vertices):
        return blocked_torch(vertices, normals, triangles, directions)
    half = array(directions.float())[: len(directions) // 2]
    across = np.stack([_perpendicular(direction) for direction in half])
    up = np.cross(half, across).astype(np.float32)
    shares = np.zeros((len(vertices), len(directions), vertices.shape[1]), np.float32)
    corners = array(triangles)
    for place, normal, share in zip(array(vertices.float()), array(normals.float()), shares, strict=True):
        spread(_shares, len(half), place, normal, corners, half, across, up, share, grain=1)
    return torch.from_numpy(shares).mT


def blocked_torch(vertices: Tensor, normals: Tensor, triangles: Tensor, directions: Tensor) -> Tensor:
    """The same in plain torch and with the rasterizer of the device, all heads and directions at once."""
    with torch.no_grad():
        vertices, normals = vertices.float(), normals.float()
        half = directions[: len(directions) // 2].float()
        across = normalize(torch.linalg.cross(one_hot(half.abs().argmin(1), 3).to(half), half), dim=-1)
        frames = torch.stack([across, torch.linalg.cross(half, across), half], 2)
        place, normal = ((part[:, None] @ frames).flatten(0, 1) for part in (vertices, normals))
        low, high = place[..., :2].amin(1, keepdim=True), place[..., :2].amax(1, keepdim=True)
        texel = (high - low).amax(2, keepdim=True) / (SIDE - 4)
        spot, depth = (place[..., :2] - low) / texel + 2.0, place[..., 2]
        near, far = (_depth_maps(spot, depth, triangles, sign) for sign in (1.0, -1.0))
        texel, facing = texel[..., 0], normal[..., 2]
        lifted = depth + ALONG_NORMAL * texel * facing
        spot = spot + ALONG_NORMAL * normal[..., :2] - 0.5
        cell = spot.long()
        (right, upper), corner = (spot - cell).unbind(-1), cell[..., 1] * SIDE + cell[..., 0]
        share = torch.zeros_like(depth)
        for step, weight in (
            (0, (1.0 - upper) * (1.0 - right)),
            (1, (1.0 - upper) * right),
            (SIDE, upper * (1.0 - right)),
            (SIDE + 1, upper * right),
        ):
            before = near.gather(1, corner + step) > lifted + IN_DEPTH * texel
            behind = far.gather(1, corner + step) < lifted - IN_DEPTH * texel
            share += weight * torch.where(facing > 0, before, behind)
        sides = (share * (facing > 0), share * (facing < 0))
        return torch.cat([side.unflatten(0, (len(vertices), -1)) for side in sides], 1).mT


def _depth_maps(spot: Tensor, depth: Tensor, triangles: Tensor, sign: float) -> Tensor:
    """Largest (sign 1) or smallest (-1) depth at every texel centre. spot: [K, V, 2] texels; depth: [K, V] -> [K, SIDE²]"""
    z = _FAR_AWAY - sign * depth[..., None]
    count = len(spot)
    # A pinhole camera that sees every vertex at its own texel: a parallel projection.
    camera = Camera(z.new_ones(count), z.new_zeros(count, 2), SIDE, SIDE)
    pixels = rasterizer_for(z.device).visible_triangles(torch.cat([spot * z, z], -1), triangles, camera)
    corners = at_corners(torch.cat([spot, depth[..., None]], -1), pixels.image, triangles[pixels.triangle])
    a, b, c = corners.unbind(1)
    centre = torch.stack([pixels.column, pixels.row], 1) + 0.5 - a[:, :2]
    b, c = b - a, c - a
    area = b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0]
    to_b = (centre[:, 0] * c[:, 1] - centre[:, 1] * c[:, 0]) / area
    to_c = (b[:, 0] * centre[:, 1] - b[:, 1] * centre[:, 0]) / area
    seen = a[:, 2] + to_b * b[:, 2] + to_c * c[:, 2]
    maps = torch.full((count, SIDE, SIDE), -sign * torch.inf, device=z.device)
    maps[pixels.image, pixels.row, pixels.column] = seen
    return maps.flatten(1)


def _perpendicular(direction: np.ndarray) -> np.ndarray:
    """A unit vector at right angles to a unit vector."""
    axis = np.eye(3, dtype=np.float32)[np.argmin(np.abs(direction))]
    side = np.cross(axis, direction)
    return side / np.linalg.norm(side)


@kernel
def _shares(start, stop, vertices, normals, triangles, directions, across, up, shares):  # type: ignore[no-untyped-def]
    """Fill shares [K, V] for a range of the directions and, in its second half, for their antipodes."""
    count = directions.shape[0]
    place = np.empty((vertices.shape[0], 3), np.float32)
    near, far = np.empty((SIDE, SIDE), np.float32), np.empty((SIDE, SIDE), np.float32)
    for k in range(start, stop):
        texel = _project(vertices, directions[k], across[k], up[k], place)
        near[:] = -_NOTHING
        far[:] = _NOTHING
        _depths(place, triangles, near, far)
        _compare(place, normals, directions[k], across[k], up[k], texel, near, far, shares[k], shares[count + k])


@kernel
def _project(vertices, direction, across, up, place):  # type: ignore[no-untyped-def]
    """Texel coordinates and depth along the direction, mm, of every vertex. Returns the texel's side in mm."""
    for v in range(vertices.shape[0]):
        x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        place[v, 0] = x * across[0] + y * across[1] + z * across[2]
        place[v, 1] = x * up[0] + y * up[1] + z * up[2]
        place[v, 2] = x * direction[0] + y * direction[1] + z * direction[2]
    left, right = place[:, 0].min(), place[:, 0].max()
    bottom, top = place[:, 1].min(), place[:, 1].max()
    texel = max(right - left, top - bottom) / np.float32(SIDE - 4)
    for v in range(vertices.shape[0]):
        place[v, 0] = (place[v, 0] - left) / texel + np.float32(2)
        place[v, 1] = (place[v, 1] - bottom) / texel + np.float32(2)
    return texel


@kernel
def _depths(place, triangles, near, far):  # type: ignore[no-untyped-def]
    """Largest and smallest depth at every texel centre."""
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, bx, by, cx, cy = place[a, 0], place[a, 1], place[b, 0], place[b, 1], place[c, 0], place[c, 1]
        half = np.float32(0.5)
        # Coordinates are positive: truncation rounds down.
        first, last = int(min(ax, bx, cx) + half), int(max(ax, bx, cx) - half)
        lowest, highest = int(min(ay, by, cy) + half), int(max(ay, by, cy) - half)
        if first > last or lowest > highest:
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        scale = np.float32(1) / area
        for row in range(lowest, highest + 1):
            y = row + half
            for column in range(first, last + 1):
                x = column + half
                wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) * scale
                wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) * scale
                if wb < 0.0 or wc < 0.0 or wb + wc > 1.0:
                    continue
                depth = place[a, 2] + wb * (place[b, 2] - place[a, 2]) + wc * (place[c, 2] - place[a, 2])
                near[row, column] = max(near[row, column], depth)
                far[row, column] = min(far[row, column], depth)


@kernel
def _compare(place, normals, direction, across, up, texel, near, far, toward, away):  # type: ignore[no-untyped-def]
    for v in range(place.shape[0]):
        nx, ny, nz = normals[v, 0], normals[v, 1], normals[v, 2]
        facing = nx * direction[0] + ny * direction[1] + nz * direction[2]
        if facing == 0.0:
            continue
        lift = np.float32(ALONG_NORMAL)
        x = place[v, 0] + lift * (nx * across[0] + ny * across[1] + nz * across[2]) - np.float32(0.5)
        y = place[v, 1] + lift * (nx * up[0] + ny * up[1] + nz * up[2]) - np.float32(0.5)
        depth = place[v, 2] + lift * texel * facing
        column, row = int(x), int(y)
        right, upper = x - column, y - row
        share = np.float32(0)
        for corner in range(4):
            i, j = corner // 2, corner % 2
            weight = (upper if i else 1 - upper) * (right if j else 1 - right)
            if facing > 0.0:
                hidden = near[row + i, column + j] > depth + np.float32(IN_DEPTH) * texel
            else:
                hidden = far[row + i, column + j] < depth - np.float32(IN_DEPTH) * texel
            if hidden:
                share += weight
        if facing > 0.0:
            toward[v] = share
        else:
            away[v] = share
