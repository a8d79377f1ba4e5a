"""Parts of a face that skin differs between, as numbers at the vertices of the mean head.

Places are millimetres on the mean head, from its landmarks, so that a zone sits at the same feature on every head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nextface.morphable.model import MorphableModel
from nextface.prior.data.anatomy import Anatomy, Eye, smoothstep
from nextface.prior.data.wrinkles import FOLDS, LINES, folds, lines
from nextface.rendering.normals import vertex_normals
from nextface.rendering.tangents import vertex_tangents

ZONES = (
    "skin",
    "lips",
    "brows",
    "eyes",
    "mouth",
    "scalp",
    "ears",
    "cheeks",
    "nose",
    "forehead",
    "under_eyes",
    "lids",
    "rims",
    "beard",
    "oily",
    "creases",
    "freckled",
    *LINES,
    *FOLDS,
)
"""Weights in 0..1. "rims" is the edge of the lids where lashes grow, "creases" the corners beside nose and mouth."""
COLUMNS = {"rest": 3, "zones": len(ZONES), "line": 4, "fold": 4, "iris": 1, "material": 5}
"""What `FaceZones.vertices` holds. rest: place, mm; line, fold: of the wrinkle there, its phase in mm across it and the
phase's gradient; iris: angle from the eyeball's axis, radians; material: the model's mean diffuse albedo, specular weight and
roughness."""


@dataclass(frozen=True)
class FaceZones:
    """vertices: of COLUMNS, in order. [V, C]
    frames: rest tangent and bitangent per uv vertex. [U, 6]
    front: vertices of skin that spots may lie on, int64 [N]
    """

    vertices: Tensor
    frames: Tensor
    front: Tensor

    @classmethod
    def of(cls, model: MorphableModel) -> FaceZones:
        """model: with "mediapipe" landmarks, on the CPU"""
        rest = model.mean
        normals = vertex_normals(rest[None], model.triangles)
        face = Anatomy.of(model)
        line_strength, line = lines(face)
        fold_strength, fold = folds(face)
        weights = _weights(face, model)
        front = weights["skin"] * (1.0 - weights["lips"]) * smoothstep(normals[0, :, 2], 0.0, 0.3)
        weights |= {name: strength * front for name, strength in (line_strength | fold_strength).items()}
        columns = [rest, torch.stack([weights[name] for name in ZONES], 1), line, fold, _iris_angle(model)[:, None]]
        columns += [model.diffuse_mean, model.specular_mean, model.roughness_mean]
        tangent, sign = vertex_tangents(rest[None], normals, model)[0].split((3, 1), 1)
        bitangent = sign * torch.linalg.cross(normals[0, model.uv_to_vertex], tangent)
        plain = torch.nonzero((model.regions["skin"] > 0.9) & (normals[0, :, 2] > 0.1))[:, 0]
        return cls(torch.cat(columns, 1), torch.cat([tangent, bitangent], 1), plain)

    def to(self, device: torch.device | str) -> FaceZones:
        return FaceZones(self.vertices.to(device), self.frames.to(device), self.front.to(device))


def _weights(face: Anatomy, model: MorphableModel) -> dict[str, Tensor]:
    """All zones but those of wrinkles. [V] each"""
    region, about, both = model.regions, face.about, face.about_both
    x, y, z = face.rest.unbind(1)
    skin = (region["skin"] + region["neck"]).clamp(max=1.0)
    lower, upper = ((getattr(face.eyes[0], name), getattr(face.eyes[1], name)) for name in ("lower", "upper"))
    nose = about(face.nose, (13.0, 15.0, 16.0), (0.0, 4.0, 0.0))
    forehead = smoothstep(y, face.brow_gap[1] + 4, face.brow_gap[1] + 22) * smoothstep(z, 10.0, 50.0)
    chin = about(face.chin, (12.0, 9.0, 20.0), (0.0, 12.0, 0.0))
    creases = both(face.nose_wings, (4.0, 6.0, 8.0), (1.0, -2.0, 0.0))
    creases = torch.maximum(creases, 0.7 * both(face.mouth_corners, (4.0, 4.0, 8.0), (2.0, 0.0, 0.0)))
    freckled = torch.maximum(both(face.cheeks, (26.0, 18.0, 40.0), (-8.0, 4.0, 0.0)), nose)
    not_eyes = 1.0 - region["eyes"]
    bare = skin * (1.0 - region["lips"])
    return {
        "skin": skin,
        "lips": region["lips"],
        "brows": region["eyebrows"],
        "eyes": region["eyes"],
        "mouth": region["mouth_interior"],
        "scalp": region["scalp"],
        "ears": region["ears"],
        "cheeks": both(face.cheeks, (17.0, 15.0, 30.0), (0.0, -4.0, 0.0)) * bare,
        "nose": nose * bare,
        "forehead": forehead * bare,
        "under_eyes": both(lower, (13.0, 5.5, 14.0), (0.0, -8.0, 0.0)) * not_eyes,
        "lids": both(upper, (14.0, 5.0, 14.0), (0.0, 4.5, 0.0)) * not_eyes,
        "rims": torch.maximum(*(_near_rim(face.rest, eye) for eye in face.eyes)) * not_eyes,
        "beard": _beard(face) * bare,
        "oily": torch.stack([nose, 0.8 * forehead, 0.6 * chin]).amax(0) * bare,
        "creases": creases * bare,
        "freckled": torch.maximum(freckled, 0.35 * forehead) * bare,
    }


def _near_rim(rest: Tensor, eye: Eye) -> Tensor:
    """1 on the closed curve through an eye's corners and lids, falling off over 2 mm."""
    centre = (eye.outer + eye.inner) / 2.0
    half = (eye.outer - eye.inner).norm() / 2.0
    x, y = rest[:, 0] - centre[0], rest[:, 1] - centre[1]
    shape = (1.0 - (x / half).square()).clamp_min(0.0)
    edge = torch.where(y > 0, (eye.upper - centre)[1] * shape, (eye.lower - centre)[1] * shape)
    distance = torch.where(x.abs() < half, (y - edge).abs(), torch.hypot(x.abs() - half, y))
    return torch.exp(-0.5 * (distance / 1.6).square()) * (rest[:, 2] > centre[2] - 25.0)


