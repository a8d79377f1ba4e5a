"""Heads laid out in one picture: what lies where, what is hidden, there and back, and that training and use see the same."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from devices import pretended
from known_prior import save_constant_prior
from scipy.spatial import cKDTree
from synthetic_photo import known_scene, portrait_of
from torch import Tensor
from toy import toy_model
from training_data import SIZES

from nextface.config import OptimConfig
from nextface.errors import ConfigError, InputError
from nextface.fitting.maps import fit_maps
from nextface.fitting.progress import Progress
from nextface.morphable.model import MorphableModel
from nextface.morphable.open_head import read_open_head
from nextface.paths import default_model_folder
from nextface.prior.crops import LAYOUTS, TEMPLATE, YAWS, alignment
from nextface.prior.data.faces import FaceDrawer
from nextface.prior.data.heads import BANDS, Heads, draw_heads
from nextface.prior.data.lights import draw_lights
from nextface.prior.data.noise import NoiseVolume
from nextface.prior.data.people import draw_people
from nextface.prior.data.source import FacesSettings, GeneratedFaces
from nextface.prior.data.unwrapped import unwrapped
from nextface.prior.data.zones import FaceZones
from nextface.prior.encoding import Encoding
from nextface.prior.layouts import AXIS_MM, BOTTOM_MM, REACH, SQUARE, TOP_MM, Placed, laid_out
from nextface.prior.projection import Projection
from nextface.prior.train.loop import train
from nextface.prior.train.sizes import Sizes
from nextface.prior.train.sources import open_source
from nextface.prior.views import CropViews
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import Fragments, interpolate
from nextface.rendering.raster import VisiblePixels
from nextface.scene import Scene
from nextface.textures import channels
from nextface.train_config import TrainSettings

SIZE = 64
CONFIG = OptimConfig(device="cpu", texture_resolution=256, prior_every=2, self_shadowing=False)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scene(head: MorphableModel) -> Scene:
    return known_scene(head, seed=3, yaw=25.0)


@pytest.fixture(scope="module")
def views(scene: Scene, head: MorphableModel) -> dict[str, CropViews]:
    return {layout: CropViews.of(scene, head, layout, SIZE) for layout in LAYOUTS}


def centres(seen: Fragments) -> Tensor:
    """Of the covered pixels, as shares of the picture's side, x and y. [P, 2]"""
    return (torch.stack([seen.pixels.column, seen.pixels.row], 1) + 0.5) / seen.pixels.width


def test_the_cylinder_shows_angles_and_heights(scene: Scene, head: MorphableModel):
    placed = laid_out("cylinder", scene.vertices_model(head), head, SIZE)
    seen = placed.seen(head)
    assert len(seen) == SIZE * SIZE
    x, y, z = seen.interpolate(placed.heads).unbind(1)
    across, down = centres(seen).unbind(1)
    angle = (across - 0.5) * 2.0 * REACH
    # Triangles are flat, so angles within them are not linear; near the axis' poles there are none.
    assert float((torch.atan2(x, z - AXIS_MM) - angle).abs().max()) < math.radians(0.6)
    assert float((y - (TOP_MM - down * (TOP_MM - BOTTOM_MM))).abs().max()) < 0.01


def test_of_overlapping_parts_the_cylinder_shows_the_outermost(scene: Scene, head: MorphableModel):
    """Against rays from the axis outwards, cut with every triangle (Möller and Trumbore 1997)."""
    placed = laid_out("cylinder", scene.vertices_model(head), head, SIZE)
    seen = placed.seen(head)
    corners = placed.heads[0][head.triangles].double()
    edge, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    hidden = agreed = 0
    for pixel in torch.randperm(len(seen), generator=generator())[:60].tolist():
        across, down = centres(seen)[pixel].tolist()
        angle = (across - 0.5) * 2.0 * REACH
        start = torch.tensor([0.0, TOP_MM - down * (TOP_MM - BOTTOM_MM), AXIS_MM], dtype=torch.float64)
        ray = torch.tensor([math.sin(angle), 0.0, math.cos(angle)], dtype=torch.float64).expand_as(edge)
        across_ray = torch.linalg.cross(ray, other)
        volume = (edge * across_ray).sum(1)
        offset = start - corners[:, 0]
        u = (offset * across_ray).sum(1) / volume
        turned = torch.linalg.cross(offset, edge)
        v, reach = (ray * turned).sum(1) / volume, (other * turned).sum(1) / volume
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (reach > 0)
        hidden += int(hit.sum()) > 1
        place = seen.interpolate(placed.heads)[pixel]
        agreed += abs(float(reach[hit].max()) - math.hypot(place[0], place[2] - AXIS_MM)) < 0.5
    assert hidden > 10  # the mouth's lining and the eyes' sockets lie behind
    assert agreed >= 58  # a ray beside an edge may pass on its other side: triangles are drawn with straight sides


