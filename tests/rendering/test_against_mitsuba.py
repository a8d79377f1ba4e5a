"""The renderer against Mitsuba 3, which traces paths and shares no code with it.

Both draw a picture of 96², pixels averaged over their square (ours over 4 × 4 points), under two side lights of nine bands.
Errors are relRMSE over covered pixels, two of them away from the silhouette, with the path tracer's noise cancelled.
`pytest -s tests/rendering/test_against_mitsuba.py` prints every error beside its bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, normalize
from toy import toy_model

from benchmarks import mitsuba_scene
from benchmarks.mitsuba_scene import Material, Surface, diffuse, relative_rmse, rough_dielectric
from nextface.morphable import load_model
from nextface.morphable.model import MorphableModel
from nextface.paths import default_model_folder
from nextface.rendering.basis import band_of, sh_basis
from nextface.rendering.camera import Camera
from nextface.rendering.render import render
from nextface.rendering.transport import Transport
from nextface.scene import Scene

pytest.importorskip("mitsuba", reason="needs Mitsuba 3: pip install -c requirements.lock -e .[dev]")

SIZE = 96
ACROSS = 4
"""Our points per pixel, squared: Mitsuba's box filter averages over the pixel, our renderer looks at its centre."""
BANDS = 9
TOWARDS = (0.84, 0.2, 0.5)
"""Where the side light comes from: the right of the photo, a little above, in front."""
SOFTNESS = {"soft": 0.06, "hard": 0.015}
"""s in exp(−s l (l + 1)), the factor of band l: l = 8 is left at 1% of the soft light, at 34% of the hard one."""
SOURCE, FILL = (1.1, 1.0, 0.85), (0.25, 0.3, 0.4)
"""Mean radiance of the source and of the constant light that fills the shadows, linear RGB."""
ROUGHNESS = (0.3, 0.5, 0.8)
HEAD_ROUGHNESS = 0.5


def side_light(softness: str) -> Tensor:
    """A point source blurred over the sphere as by diffusion, plus a constant. `[81, 3]`"""
    degree = torch.tensor(band_of(BANDS))
    spread = torch.exp(-SOFTNESS[softness] * degree * (degree + 1.0)).double()
    source = spread * sh_basis(normalize(torch.tensor([TOWARDS], dtype=torch.float64), dim=-1), BANDS)[0]
    light = 4.0 * math.pi * source[:, None] * torch.tensor(SOURCE, dtype=torch.float64)
    light[0] += math.sqrt(4.0 * math.pi) * torch.tensor(FILL, dtype=torch.float64)
    return light


def constant_light(radiance: float) -> Tensor:
    light = torch.zeros(BANDS**2, 3)
    light[0] = math.sqrt(4.0 * math.pi) * radiance
    return light


def coated(model: MorphableModel, albedo: float | Tensor, weight: float, roughness: float) -> MorphableModel:
    """The model with another skin."""
    count = len(model.mean)
    return replace(
        model,
        diffuse_mean=torch.as_tensor(albedo, dtype=torch.float32).expand(count, 3),
        diffuse_basis=0.0 * model.diffuse_basis,
        specular_mean=torch.full((count, 1), weight),
        specular_basis=0.0 * model.specular_basis,
        roughness_mean=torch.full((count, 1), roughness),
    )


def ellipsoid(x: float, y: float, z: float) -> MorphableModel:
    """A convex solid of 81,920 triangles as a model without variation. Half axes in mm."""
    ball = trimesh.creation.icosphere(subdivisions=6)
    vertices = torch.from_numpy(ball.vertices).float() * torch.tensor([x, y, z])
    still = torch.zeros(1, len(vertices), 3)
    return replace(
        toy_model(),
        mean=vertices,
        triangles=torch.from_numpy(ball.faces).long(),
        shape_basis=still,
        expression_basis=still,
        diffuse_basis=still,
        specular_basis=still[..., :1],
        regions={},
    )


def portrait(model: MorphableModel, distance: float, focal: float, shape: Tensor | None = None) -> Scene:
    """The model turned by 23 degrees, off the picture's centre. focal: picture widths"""
    return Scene(
        shape=torch.zeros(1, len(model.shape_basis)) if shape is None else shape,
        albedo=torch.zeros(1, len(model.diffuse_basis)),
        expression=torch.zeros(1, len(model.expression_basis)),
        rotation=torch.tensor([[0.1, 0.4, -0.05]]),
        translation=torch.tensor([[6.0, -4.0, distance]]),
        focal=torch.tensor([focal * SIZE]),
        principal=torch.tensor([[0.47 * SIZE, 0.52 * SIZE]]),
        light=constant_light(1.0)[None],
        exposure=torch.zeros(1),
        white_balance=torch.zeros(1, 2),
        height=SIZE,
        width=SIZE,
    )