def _beard(face: Anatomy) -> Tensor:
    """Where a beard grows: moustache, chin, jaw up to the sideburns, upper neck."""
    x, y, z = face.rest.unbind(1)
    mouth, side = face.mouth[1], x.abs()
    below = mouth - y
    # The upper border runs from the mouth's corner up to the ear.
    jaw = smoothstep(below + 0.9 * (side - 30.0).clamp_min(0.0), 2.0, 16.0) * smoothstep(side, 16.0, 32.0)
    jaw = torch.maximum(jaw, smoothstep(below, 22.0, 34.0)) * smoothstep(-below, -90.0, -70.0)
    jaw = jaw * (1.0 - smoothstep(-below, 38.0, 52.0))
    lip = smoothstep(-torch.hypot(x / 27.0, (y - mouth - 12.0) / 9.0), -1.2, -0.6)
    tuft = smoothstep(-torch.hypot(x / 26.0, (y - mouth + 30.0) / 20.0), -1.3, -0.7)
    area = torch.stack([jaw, lip, tuft]).amax(0)
    return area * smoothstep(z, -5.0, 25.0) * smoothstep(y, face.chin[1] - 32.0, face.chin[1] - 14.0)


def _iris_angle(model: MorphableModel) -> Tensor:
    """Angle from the eyeball's axis, which looks ahead on the mean head; π away from the eyes. [V] radians"""
    eyes = model.regions["eyes"] > 0.5
    angle = torch.full((len(model.mean),), torch.pi)
    for side in (-1.0, 1.0):
        own = eyes & (model.mean[:, 0] * side > 0)
        ball = model.mean[own]
        centre, radius = (ball.amax(0) + ball.amin(0)) / 2.0, (ball.amax(0) - ball.amin(0)) / 2.0
        direction = torch.nn.functional.normalize((ball - centre) / radius, dim=1)
        angle[own] = torch.acos(direction[:, 2].clamp(-1.0, 1.0))
    return angle