def test_the_unwrap_shows_its_own_places_whatever_the_head(scene: Scene, head: MorphableModel):
    placed = laid_out("unwrap", scene.vertices_model(head), head, SIZE)
    seen = placed.seen(head)
    uv = interpolate(head.uv[None], seen.pixels.image, head.uv_triangles[seen.pixels.triangle], seen.barycentric)
    u, v, side = SQUARE
    x, y = centres(seen).unbind(1)
    expected = torch.stack([u + (x - 0.5) * side, v - (y - 0.5) * side], 1)
    assert float((uv - expected).abs().max()) < 1e-4
    mean = laid_out("unwrap", head.mean[None], head, SIZE).seen(head)
    assert torch.equal(mean.pixels.triangle, seen.pixels.triangle)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_shift_moves_the_picture(layout: str, scene: Scene, head: MorphableModel):
    heads = scene.vertices_model(head)
    still, moved = (laid_out(layout, heads, head, SIZE, torch.tensor([shift])) for shift in ((0.0, 0.0), (3.0, -2.0)))
    pictures = [each.seen(head).pixels.unpack(each.seen(head).interpolate(each.heads))[0] for each in (still, moved)]
    difference = (pictures[0][2:, :-3] - pictures[1][:-2, 3:]).norm(dim=-1)
    assert float(difference.quantile(0.999)) < 0.05


