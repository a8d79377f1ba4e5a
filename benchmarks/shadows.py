"""Cast shadows in the albedo: photos drawn by Mitsuba under one hard lamp from the side, fitted with and without self-shadowing.

Usage: python -m benchmarks.shadows [--photos FIRST END] [--folder output/shadows] [--threads N]

Each photo is fitted four times: with the true geometry (light, albedo and maps are fitted) and by all stages, each without and
with self-shadowing. The people have plain skin, so that what is left in the albedo is shadow. Prints the albedo error, root
mean square of linear values after one scale per channel for the whole face, in fixed regions as far as the camera sees them; the
folder gets the scenes and a strip per photo (photo | true albedo | known geometry: without, with | fitted: without, with).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

import nextface
from benchmarks import fidelity, mitsuba_scene, synthetic
from nextface.config import OptimConfig
from nextface.fitting import statistical
from nextface.fitting.driver import Fit, run_stages
from nextface.morphable import MorphableModel, load_model
from nextface.photo import Photo
from nextface.pipeline import observation_of
from nextface.rendering.backend import rasterizer_for
from nextface.rendering.bake import bake
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import fragments
from nextface.rendering.normals import vertex_normals
from nextface.rendering.render import render, to_view, viewing_directions
from nextface.rendering.sh import irradiance, sh_basis
from nextface.rendering.texture import TextureLookup
from nextface.rendering.transport import Transport
from nextface.scene import Scene

BANDS = 9
ELEVATION, AZIMUTH = 50.0, 50.0
"""Of the lamp, degrees; every other photo has it on the other side."""
LAMP_SHARPNESS = 0.012
"""Band l of the lamp is damped by exp(−s·l(l + 1)): a disc of some ten degrees, with all nine bands strong."""
AMBIENT = 0.06
"""Share of the irradiance of a surface that faces the lamp."""

LEAST_FACING = 0.3
"""Cosine to the viewer below which a texel is not counted."""

FROM_EYES = 4.0
"""mm between the eyes and the skin that is counted."""

KINDS = ("known geometry", "fitted geometry")
BOUNDS = {"known geometry": 0.25, "fitted geometry": 0.5}


def side_light(number: int) -> Tensor:
    """A lamp from the side and a little ambient light, grey, [1, L, 3]; E/π is about 1 where a surface faces the lamp."""
    elevation, azimuth = math.radians(ELEVATION), math.radians(AZIMUTH * (-1) ** number)
    toward = torch.tensor(
        [
            [
                math.cos(elevation) * math.sin(azimuth),
                math.sin(elevation),
                math.cos(elevation) * math.cos(azimuth),
            ]
        ]
    )
    bands = torch.tensor([math.exp(-LAMP_SHARPNESS * l * (l + 1)) for l in range(BANDS) for _ in range(2 * l + 1)])
    light = sh_basis(toward, BANDS)[0] * bands * math.pi
    light[0] += AMBIENT * math.sqrt(4.0 * math.pi)
    return light[None, :, None].expand(1, -1, 3).contiguous()


def draw_by_mitsuba(scene: Scene, model: MorphableModel) -> tuple[Tensor, Tensor]:
    """Albedo and specular weight as we see them, lit by the path tracer under a grey light."""
    mi = mitsuba_scene.load_mitsuba()
    flat = render(scene, model)
    surface, camera = mitsuba_scene.Surface.of(scene, model), Camera.of(scene)
    light = scene.light[0, :, :1]
    diffuse, specular = (
        mitsuba_scene.draw(mi, surface, material, light, camera, range(1))[0].float()
        for material in (mitsuba_scene.diffuse(1.0), mitsuba_scene.rough_dielectric(float(model.roughness_mean.mean())))
    )
    return flat.mask[0], (flat.diffuse[0] * diffuse + flat.specular[0] * specular) * scene.gain()[0]


def evenly_rough(model: MorphableModel) -> MorphableModel:
    """The model with one roughness everywhere, as the path tracer's material has it."""
    return replace(model, roughness_mean=torch.full_like(model.roughness_mean, float(model.roughness_mean.mean())))


def regions(model: MorphableModel, resolution: int) -> dict[str, Tensor]:
    """Skin that brow, nose and chin shadow: texels of the mean head that lose half of the light's irradiance, with the lamp on
    either side, told apart by height. Lids' edges are left out: a pixel, more than a millimetre wide, mixes them with the eyes.
    bool [T, T]"""
    normals = vertex_normals(model.mean[None], model.triangles)[0]
    image = torch.zeros(len(normals), dtype=torch.int64)
    transport = Transport.of(model.mean[None], model.triangles, BANDS)
    shadowed = torch.zeros(len(normals), dtype=torch.bool)
    for number in (0, 1):
        light = side_light(number)
        unshadowed = irradiance(normals, light, image)[:, 0]
        change = transport.shadow(light, torch.eye(3)[None])[0, :, 0]
        shadowed |= (unshadowed > 0.3) & (change < -0.5 * unshadowed)
    skin = ((model.regions["skin"] > 0.5) | (model.regions["neck"] > 0.5)) & (model.regions["ears"] < 0.5)
    eyes = model.mean[model.regions["eyes"] > 0.5]
    skin &= torch.cdist(model.mean, eyes).amin(1) > FROM_EYES
    up = model.mean[:, 1] - model.mean[_nose_tip(model), 1]
    bands = {"brow": up > 20.0, "nose": (up <= 20.0) & (up > -25.0), "chin": up <= -25.0}
    inside = torch.stack([(shadowed & skin & band).float() for band in bands.values()], -1)
    baked = bake(inside[None], model, resolution)[0] > 0.5
    return dict(zip(bands, baked.unbind(-1), strict=True))


