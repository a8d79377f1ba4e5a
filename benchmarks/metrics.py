"""How far a reconstruction is from a known truth."""

from __future__ import annotations

import torch
from torch import Tensor

from nextface.morphable.model import MorphableModel
from nextface.rendering.normals import vertex_normals

INTEROCULAR = 63.0
"""Length between the eye centres that vertex errors are quoted for, mm."""

SKIN_TYPES = ((55.0, "very light"), (41.0, "light"), (28.0, "intermediate"), (10.0, "tan"), (-30.0, "brown"))
"""Lower bound of the individual typology angle of each skin type, degrees; below the last is "dark".

Chardon, Cretois, Hourseau 1991, as extended by Del Bino and Bernerd 2013.
"""

_WHITE_D65 = (0.95047, 1.0, 1.08883)
_RGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)


def face_vertices(model: MorphableModel) -> Tensor:
    """The face's skin in front: skin, lips and brows, but nothing that looks sideways or back. Bool [V]"""
    covered = torch.stack([model.regions[name] for name in ("skin", "lips", "eyebrows")]).amax(0) > 0.5
    for name in ("scalp", "ears", "neck"):
        covered &= model.regions[name] < 0.5
    normals = vertex_normals(model.mean[None], model.triangles)[0]
    return covered & (normals[:, 2] > 0.2)


def similarity(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, rotation [3, 3] and translation [3] of the least-squares target ≈ scale · source Rᵀ + t (Umeyama 1991).

    source, target: [N, 3]
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = (source - source_mean).double(), (target - target_mean).double()
    left, singular, right = torch.linalg.svd(b.T @ a)
    sign = torch.ones(3, dtype=torch.float64)
    sign[2] = torch.sign(torch.linalg.det(left @ right))
    rotation = left @ torch.diag(sign) @ right
    scale = (singular * sign).sum() / a.square().sum()
    translation = target_mean - scale.to(source) * rotation.to(source) @ source_mean
    return scale.to(source), rotation.to(source), translation


def vertex_errors(fit: Tensor, truth: Tensor, face: Tensor, interocular: float) -> Tensor:
    """Distance of each vertex of the face after similarity alignment on the face, mm at interocular 63 mm.

    fit, truth: model space [V, 3]; face: bool [V]; interocular: of the truth, in its own units -> [face.sum()]
    """
    scale, rotation, translation = similarity(fit[face], truth[face])
    aligned = scale * fit[face] @ rotation.T + translation
    return (aligned - truth[face]).norm(dim=-1) * (INTEROCULAR / interocular)


def interocular(vertices: Tensor, model: MorphableModel) -> float:
    """Distance of the eyes' centroids, mm. `[V, 3]`"""
    eyes = model.regions["eyes"] > 0.5
    left = eyes & (model.mean[:, 0] > 0)
    right = eyes & (model.mean[:, 0] < 0)
    return float((vertices[left].mean(0) - vertices[right].mean(0)).norm())


def rotation_error(fit: Tensor, truth: Tensor) -> float:
    """Angle between two rotations [3, 3], degrees."""
    cosine = ((fit.double().T @ truth.double()).diagonal().sum() - 1.0) / 2.0
    return float(torch.rad2deg(torch.arccos(cosine.clamp(-1.0, 1.0))))


def best_scale(fit: Tensor, truth: Tensor) -> float:
    """The one number that makes scale · fit nearest to truth in the least-squares sense."""
    return float((fit * truth).sum() / fit.square().sum().clamp_min(1e-12))


def psnr(fit: Tensor, truth: Tensor, *, scaled: bool = False) -> float:
    """Peak signal-to-noise ratio in dB of linear values with peak 1, after one common scale if `scaled`."""
    if scaled:
        fit = fit * best_scale(fit, truth)
    return float(-10.0 * torch.log10((fit - truth).square().mean().clamp_min(1e-12)))


def lab(linear: Tensor) -> Tensor:
    """CIELAB (D65, 2°) of linear Rec.709. `[..., 3] -> [..., 3]`"""
    ratio = linear @ linear.new_tensor(_RGB_TO_XYZ).T / linear.new_tensor(_WHITE_D65)
    small = 6.0 / 29.0
    curve = torch.where(ratio > small**3, ratio.clamp_min(1e-9) ** (1.0 / 3.0), ratio / (3 * small**2) + 4.0 / 29.0)
    x, y, z = curve.unbind(-1)
    return torch.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], -1)


def typology_angle(albedo: Tensor) -> Tensor:
    """Individual typology angle of skin, degrees, from its mean linear albedo: atan2(L* - 50, b*). `[..., 3] -> [...]`"""
    lightness, _, yellow = lab(albedo).unbind(-1)
    return torch.rad2deg(torch.atan2(lightness - 50.0, yellow))


def skin_type(angle: float) -> str:
    """Name of the skin type of an individual typology angle in degrees."""
    return next((name for bound, name in SKIN_TYPES if angle > bound), "dark")