@dataclass(frozen=True)
class Picture:
    """image, illumination: [96, 96, 3]; inside: covered and 2 px from the silhouette, [96, 96]; facing: n·v, [96, 96]"""

    image: Tensor
    illumination: Tensor
    inside: Tensor
    facing: Tensor


def drawn(scene: Scene, model: MorphableModel, light: Tensor, transport: Transport | None = None) -> Picture:
    """Our picture, averaged over pixels."""
    side = ACROSS * SIZE
    fine = replace(scene, focal=scene.focal * ACROSS, principal=scene.principal * ACROSS, height=side, width=side)
    seen = render(fine, model, radiance=light.float()[None], transport=transport, maps=False)
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    rays = Camera.of(fine).rays(torch.zeros_like(row).ravel(), row.ravel(), column.ravel()).unflatten(0, (side, side))
    to_viewer = normalize(rays * torch.tensor([-1.0, 1.0, 1.0]), dim=-1)

    def averaged(images: Tensor) -> Tensor:
        return avg_pool2d(images.permute(0, 3, 1, 2), ACROSS)[0].permute(1, 2, 0)

    covered = averaged(seen.mask[..., None].float())[None, None, ..., 0] > 0.999
    return Picture(
        averaged(seen.image),
        averaged(seen.illumination),
        max_pool2d((~covered).float(), 5, 1, 2)[0, 0] == 0.0,
        averaged((seen.normal * to_viewer).sum(-1, keepdim=True))[..., 0],
    )


class Studio:
    """A solid and its pictures by Mitsuba, each drawn once."""

    def __init__(self, mi: ModuleType, scene: Scene, model: MorphableModel) -> None:
        self.scene, self.model = scene, model
        surface, camera = Surface.of(scene, model), Camera.of(scene)

        def draw(softness: str, material: Material, seeds: range, attributes: dict[str, Tensor] | None) -> Tensor:
            return mitsuba_scene.draw(mi, surface, material, side_light(softness), camera, seeds, attributes)

        albedo = {"type": "mesh_attribute", "name": "vertex_albedo"}
        skin = {"vertex_albedo": model.diffuse_mean.clamp(0.0, 1.0)}
        self.diffuse: Callable[[str, int], Tensor] = cache(
            lambda softness, seeds: draw(softness, diffuse(albedo), range(seeds), skin)
        )
        self.specular: Callable[[str, float], Tensor] = cache(
            lambda softness, roughness: draw(softness, rough_dielectric(roughness), range(10, 12), None)
        )


@pytest.fixture(scope="module")
def mi() -> ModuleType:
    return mitsuba_scene.load_mitsuba()


@pytest.fixture(scope="module")
def ball(mi: ModuleType) -> Studio:
    model = ellipsoid(90.0, 90.0, 90.0)
    return Studio(mi, portrait(model, 620.0, 2.3), model)


@pytest.fixture(scope="module")
def head(mi: ModuleType) -> Studio:
    """A person drawn from the open head, who has a nose, brows and ears that cast shadows."""
    model = load_model(default_model_folder())
    shape = 0.8 * torch.randn(1, len(model.shape_basis), generator=torch.Generator().manual_seed(3))
    return Studio(mi, portrait(model, 1000.0, 3.4, shape), model)


@pytest.fixture(scope="module")
def transport(head: Studio) -> Transport:
    return Transport.of(head.scene.vertices_model(head.model), head.model.triangles, BANDS)


def held(row: str, error: float, bound: float) -> None:
    """Say an error and hold it to its bound."""
    print(f"| {row} | {100 * error:.2f}% | ≤ {100 * bound:g}% |")
    assert error <= bound