def _nose_tip(model: MorphableModel) -> int:
    middle = model.mean[:, 0].abs() < 5.0
    return int(torch.where(middle, model.mean[:, 2], model.mean.new_tensor(-1e9)).argmax())


def fits(
    truth: synthetic.SyntheticPhoto, photo: Photo, model: MorphableModel, config: OptimConfig
) -> dict[tuple[str, bool], Scene]:
    """By kind of geometry and whether the fit knew of shadows."""
    found = {}
    for shadows in (False, True):
        setting = replace(config, self_shadowing=shadows)
        observation = observation_of(photo, model, setting)
        with geometry_held():
            known = replace(
                fidelity.truth_in_crop(truth, photo), albedo=torch.zeros_like(truth.scene.albedo), maps=None
            )
            fit = Fit(known, observation)
            run_stages([fit], model, setting, skip={1})
            found["known geometry", shadows] = fit.scene
        found["fitted geometry", shadows] = nextface.reconstruct(photo, setting, model=model).scene
    return found


@contextmanager
def geometry_held() -> Iterator[None]:
    """The statistical stage moves light and albedo alone, from its first to its last iteration."""
    usual = statistical._LIGHT_ONLY
    statistical._LIGHT_ONLY = 1.0
    try:
        yield
    finally:
        statistical._LIGHT_ONLY = usual


def visible_texels(scene: Scene, model: MorphableModel, resolution: int) -> Tensor:
    """Texels that the camera sees not too obliquely, whatever lies on them. bool [T, T]"""
    camera, vertices = Camera.of(scene), scene.vertices_camera(model)
    pixels = rasterizer_for(scene.device).visible_triangles(vertices, model.triangles, camera)
    covered = fragments(vertices, model.triangles, pixels, camera)
    normals = covered.interpolate(vertex_normals(to_view(vertices), model.triangles))
    facing = (normalize(normals, dim=-1) * viewing_directions(pixels, camera)).sum(-1)
    lookup = TextureLookup.build(covered, model, resolution, camera, vertices)
    return lookup.seen((facing > LEAST_FACING).float())[0, ..., 0] > 0.5


def squared_errors(
    scene: Scene, truth: Scene, model: MorphableModel, where: dict[str, Tensor], face: Tensor, seen: Tensor
) -> dict[str, Tensor]:
    """Squared albedo errors of the region's seen texels, after one scale per channel for the face. [N] each"""
    resolution = len(face)
    fit, true = fidelity.diffuse_map(scene, resolution), bake(model.diffuse(truth.albedo), model, resolution)[0]
    usual = face & seen
    fit = fit * (fit * true)[usual].sum(0) / fit.square()[usual].sum(0)
    return {name: (fit - true)[region & seen].square().mean(-1) for name, region in where.items()}


def table(errors: dict[tuple[str, bool], dict[str, list[Tensor]]]) -> str:
    """Root mean square errors and their ratios, in Markdown."""
    lines = ["| geometry | region | without | with | ratio |", "|---|---|---|---|---|"]
    for kind in KINDS:
        without, shadowed = errors[kind, False], errors[kind, True]
        for name in [*without, "all three"]:
            names = list(without) if name == "all three" else [name]
            before, after = (
                float(torch.cat([part for each in names for part in side[each]]).mean().sqrt())
                for side in (without, shadowed)
            )
            lines.append(f"| {kind} | {name} | {before:.4f} | {after:.4f} | {after / before:.2f} |")
        lines.append(f"| {kind} | bound | | | {BOUNDS[kind]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, nargs=2, default=(0, 6), metavar=("FIRST", "END"))
    parser.add_argument("--folder", type=Path, default=Path("output/shadows"))
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    config = OptimConfig(device="cpu")
    model = evenly_rough(load_model(config.path))
    where = regions(model, config.texture_resolution)
    face = fidelity.face_texels(model, config.texture_resolution)
    errors: dict[tuple[str, bool], dict[str, list[Tensor]]] = {
        (kind, shadows): {name: [] for name in where} for kind in KINDS for shadows in (False, True)
    }
    for number in range(*arguments.photos):
        truth = synthetic.make(
            model, number, scale=0.6, light=("hard side", side_light(number)), detail=False, draw=draw_by_mitsuba
        )
        photo, _ = fidelity.photo_of(truth, model, config, arguments.folder)
        true_scene = fidelity.truth_in_crop(truth, photo)
        found = fits(truth, photo, model, config)
        pictures = {"photo": photo.image, "true albedo": render(true_scene, model).diffuse[0]}
        seen = visible_texels(true_scene, model, config.texture_resolution)
        for key in [(kind, shadows) for kind in KINDS for shadows in (False, True)]:
            scene = found[key]
            pictures[f"{key}"] = render(scene, model).diffuse[0]
            kind = key[0].split()[0] + ("_shadows" if key[1] else "")
            scene.save(arguments.folder / f"{truth.name}_{kind}.safetensors")
            for name, part in squared_errors(scene, true_scene, model, where, face, seen).items():
                errors[key][name].append(part)
        fidelity.strip(pictures).save(arguments.folder / f"{truth.name}_strip.jpg", quality=92)
        print(table(errors), flush=True)


if __name__ == "__main__":
    main()
