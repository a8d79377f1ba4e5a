"""Where skin wrinkles, and how: lines that repeat (forehead, eyes' corners, frown) and single folds (nose, mouth, bags)."""

from __future__ import annotations

import torch
from torch import Tensor

from nextface.prior.data.anatomy import Anatomy, Eye, smoothstep

LINES = ("forehead_lines", "crows_feet", "frown_lines")
FOLDS = ("nose_folds", "bags", "mouth_folds")
_FAR = 50.0
_RAYS_MM = 14.0
"""Distance from the eye's corner at which its rays are as far apart as other lines."""


def lines(face: Anatomy) -> tuple[dict[str, Tensor], Tensor]:
    """Strength of LINES, [V] each in 0..1, and of the one that is there the phase in mm across it with its gradient, [V, 4]"""
    rest, gap = face.rest, face.brow_gap
    x, y, z = rest.unbind(1)
    nothing = torch.zeros_like(x)
    strength = dict.fromkeys(LINES, nothing)
    strength["forehead_lines"] = (
        smoothstep(y, gap[1] + 4, gap[1] + 22)
        * (1.0 - smoothstep(y, gap[1] + 48, gap[1] + 64))
        * smoothstep(-x.abs(), -52.0, -32.0)
        * smoothstep(z, 10.0, 50.0)
    )
    phase = _columns(y, nothing, nothing + 1.0)
    frown = face.about(gap, (7.0, 11.0, 20.0), (0.0, 4.0, 0.0))
    strength["frown_lines"] = frown
    phase = torch.where(frown[:, None] > 0.3, _columns(x.abs(), torch.sign(x), nothing), phase)
    for eye in face.eyes:
        out = torch.sign(eye.outer[0])
        dx, dy = (x - eye.outer[0]) * out, y - eye.outer[1]
        distance = torch.hypot(dx, dy).clamp_min(1.0)
        fan = smoothstep(dx, 2.0, 7.0) * smoothstep(-distance, -26.0, -14.0) * smoothstep(-dy.abs(), -18.0, -8.0)
        closer = _RAYS_MM / distance.square()
        rays = _columns(torch.atan2(dy, dx.clamp_min(0.1)) * _RAYS_MM, -dy * closer * out, dx * closer)
        phase = torch.where(((fan > strength["crows_feet"]) & (fan > 0.02))[:, None], rays, phase)
        strength["crows_feet"] = torch.maximum(strength["crows_feet"], fan)
    return strength, phase


def folds(face: Anatomy) -> tuple[dict[str, Tensor], Tensor]:
    """Strength of FOLDS, [V] each in 0..1, and of the nearest the distance across it in mm with its gradient, [V, 4]"""
    nothing = torch.zeros_like(face.rest[:, 0])
    strength = dict.fromkeys(FOLDS, nothing)
    phase = _columns(nothing + _FAR, nothing, nothing)
    for side in (0, 1):
        wing, corner, eye = face.nose_wings[side], face.mouth_corners[side], face.eyes[side]
        paths = {"nose_folds": _nose_fold(wing, corner), "bags": _bag(eye), "mouth_folds": _mouth_fold(corner)}
        for name, path in paths.items():
            found, along = _from_path(face.rest, path)
            nearer = found[:, 0].abs() < phase[:, 0].abs()
            phase = torch.where(nearer[:, None], found, phase)
            own = along * smoothstep(-found[:, 0].abs(), -14.0, -7.0)
            strength = {
                other: torch.where(nearer, own if other == name else nothing, value)
                for other, value in strength.items()
            }
    return strength, phase


def _columns(phase: Tensor, along_x: Tensor, along_y: Tensor) -> Tensor:
    return torch.stack([phase, along_x, along_y, torch.zeros_like(phase)], 1)


def _path(start: Tensor, out: Tensor, *steps: tuple[float, float]) -> Tensor:
    """Points in the frontal plane at steps (outwards, up) from a start. [N, 2]"""
    return torch.stack([start[:2] + start.new_tensor([float(out) * across, up]) for across, up in steps])


def _nose_fold(wing: Tensor, corner: Tensor) -> Tensor:
    """From above the wing of the nose down past the mouth's corner, bulging outwards."""
    out = torch.sign(corner[0])
    start, end = _path(wing, out, (2.0, 4.0)), _path(corner, out, (7.0, -2.0))
    middle = (start + end) / 2.0 + start.new_tensor([4.0 * float(out), 3.0])
    return torch.cat([start, middle, end])


def _mouth_fold(corner: Tensor) -> Tensor:
    """From the mouth's corner towards the jaw."""
    return _path(corner, torch.sign(corner[0]), (3.0, -4.0), (7.0, -13.0), (8.0, -24.0))


def _bag(eye: Eye) -> Tensor:
    """Below the eye, from its inner corner outwards."""
    out = torch.sign(eye.outer[0])
    ends = [_path(eye.inner, out, (2.0, -4.0)), _path(eye.lower, out, (0.0, -8.0)), _path(eye.outer, out, (-3.0, -7.0))]
    return torch.cat(ends)


def _from_path(rest: Tensor, path: Tensor) -> tuple[Tensor, Tensor]:
    """Signed distance from a polyline in the frontal plane with its gradient, [V, 4], and 1 along it fading at its ends, [V]"""
    start, along = path[:-1], path[1:] - path[:-1]
    lengths = along.norm(dim=1)
    place = rest[:, None, :2]
    share = (((place - start) * along).sum(-1) / lengths.square()).clamp(0.0, 1.0)
    offset = place - (start + share[..., None] * along)
    distance, nearest = offset.norm(dim=-1).min(1)
    rows = torch.arange(len(rest))
    across = torch.stack([-along[:, 1], along[:, 0]], 1)[nearest] / lengths[nearest, None]
    chosen = offset[rows, nearest]
    sign = torch.sign((chosen * across).sum(-1))
    outward = chosen / distance[:, None].clamp_min(0.1) * sign[:, None]
    direction = torch.where(distance[:, None] > 0.5, outward, across)
    before = lengths.cumsum(0) - lengths
    travelled = (before[nearest] + share[rows, nearest] * lengths[nearest]) / lengths.sum()
    fade = smoothstep(travelled, 0.0, 0.2) * (1.0 - smoothstep(travelled, 0.7, 1.0)) * (rest[:, 2] > 30.0)
    return _columns(distance * sign, direction[:, 0], direction[:, 1]), fade
