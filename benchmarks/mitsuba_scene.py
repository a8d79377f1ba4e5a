"""The same scene in Mitsuba 3, a path tracer that shares no code with ours: direct light only, pixels averaged over their square.

Mitsuba's world is our view frame (x right, y up, z to the viewer) with the camera at the origin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nextface.morphable.model import MorphableModel
from nextface.rendering.basis import sh_basis
from nextface.rendering.camera import CAMERA_TO_VIEW, Camera
from nextface.rendering.normals import vertex_normals
from nextface.scene import Scene

SAMPLES = 128
ENVIRONMENT_HEIGHT = 256
OLDEST_LLVM = 19
"""Older ones end the process when they meet a kernel that they cannot compile."""


def load_mitsuba() -> ModuleType:
    """Mitsuba with its compiled variant where LLVM can carry it, else with the scalar one."""
    import drjit
    import mitsuba

    compiled = drjit.detail.llvm_version()[0] >= OLDEST_LLVM
    mitsuba.set_variant("llvm_ad_rgb" if compiled else "scalar_rgb")
    mitsuba.set_log_level(mitsuba.LogLevel.Error)
    return mitsuba


@dataclass(frozen=True)
class Surface:
    """A mesh in the view frame.

    vertices:  mm. [V, 3]
    normals:   unit. [V, 3]
    triangles: [T, 3]
    uv:        origin at the lower left, where textures are used. [V, 2]
    """

    vertices: Tensor
    normals: Tensor
    triangles: Tensor
    uv: Tensor | None = None

    @classmethod
    def of(cls, scene: Scene, model: MorphableModel) -> Surface:
        """The head of the first image."""
        vertices = scene.vertices_camera(model)[:1] * torch.tensor(CAMERA_TO_VIEW)
        return cls(vertices[0], vertex_normals(vertices, model.triangles)[0], model.triangles)

    @classmethod
    def unwrapped(cls, scene: Scene, model: MorphableModel) -> Surface:
        """The same with its unwrap: a vertex on a seam appears once on each side."""
        head, place = cls.of(scene, model), model.uv_to_vertex
        return cls(head.vertices[place], head.normals[place], model.uv_triangles, model.uv)


def environment(radiance: Tensor) -> np.ndarray:
    """An SH light where Mitsuba looks it up: row i at the angle π i / (H − 1) from up, column j at 2π (j + ½) / W from −z.

    radiance: view frame, [L, C] -> [H, W, C], W = 2H
    """
    height, width = ENVIRONMENT_HEIGHT, 2 * ENVIRONMENT_HEIGHT
    theta = math.pi * torch.arange(height, dtype=torch.float64)[:, None] / (height - 1)
    phi = 2.0 * math.pi * (torch.arange(width, dtype=torch.float64) + 0.5) / width
    parts = (theta.sin() * phi.sin(), theta.cos().expand(-1, width), -theta.sin() * phi.cos())
    basis = sh_basis(torch.stack(parts, -1).flatten(0, 1), math.isqrt(len(radiance)))
    return (basis @ radiance.double()).unflatten(0, (height, width)).numpy()


@dataclass(frozen=True)
class Material:
    """A reflectance as Mitsuba's dictionary, and whether directions are better drawn from the light than from its lobe."""

    bsdf: dict[str, Any]
    follows_light: bool


def diffuse(reflectance: float | dict[str, Any]) -> Material:
    """Lambert. reflectance: one number or a texture"""
    return Material({"type": "diffuse", "reflectance": _spectrum(reflectance)}, follows_light=True)


def rough_dielectric(roughness: float) -> Material:
    """What a rough surface of index 1.4 reflects (GGX, α = r²); nothing comes back from below it."""
    bsdf = {
        "type": "roughplastic",
        "distribution": "ggx",
        "alpha": roughness**2,
        "int_ior": 1.4,
        "ext_ior": 1.0,
        "diffuse_reflectance": _spectrum(0.0),
    }
    return Material(bsdf, follows_light=False)


def texture(mi: ModuleType, image: Tensor) -> dict[str, Any]:
    """A map of linear values, top row first, as a texture. `[T, T, C]`"""
    bitmap = mi.Bitmap(np.ascontiguousarray(image.detach().numpy(), np.float32))
    return {"type": "bitmap", "bitmap": bitmap, "raw": True}


def _spectrum(value: float | dict[str, Any]) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"type": "rgb", "value": value}


