"""The GGX lobe of a rough dielectric (n = 1.4) as a direction, a strength and zonal coefficients.

SH light reflected by the lobe is E · Σ_l [ K_l Σ_m c_lm Y_lm(d) + N_l Σ_m c_lm Y_lm(n) ]: a zonal lobe about its main
direction d and a low one about the normal n, which stands for the cut by the horizon. E, K, N and d depend on the roughness
and n·v through the table of tools/make_specular_table.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import normalize

from nextface.rendering.jit import array, compiled, kernel, spread

NODES = 33
TABLE_BANDS = 10
NORMAL_BANDS = 5
_ABOUT_NORMAL = 2 + TABLE_BANDS


@dataclass(frozen=True)
class Lobes:
    """The reflected lobe at every pixel, for a Fresnel weight of 1.

    direction:       d, unit. [P, 3]
    strength:        E, the reflectance under constant light. [P, 1]
    about_direction: K_l. [P, bands]
    about_normal:    N_l, N_0 = 0. [P, min(bands, 5)]
    """

    direction: Tensor
    strength: Tensor
    about_direction: Tensor
    about_normal: Tensor


@lru_cache
def specular_table(dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """Nodes uniform in r and n·v over 0..1, row by row: E, tilt t, K_0 … K_9, N_0 … N_4. `[NODES², 17]`"""
    with files("nextface.rendering").joinpath("specular_table.npz").open("rb") as file, np.load(file) as table:
        albedo, tilt = table["albedo"][..., None], table["tilt"][..., None]
        parts = [albedo, tilt, table["about_direction"], np.zeros_like(albedo), table["about_normal"]]
    return torch.from_numpy(np.concatenate(parts, -1)).flatten(0, 1).to(device, dtype)


def lobes(normal: Tensor, to_viewer: Tensor, roughness: Tensor, bands: int) -> Lobes:
    """The lobe at every pixel, differentiable.

    normal, to_viewer: unit, same frame, [P, 3]; roughness: perceptual, [P, 1]; bands ≤ 10. Roughness and n·v are held within
    0..1.
    """
    if not compiled(normal):
        return lobes_torch(normal, to_viewer, roughness, bands)
    return Lobes(*_Lobes.apply(normal, to_viewer, roughness, bands))


def lobes_torch(normal: Tensor, to_viewer: Tensor, roughness: Tensor, bands: int) -> Lobes:
    """The same in plain torch, on any device."""
    viewing = (normal * to_viewer).sum(-1, keepdim=True)
    entries = _look_up(specular_table(normal.dtype, normal.device), roughness[:, 0], viewing[:, 0])
    reflection = 2.0 * viewing * normal - to_viewer
    direction = normalize(reflection + entries[:, 1:2] * (normal - reflection), dim=-1)
    about_normal = entries[:, _ABOUT_NORMAL : _ABOUT_NORMAL + min(bands, NORMAL_BANDS)]
    return Lobes(direction, entries[:, :1], entries[:, 2 : 2 + bands], about_normal)


def _look_up(table: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Bilinear entries at fractions 0..1 of both axes. `[P, 17]`"""
    place = torch.stack([row, column], 1).clamp(0.0, 1.0) * (NODES - 1)
    whole = place.detach().long().clamp_max(NODES - 2)
    down, across = (place - whole).split(1, 1)
    node = whole[:, :1] * NODES + whole[:, 1:]
    corners = torch.cat([node, node + 1, node + NODES, node + (NODES + 1)], 1)
    upper_left, upper_right, lower_left, lower_right = table[corners].unbind(1)
    upper = torch.lerp(upper_left, upper_right, across)
    lower = torch.lerp(lower_left, lower_right, across)
    return torch.lerp(upper, lower, down)


class _Lobes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, normal: Tensor, to_viewer: Tensor, roughness: Tensor, bands: int):  # type: ignore[override, no-untyped-def]
        table = specular_table(normal.dtype)
        direction, strength = normal.new_empty(normal.shape), roughness.new_empty(roughness.shape)
        about_direction = normal.new_empty(normal.shape[0], bands)
        about_normal = normal.new_empty(normal.shape[0], min(bands, NORMAL_BANDS))
        outputs = (direction, strength, about_direction, about_normal)
        inputs = [array(part) for part in (table, normal, to_viewer, roughness)]
        spread(_lobes_forward, len(normal), *inputs, *(part.numpy() for part in outputs))
        ctx.save_for_backward(normal, to_viewer, roughness)  # type: ignore[attr-defined]
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *cotangents: Tensor):  # type: ignore[override, no-untyped-def]
        normal, to_viewer, roughness = ctx.saved_tensors  # type: ignore[attr-defined]
        gradients = [part.new_empty(part.shape) for part in (normal, to_viewer, roughness)]
        spread(
            _lobes_backward,
            len(normal),
            *(array(part) for part in (specular_table(normal.dtype), normal, to_viewer, roughness)),
            *(array(part) for part in cotangents),
            *(part.numpy() for part in gradients),
        )
        return *gradients, None