def test_mitsuba_sees_the_light_where_it_is(mi: ModuleType):
    """Pins the axes and the lookup of the environment: without this no other error means anything."""
    radiance = 0.1 * torch.randn(BANDS**2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    radiance[0] = 10.0
    bitmap = mi.Bitmap(mitsuba_scene.environment(radiance).astype("float32"))
    emitter = mi.load_dict({"type": "envmap", "bitmap": bitmap})
    directions = normalize(torch.randn(30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=-1)
    found = []
    for direction in directions.tolist():
        interaction = mi.SurfaceInteraction3f()
        interaction.wi = mi.Vector3f([-part for part in direction])
        found.append(torch.from_numpy(np.array(emitter.eval(interaction), np.float64).ravel()))
    torch.testing.assert_close(torch.stack(found), sh_basis(directions, BANDS) @ radiance, atol=1e-3, rtol=0)


@pytest.mark.parametrize("softness", SOFTNESS)
def test_diffuse_convex_shape(mi: ModuleType, softness: str):
    """All 81 coefficients count."""
    model = coated(ellipsoid(75.0, 110.0, 90.0), 0.5, 0.0, 0.5)
    studio = Studio(mi, portrait(model, 620.0, 2.3), model)
    ours = drawn(studio.scene, model, side_light(softness))
    error = relative_rmse(ours.image, studio.diffuse(softness, 4), ours.inside)
    held(f"diffuse, convex shape, {softness}", error, 0.0025)


@pytest.mark.parametrize("softness", SOFTNESS)
def test_diffuse_head_shades_itself(head: Studio, transport: Transport, softness: str):
    model = coated(head.model, head.model.diffuse_mean, 0.0, HEAD_ROUGHNESS)
    light, references = side_light(softness), head.diffuse(softness, 2)
    shaded, bare = drawn(head.scene, model, light, transport), drawn(head.scene, model, light)
    seen = shaded.inside & (shaded.facing > 0.2)
    error, without = (relative_rmse(picture.image, references, seen) for picture in (shaded, bare))
    held(f"head, self-shadowed diffuse, {softness}", error, 0.025)
    held(f"head, its share of the unshadowed error ({100 * without:.1f}%), {softness}", error / without, 0.2)
    blocked = 1.0 - drawn(head.scene, model, constant_light(1.0), transport).illumination[..., 0]
    for low, high in ((0.02, 0.05), (0.05, 0.15), (0.15, 0.3), (0.3, 1.0)):
        part = seen & (blocked > low) & (blocked <= high)
        error, without = (relative_rmse(picture.image, references, part) for picture in (shaded, bare))
        row = f"the same where {low:.0%} to {high:.0%} is blocked ({int(part.sum())} px, unshadowed {without:.1%}), {softness}"
        held(row, error / without, 0.2)


@pytest.mark.parametrize("softness", SOFTNESS)
@pytest.mark.parametrize("roughness", ROUGHNESS)
def test_specular_sphere(ball: Studio, roughness: float, softness: str):
    ours = drawn(ball.scene, coated(ball.model, 0.0, 1.0, roughness), side_light(softness))
    error = relative_rmse(ours.image, ball.specular(softness, roughness), ours.inside)
    bounds = {"soft": {0.3: 0.03, 0.5: 0.06, 0.8: 0.06}, "hard": {0.3: 0.12, 0.5: 0.12, 0.8: 0.12}}
    held(f"GGX alone, sphere, r = {roughness}, {softness}", error, bounds[softness][roughness])


@pytest.mark.parametrize("softness", SOFTNESS)
@pytest.mark.parametrize("roughness", ROUGHNESS)
def test_specular_head(head: Studio, transport: Transport, roughness: float, softness: str):
    model = coated(head.model, 0.0, 1.0, roughness)
    ours = drawn(head.scene, model, side_light(softness), transport)
    error = relative_rmse(ours.image, head.specular(softness, roughness), ours.inside)
    held(f"GGX alone, head, r = {roughness}, {softness}", error, 0.12 if roughness == 0.3 else 0.1)


@pytest.mark.parametrize("softness", SOFTNESS)
def test_skin_head(head: Studio, transport: Transport, softness: str):
    """Diffuse and specular together, with all of the specular weight."""
    model = coated(head.model, head.model.diffuse_mean, 1.0, HEAD_ROUGHNESS)
    ours = drawn(head.scene, model, side_light(softness), transport)
    references = head.diffuse(softness, 2) + head.specular(softness, HEAD_ROUGHNESS)
    held(f"diffuse + specular, head, {softness}", relative_rmse(ours.image, references, ours.inside), 0.03)


def test_furnace(ball: Studio):
    """Under a constant light of 1 no lobe returns more than it may: diffuse its albedo, specular at most all."""
    white = constant_light(1.0)
    returned = drawn(ball.scene, coated(ball.model, 0.37, 0.0, 0.5), white)
    torch.testing.assert_close(returned.image[returned.inside], torch.full_like(returned.image[returned.inside], 0.37))
    for roughness in ROUGHNESS:
        mirrored = drawn(ball.scene, coated(ball.model, 0.0, 1.0, roughness), white)
        assert 0.0 < mirrored.image[mirrored.inside].min() and mirrored.image[mirrored.inside].max() <= 1.0