def build(
    mi: ModuleType,
    surface: Surface,
    material: Material,
    light: np.ndarray,
    camera: Camera,
    *,
    attributes: dict[str, Tensor] | None = None,
    samples: int = SAMPLES,
) -> Any:
    """A Mitsuba scene.

    light: not negative, in the places of `environment`, [H, W, 3]; camera: its first image counts;
    attributes: values at vertices by name ("vertex_…"), [V, 1 or 3]
    """
    focal, principal = float(camera.focal[0]), camera.principal[0].tolist()
    sensor = {
        "type": "perspective",
        "fov": math.degrees(2.0 * math.atan(0.5 * camera.width / focal)),
        "fov_axis": "x",
        "principal_point_offset_x": 0.5 - principal[0] / camera.width,
        "principal_point_offset_y": 0.5 - principal[1] / camera.height,
        "to_world": mi.ScalarTransform4f().look_at([0, 0, 0], [0, 0, -1], [0, 1, 0]),
        "near_clip": 1.0,
        "far_clip": 1e5,
        "film": {
            "type": "hdrfilm",
            "width": camera.width,
            "height": camera.height,
            "rfilter": {"type": "box"},
            "pixel_format": "rgb",
        },
        "sampler": {"type": "multijitter", "sample_count": samples},
    }
    integrator = {
        "type": "direct",
        "emitter_samples": int(material.follows_light),
        "bsdf_samples": int(not material.follows_light),
        "hide_emitters": True,
    }
    return mi.load_dict(
        {
            "type": "scene",
            "integrator": integrator,
            "sensor": sensor,
            "light": {"type": "envmap", "bitmap": mi.Bitmap(np.ascontiguousarray(light, np.float32))},
            "head": _mesh(mi, surface, material.bsdf, attributes or {}),
        }
    )


def _mesh(mi: ModuleType, surface: Surface, bsdf: dict[str, Any], attributes: dict[str, Tensor]) -> Any:
    properties = mi.Properties()
    properties["bsdf"] = mi.load_dict(bsdf)
    count, has_uv = len(surface.vertices), surface.uv is not None
    mesh = mi.Mesh(
        "head", count, len(surface.triangles), properties, has_vertex_normals=True, has_vertex_texcoords=has_uv
    )
    values = mi.traverse(mesh)
    values["vertex_positions"] = _flat(surface.vertices)
    values["vertex_normals"] = _flat(surface.normals)
    values["faces"] = surface.triangles.numpy().astype(np.uint32).ravel()
    if surface.uv is not None:
        down = torch.tensor([1.0, -1.0])  # Mitsuba's textures begin at the top
        values["vertex_texcoords"] = _flat(surface.uv * down + torch.tensor([0.0, 1.0]))
    values.update()
    for name, attribute in attributes.items():
        mesh.add_attribute(name, attribute.shape[1], _flat(attribute))
    return mesh


def _flat(values: Tensor) -> np.ndarray:
    return values.detach().numpy().astype(np.float32).ravel()


def draw(
    mi: ModuleType,
    surface: Surface,
    material: Material,
    radiance: Tensor,
    camera: Camera,
    seeds: range,
    attributes: dict[str, Tensor] | None = None,
) -> Tensor:
    """One picture per seed, linear, whose noises are independent. `[N, H, W, 3]`

    radiance: SH coefficients, view frame, [L, 3]. Mitsuba's lights cannot be negative, so what is negative of this one is
    drawn as a light of its own and subtracted.
    """
    light = environment(radiance)
    pictures = torch.zeros(len(seeds), camera.height, camera.width, 3, dtype=torch.float64)
    for sign in (1.0, -1.0):
        part = np.maximum(sign * light, 0.0)
        if part.any():
            scene = build(mi, surface, material, part, camera, attributes=attributes)
            # A seed of its own for each part: no noise is shared.
            drawn = [np.array(mi.render(scene, seed=2 * seed + int(sign < 0.0))) for seed in seeds]
            pictures += sign * torch.from_numpy(np.stack(drawn))
    return pictures


def relative_rmse(ours: Tensor, references: Tensor, mask: Tensor) -> float:
    """sqrt(mean err² / mean ref²) over the mask and all channels, without the references' noise.

    err² is (I − R₁)(I − R₂), and ref² R₁ R₂, averaged over all pairs of references: independent noises cancel on average.
    ours: [H, W, 3]; references: [N, H, W, 3], N > 1; mask: [H, W]
    """
    errors, values = (ours - references)[:, mask], references[:, mask]
    return float((_mean_of_products(errors) / _mean_of_products(values)).clamp_min(0.0).sqrt())


def _mean_of_products(samples: Tensor) -> Tensor:
    """Mean over all points and pairs i ≠ j of samples. `[N, P, 3] -> []`"""
    count = len(samples)
    return (samples.sum(0).square() - samples.square().sum(0)).mean() / (count * (count - 1))