@kernel
def _lobes_forward(  # type: ignore[no-untyped-def]
    start, stop, table, normal, to_viewer, roughness, direction, strength, about_direction, about_normal
):
    dtype = normal.dtype
    zero, one, two = dtype.type(0), dtype.type(1), dtype.type(2)
    nodes = NODES - 1
    for p in range(start, stop):
        nx, ny, nz = normal[p, 0], normal[p, 1], normal[p, 2]
        vx, vy, vz = to_viewer[p, 0], to_viewer[p, 1], to_viewer[p, 2]
        viewing = nx * vx + ny * vy + nz * vz
        y, x = min(max(roughness[p, 0], zero), one) * nodes, min(max(viewing, zero), one) * nodes
        i, j = min(int(y), nodes - 1), min(int(x), nodes - 1)
        down, across = dtype.type(y - i), dtype.type(x - j)
        w00, w01, w10, w11 = (one - down) * (one - across), (one - down) * across, down * (one - across), down * across
        a = i * NODES + j
        b, c, d = a + 1, a + NODES, a + NODES + 1
        strength[p, 0] = w00 * table[a, 0] + w01 * table[b, 0] + w10 * table[c, 0] + w11 * table[d, 0]
        tilt = w00 * table[a, 1] + w01 * table[b, 1] + w10 * table[c, 1] + w11 * table[d, 1]
        for band in range(about_direction.shape[1]):
            k = 2 + band
            about_direction[p, band] = w00 * table[a, k] + w01 * table[b, k] + w10 * table[c, k] + w11 * table[d, k]
        for band in range(about_normal.shape[1]):
            k = _ABOUT_NORMAL + band
            about_normal[p, band] = w00 * table[a, k] + w01 * table[b, k] + w10 * table[c, k] + w11 * table[d, k]
        to_normal = tilt + (one - tilt) * two * viewing
        dx = to_normal * nx - (one - tilt) * vx
        dy = to_normal * ny - (one - tilt) * vy
        dz = to_normal * nz - (one - tilt) * vz
        scale = one / np.sqrt(dx * dx + dy * dy + dz * dz)
        direction[p, 0], direction[p, 1], direction[p, 2] = dx * scale, dy * scale, dz * scale


@kernel
def _lobes_backward(  # type: ignore[no-untyped-def]
    start,
    stop,
    table,
    normal,
    to_viewer,
    roughness,
    to_direction,
    to_strength,
    to_about_direction,
    to_about_normal,
    normal_gradient,
    viewer_gradient,
    roughness_gradient,
):
    dtype = normal.dtype
    zero, one, two = dtype.type(0), dtype.type(1), dtype.type(2)
    nodes = NODES - 1
    for p in range(start, stop):
        nx, ny, nz = normal[p, 0], normal[p, 1], normal[p, 2]
        vx, vy, vz = to_viewer[p, 0], to_viewer[p, 1], to_viewer[p, 2]
        viewing = nx * vx + ny * vy + nz * vz
        y, x = min(max(roughness[p, 0], zero), one) * nodes, min(max(viewing, zero), one) * nodes
        i, j = min(int(y), nodes - 1), min(int(x), nodes - 1)
        down, across = dtype.type(y - i), dtype.type(x - j)
        w00, w01, w10, w11 = (one - down) * (one - across), (one - down) * across, down * (one - across), down * across
        a = i * NODES + j
        b, c, d = a + 1, a + NODES, a + NODES + 1
        tilt = w00 * table[a, 1] + w01 * table[b, 1] + w10 * table[c, 1] + w11 * table[d, 1]
        mirror = one - tilt
        to_normal = tilt + mirror * two * viewing
        dx, dy, dz = to_normal * nx - mirror * vx, to_normal * ny - mirror * vy, to_normal * nz - mirror * vz
        scale = one / np.sqrt(dx * dx + dy * dy + dz * dz)
        dx, dy, dz = dx * scale, dy * scale, dz * scale
        gx, gy, gz = to_direction[p, 0], to_direction[p, 1], to_direction[p, 2]
        along = gx * dx + gy * dy + gz * dz
        gx, gy, gz = (gx - along * dx) * scale, (gy - along * dy) * scale, (gz - along * dz) * scale
        with_normal = gx * nx + gy * ny + gz * nz
        with_viewer = gx * vx + gy * vy + gz * vz
        to_tilt = (one - two * viewing) * with_normal + with_viewer
        # Cotangent-weighted sums of each of the four nodes' entries.
        g = to_strength[p, 0]
        sa, sb = g * table[a, 0] + to_tilt * table[a, 1], g * table[b, 0] + to_tilt * table[b, 1]
        sc, sd = g * table[c, 0] + to_tilt * table[c, 1], g * table[d, 0] + to_tilt * table[d, 1]
        for band in range(to_about_direction.shape[1]):
            g, k = to_about_direction[p, band], 2 + band
            sa += g * table[a, k]
            sb += g * table[b, k]
            sc += g * table[c, k]
            sd += g * table[d, k]
        for band in range(to_about_normal.shape[1]):
            g, k = to_about_normal[p, band], _ABOUT_NORMAL + band
            sa += g * table[a, k]
            sb += g * table[b, k]
            sc += g * table[c, k]
            sd += g * table[d, k]
        by_row = (one - across) * (sc - sa) + across * (sd - sb)
        by_column = (one - down) * (sb - sa) + down * (sd - sc)
        to_viewing = two * mirror * with_normal
        if zero <= viewing <= one:
            to_viewing += by_column * nodes
        roughness_gradient[p, 0] = by_row * nodes if zero <= roughness[p, 0] <= one else zero
        normal_gradient[p, 0] = to_normal * gx + to_viewing * vx
        normal_gradient[p, 1] = to_normal * gy + to_viewing * vy
        normal_gradient[p, 2] = to_normal * gz + to_viewing * vz
        viewer_gradient[p, 0] = to_viewing * nx - mirror * gx
        viewer_gradient[p, 1] = to_viewing * ny - mirror * gy
        viewer_gradient[p, 2] = to_viewing * nz - mirror * gz