def test_squeezed_surface_counts_less():
    """Two triangles of 1 mm: one drawn at 2 × 2 pixels, one at 6 × 0.5; the inner side of the latter's twin is outermost."""
    solid = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    wide, tall = (
        torch.tensor([[0.0, 0, 1], [2, 0, 1], [0, -2, 1]]),
        torch.tensor([[0.0, 0, 1], [6, 0, 1], [0, -0.5, 1]]),
    )
    corners = torch.arange(9).view(3, 3)
    camera = Camera(torch.ones(1), torch.zeros(1, 2), 3, 1)
    placed = Placed(torch.cat([wide, tall, tall[[0, 2, 1]]])[None], corners, camera, solid.repeat(3, 1)[None], None)
    pixels = VisiblePixels.of(torch.tensor([[[0], [1], [2]]]))
    facing = placed.facing(Fragments(pixels, corners, torch.full((3, 3), 1.0 / 3.0)), None)  # type: ignore[arg-type]
    torch.testing.assert_close(facing[:, 0], torch.tensor([1.0, 1.0, -1.0]))
    two = Fragments(
        VisiblePixels.of(torch.tensor([[[0], [0], [1]]])), corners[[0, 0, 1]], torch.full((3, 3), 1.0 / 3.0)
    )
    torch.testing.assert_close(placed.facing(two, None)[:, 0], torch.tensor([1.0, 1.0, 0.25]))  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_skin_faces_outwards_and_is_steady(layout: str, views: dict[str, CropViews], head: MorphableModel):
    own = views[layout]
    assert own.count == 1 and own.facing.shape == (1, 1, SIZE, SIZE)
    skin = own.draw(head.regions["skin"][:, None]) > 0.99
    assert float(own.facing.max()) == 1.0
    assert float((own.facing[skin] > 0.3).float().mean()) > 0.95
    assert float((own.facing[skin] < 0.0).float().mean()) < 0.002
    assert float(own.steady[skin].mean()) > 0.97
    middle = (slice(None), slice(None), slice(SIZE // 8, -SIZE // 8), slice(SIZE // 8, -SIZE // 8))
    assert float(own.covered[middle].min()) == 1.0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_maps_go_there_and_back(layout: str, views: dict[str, CropViews]):
    own = views[layout]
    where = torch.linspace(0.0, 6.0, own.resolution)
    maps = torch.stack([where.sin()[:, None].expand(-1, len(where)), where.cos()[None].expand(len(where), -1)], -1)
    found, weight = own.maps(own.crops(maps), own.steady * own.facing.clamp_min(0.0) ** 2)
    sure = weight[..., 0] > 0.3
    assert float(sure.float().mean()) > 0.25  # of the unwrap; the face is half of it
    assert float((found - maps)[sure].abs().max()) < 0.1
    assert float((found - maps)[sure].abs().mean()) < 0.01
    constant = own.crops(torch.full((own.resolution, own.resolution, 1), 0.37))
    assert torch.allclose(constant[own.covered > 0], torch.tensor(0.37), atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_transpose_is_the_adjoint(layout: str, views: dict[str, CropViews]):
    own = views[layout]
    maps = torch.randn(own.resolution, own.resolution, 2, generator=generator(1), dtype=torch.float64).requires_grad_(
        True
    )
    crops = torch.randn(1, 2, SIZE, SIZE, generator=generator(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((own.crops(maps) * crops).sum(), maps)
    torch.testing.assert_close(gradient, own.adjoint(crops))
    step = torch.randn(maps.shape, generator=generator(3), dtype=torch.float64)
    with torch.no_grad():
        change = ((own.crops(maps + step) - own.crops(maps)) * crops).sum()
    assert float(change) == pytest.approx(float((gradient * step).sum()), rel=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_normals_are_the_heads_own(layout: str, views: dict[str, CropViews]):
    own = views[layout]
    bends = 0.3 * torch.randn(1, 2, SIZE, SIZE, generator=generator())
    normals = own.normals(bends)
    torch.testing.assert_close(own.slopes(normals), bends * own.covered, atol=1e-3, rtol=1e-3)
    flat = own.normals(torch.zeros_like(bends))[0]
    assert float(flat[2, SIZE // 6, SIZE // 2]) > 0.8  # the forehead looks out of the face
    assert float(flat[0, SIZE // 2, 3]) < -0.7 and float(flat[0, SIZE // 2, -4]) > 0.7  # right cheek at the left


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_symmetric_head_is_a_symmetric_picture(layout: str, head: MorphableModel):
    rest = replace(
        known_scene(head), shape=torch.zeros(1, len(head.shape_basis)), expression=0 * known_scene(head).expression
    )
    own = CropViews.of(rest, head, layout, SIZE)
    maps = torch.rand(own.resolution, own.resolution, 1, generator=generator())
    maps = torch.nn.functional.avg_pool2d(maps.movedim(-1, 0)[None], 9, 1, 4)[0].movedim(0, -1)
    difference = (own.crops(maps.flip(1)) - own.crops(maps).flip(-1)).abs()
    assert float(difference.flatten().quantile(0.98)) < 0.02 * float(maps.max())


@pytest.fixture(scope="module")
def drawn(head: MorphableModel) -> dict[str, tuple[FaceDrawer, Tensor]]:
    """For each kind of picture a bank with the same head in the same poses, and the places that its pixels see, [3, P, 3]."""
    found = {}
    for crop in ("tight", *LAYOUTS):
        noise = NoiseVolume.make(generator(4))
        zones = FaceZones.of(head)
        heads = Heads.make(head, 1, 1, crop, 96, generator(5))
        drawer = FaceDrawer.of(heads, zones, noise, head)
        found[crop] = drawer, drawer._at_pixels(heads.views, zones.vertices[None, :, :3], head.triangles)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_photos_show_the_same_light_as_a_camera_sees(
    layout: str, drawn: dict[str, tuple[FaceDrawer, Tensor]], head: MorphableModel
):
    """Where a crop before a camera and the layout see the same place, and that place does not look past the camera."""
    people = draw_people(3, FaceZones.of(head), generator(6)).rows(torch.tensor([1, 1, 1]))
    lights = draw_lights(1, BANDS, generator(7)).expand(3, -1, -1)
    pictures = {}
    for crop, (drawer, _) in drawn.items():
        faces = drawer.draw(torch.arange(3), people, lights, torch.zeros(3), torch.zeros(3, 2))
        assert torch.isfinite(faces.photo).all()
        pictures[crop] = faces
    for row in range(len(YAWS)):
        values = {}
        for crop in ("tight", layout):
            faces, (drawer, rest) = pictures[crop], drawn[crop]
            heads = drawer.heads.views
            facing = ((heads.normal.float() @ heads.rotation.mT) * heads.to_viewer.float()).sum(-1)[row]
            kept = (faces.skin[row].flatten() > 0.99) & (facing > 0.4)
            shown = torch.cat([faces.photo, faces.shading], 1)[row].flatten(1).T[kept]
            values[crop] = rest[row][kept].numpy(), shown
        distance, nearest = cKDTree(values["tight"][0]).query(values[layout][0])
        same = torch.from_numpy(distance < 0.3)
        assert int(same.sum()) > 100
        ours, theirs = values[layout][1][same], values["tight"][1][torch.from_numpy(nearest)][same]
        ours = ours * (theirs[:, 3:].mean() / ours[:, 3:].mean())  # the meter sees another part of the skin
        assert float((ours - theirs).abs().median()) < 0.04 * float(theirs.mean())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_and_use_see_the_same_picture(
    layout: str, drawn: dict[str, tuple[FaceDrawer, Tensor]], head: MorphableModel
):
    """A person's maps seen by `CropViews`, and the person drawn in the bank; the bank's pictures are shifted a little."""
    drawer, _ = drawn[layout]
    zones = FaceZones.of(head)
    people = draw_people(3, zones, generator(6)).rows(torch.tensor([1]))
    faces = drawer.draw(
        torch.tensor([0]), people, draw_lights(1, BANDS, generator(7)), torch.zeros(1), torch.zeros(1, 2)
    )
    _, poses = next(draw_heads(head, 1, 1, layout, 96, generator(5)))
    seen = poses[0][0]
    views = CropViews.of(seen, head, layout, 96)
    maps = unwrapped(people, zones, drawer.noise, head, views.resolution)[0]
    crops = views.crops(maps)
    across, down = seen.principal[0].tolist()
    whole = (round(across), round(down))
    made = {name: crops[:, where] for name, where in channels().items()}
    made["normal"] = views.normals(made["normal"])
    inside = (faces.skin > 0.99)[:, :, 12:-12, 12:-12]
    for name in ("diffuse", "specular", "roughness", "normal"):
        moved = made[name].roll((whole[1], whole[0]), (2, 3))
        ours, theirs = (
            part[:, :, 12:-12, 12:-12].movedim(1, -1)[inside[:, 0]] for part in (moved, getattr(faces, name))
        )
        unmoved = made[name][:, :, 12:-12, 12:-12].movedim(1, -1)[inside[:, 0]]
        spread = (theirs - theirs.median(0).values).abs().mean()
        assert float((ours - theirs).abs().mean()) < 0.35 * float(spread), name
        assert whole == (0, 0) or float((ours - theirs).abs().mean()) < float((unmoved - theirs).abs().mean())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_device_draws_the_same(layout: str, head: MorphableModel):
    settings = FacesSettings(batch=5, crops_per_face=5, people=8, identities=1, expressions=1, corrupted=True)
    expected = next(GeneratedFaces(head, settings, Encoding(crop=layout, image_size=32)))
    with pretended() as device:
        found = next(GeneratedFaces(head, settings, Encoding(crop=layout, image_size=32), device))
        pictures = [(getattr(found, name).cpu(), getattr(expected, name)) for name in ("image", "corrupted", "mask")]
    for ours, theirs in pictures:
        assert float((ours - theirs).abs().flatten().quantile(0.99)) < 2e-3


def test_a_photo_cannot_be_laid_out():
    with pytest.raises(ConfigError, match=r"'cylinder'.*priorCheckpoint.*tight or ffhq"):
        alignment(torch.tensor([TEMPLATE]), "cylinder", 64)
    with pytest.raises(ConfigError, match="choose one of tight, ffhq, cylinder, unwrap"):
        Encoding(crop="sphere")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_cannot_be_laid_out(layout: str, crops: Path):
    settings = replace(TrainSettings.of("stage1", "small"), photos=str(crops / "photos"), crop=layout)
    with pytest.raises(ConfigError, match=rf"crop = {layout}.*generated"):
        open_source("stage1", settings, SIZES, torch.device("cpu"))


def test_a_face_that_lies_elsewhere_is_refused(head: MorphableModel):
    with pytest.raises(InputError, match=r"toy head.*crop = tight"):
        laid_out("unwrap", toy_model().mean[None], toy_model(), SIZE)
    with pytest.raises(InputError, match="'cylinder'"):
        higher = replace(head, mean=head.mean + torch.tensor([0.0, 60.0, 0.0]))
        laid_out("cylinder", higher.mean[None], higher, SIZE)


def faces_of_few(stage: str, settings: TrainSettings, sizes: Sizes, device: torch.device) -> GeneratedFaces:
    """The generator of training with one head."""
    encoding = Encoding(
        crop=settings.crop, image_size=sizes.autoencoder.image_size, norm_groups=sizes.autoencoder.norm_groups
    )
    few = FacesSettings(
        settings.batch, people=6, identities=1, expressions=1, corrupted=stage == "denoise", seed=settings.seed
    )
    return GeneratedFaces(read_open_head(default_model_folder() / "open_head.h5"), few, encoding, device)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prior_of_a_layout_is_trained_and_pulls_maps(layout: str, head: MorphableModel, tmp_path: Path):
    (tmp_path / "sizes.json").write_text(json.dumps(SIZES.notes()), encoding="utf-8")
    settings = replace(
        TrainSettings.of("stage1", "small"), crop=layout, sizes=str(tmp_path / "sizes.json"), device="cpu", iterations=12,
        log_every=6, batch=8, perceptual="laplacian", start_batches=2, sample_every=0, learning_rate=3e-3,
    )  # fmt: skip
    weights = train("stage1", settings, tmp_path / "run", source=faces_of_few)
    lines = (tmp_path / "run" / "losses.csv").read_text(encoding="utf-8").splitlines()
    losses = [float(line.split(",")[1]) for line in lines[1:]]
    assert losses[-1] < losses[0]
    projection = Projection.read(weights, torch.device("cpu"))
    assert projection.encoding.crop == layout and min(projection.encoding.noise_floor) > 0.0
    portrait = portrait_of(known_scene(head, seed=1, size=48), head)
    fitted = []
    for weight in (0.0, 20.0):
        weights_of = {f"weight_prior_{name}": weight if name == "diffuse" else 0.0 for name in channels()}
        config = replace(CONFIG, iter_step3=4, prior_checkpoint=str(weights), **weights_of)  # type: ignore[arg-type]
        maps = fit_maps(portrait.truth, portrait.observation, head, config, Progress("maps", 1)).maps
        assert maps is not None
        fitted.append(maps.diffuse.full())
    assert float((fitted[1] - fitted[0]).abs().max()) > 1e-3


def test_a_head_that_cannot_be_laid_out_is_fitted_without(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    model = toy_model()
    prior = save_constant_prior(
        tmp_path / "prior.safetensors", 0.5, Encoding(crop="unwrap", image_size=32, norm_groups=4)
    )
    portrait = portrait_of(known_scene(model, size=48), model)
    config = replace(CONFIG, iter_step3=2, prior_checkpoint=str(prior))
    with caplog.at_level(logging.WARNING):
        fit_maps(portrait.truth, portrait.observation, model, config, Progress("maps", 1))
    assert "toy head" in caplog.text and "without the prior" in caplog.text
