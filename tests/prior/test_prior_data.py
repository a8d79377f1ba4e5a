"""The generated training faces: repeatable, within range, the same skin in every view, lit as the renderer lights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from devices import cuda, pretended, twins
from scipy.spatial import cKDTree

from nextface.color import luminance
from nextface.errors import ConfigError
from nextface.prior.crops import YAWS
from nextface.prior.data.faces import FaceDrawer, Faces
from nextface.prior.data.heads import BANDS, Heads, bent, crop_scene, draw_expression, draw_shape, see
from nextface.prior.data.lights import draw_lights, environments
from nextface.prior.data.mending import Chances, corrupted, random_masks
from nextface.prior.data.noise import SIDE, NoiseVolume, look_up, look_up_torch
from nextface.prior.data.people import draw_people
from nextface.prior.data.pigments import skin_colour
from nextface.prior.data.skin import Skin
from nextface.prior.data.source import FacesSettings, GeneratedFaces
from nextface.prior.data.zones import FaceZones
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS
from nextface.rendering.backend import rasterizer_for
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import fragments
from nextface.rendering.normals import vertex_normals
from nextface.rendering.render import render, to_view
from nextface.rendering.sh import irradiance
from nextface.rendering.tangents import pixel_frames
from nextface.rendering.transport import COARSE_DIRECTIONS, Transport

SIZE = 64
SMALL = FacesSettings(batch=10, crops_per_face=5, people=40, identities=2, expressions=1, seed=3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def source(head) -> GeneratedFaces:
    return GeneratedFaces(head, SMALL, Encoding(image_size=SIZE))


@pytest.fixture(scope="module")
def faces(source) -> Faces:
    """24 people, one after the other in the bank's views."""
    count = 24
    people = source.people.rows(torch.arange(count))
    rows = torch.arange(count) % len(source.drawer.heads.views.head)
    return source.drawer.draw(
        rows, people, draw_lights(count, BANDS, generator(1)), torch.zeros(count), torch.zeros(count, 2)
    )


def test_the_same_seed_gives_the_same_batches(head, source):
    again = GeneratedFaces(head, SMALL, Encoding(image_size=SIZE))
    source.load_state_dict({"number": torch.tensor(0)})
    first, second = next(source), next(source)
    assert torch.equal(first.image, next(again).image) and torch.equal(second.image, next(again).image)
    assert not torch.equal(first.image, second.image)
    state = source.state_dict()
    third = next(source)
    again.load_state_dict(state)
    resumed = next(again)
    assert torch.equal(resumed.image, third.image) and torch.equal(resumed.identity, third.identity)


@pytest.mark.parametrize("on", [twins, pretended, cuda])
def test_every_device_draws_the_same(on: Callable, head, source):
    settings = replace(SMALL, identities=1, partners=True, corrupted=True)
    expected = next(GeneratedFaces(head, settings, Encoding(image_size=32)))
    with on() as device:
        found = next(GeneratedFaces(head, settings, Encoding(image_size=32), device))
        assert {getattr(found, name).device.type for name in ("image", "mask", "partner")} == {
            torch.device(device).type
        }
        pictures = [(getattr(found, name).cpu(), getattr(expected, name)) for name in ("image", "corrupted", "partner")]
    for ours, theirs in pictures:
        # Single pixels may see another triangle through another rasterizer.
        assert (ours - theirs).abs().flatten().quantile(0.99) < (0.05 if on is cuda else 2e-3)


def test_shards_are_together_the_whole_batch(source):
    source.load_state_dict({"number": torch.tensor(5)})
    parts = [source.shard(rank, 2) for rank in (0, 1)]
    whole, halves = next(source), [next(part) for part in parts]
    assert torch.equal(torch.cat([half.domain for half in halves]), whole.domain)
    assert torch.allclose(torch.cat([half.image for half in halves]), whole.image, atol=1e-5)
    with pytest.raises(ConfigError, match="3 processes"):
        source.shard(0, 3)


def test_a_batch_is_as_the_settings_want_it(source):
    source.settings, before = replace(SMALL, partners=True, corrupted=True), source.settings
    batch = next(source)
    source.settings = before
    assert batch.image.shape == batch.partner.shape == batch.corrupted.shape == (10, 3, SIZE, SIZE)
    assert sorted(batch.domain[:5].tolist()) == [0, 1, 2, 3, 4], "five different domains of one face"
    assert batch.identity[0] == batch.identity[4]
    assert batch.image.abs().max() <= 1.0 and batch.corrupted.abs().max() <= 1.0
    assert (batch.image * (1.0 - batch.mask)).abs().max() == 0.0, "mid-grey where the crop is not known"
    grey = (batch.domain == DOMAINS.index("specular")) | (batch.domain == DOMAINS.index("roughness"))
    assert torch.equal(batch.image[grey][:, 0], batch.image[grey][:, 2])
    photos = batch.domain == 0
    assert torch.equal(batch.corrupted[photos], batch.image[photos])
    assert (batch.corrupted - batch.image)[~photos].abs().mean() > 0.02


def test_exchanged_skin_leaves_all_else(source):
    """Masks, heads, light and noise are the image's; the skin is the stranger's."""
    source.load_state_dict({"number": torch.tensor(11)})
    source.settings, before = replace(SMALL, strangers=True), source.settings
    batch = next(source)
    source.settings = before
    assert batch.partner is None and batch.stranger.shape == batch.exchanged.shape == batch.image.shape
    assert torch.equal(batch.stranger[0], batch.stranger[4]), "one photo for all crops of a face"
    assert not torch.equal(batch.stranger[0], batch.stranger[5])
    assert (batch.exchanged * (1.0 - batch.mask)).abs().max() == 0.0
    difference = (batch.exchanged - batch.image).abs().mean((1, 2, 3))
    assert (difference > 0.01).any(), "of few people some strangers are the person itself"
    same = (batch.exchanged == batch.image).all(1).float().mean((1, 2))
    assert (same > 0.05).all(), "what is no skin is the same"


@pytest.mark.parametrize(
    "change", [{"batch": 9}, {"people": 0}, {"weights": (1.0,)}, {"weights": (1.0, 0.0, 0.0, 0.0, 0.0)}]
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ConfigError):
        replace(SMALL, **change)


def test_about_half_of_the_crops_are_masked(source):
    source.load_state_dict({"number": torch.tensor(100)})
    shares = []
    for _ in range(20):
        batch = next(source)
        shares += [float(share) for share in (batch.mask[batch.domain == 0] < 0.5).flatten(1).any(1)]
    assert 0.3 < sum(shares) / len(shares) < 0.7


def test_values_are_in_range_and_varied(faces):
    skin = faces.skin > 0.9
    for name, low, high in (("diffuse", 0.003, 0.96), ("specular", 0.0, 1.0), ("roughness", 0.1, 1.0)):
        values = getattr(faces, name)
        inside = values[skin.expand_as(values)]
        assert low <= inside.min() and inside.max() <= high, name
        per_face = (values * skin).sum((1, 2, 3)) / skin.sum((1, 2, 3))
        assert per_face.std() > 0.03, name
    length = faces.normal.norm(dim=1)[faces.covered[:, 0] > 0]
    assert torch.allclose(length, torch.ones_like(length), atol=1e-3)
    assert (faces.slopes.abs()[skin.expand(-1, 2, -1, -1)] < 1.5).all()
    # Relief turns normals by a few degrees, seldom by many.
    cosine = (faces.normal * faces.mesh_normal).sum(1)[skin[:, 0]]
    assert 0.95 < cosine.mean() < 0.9999 and torch.quantile(cosine, 0.01) > 0.8
    assert torch.isfinite(faces.photo).all() and faces.photo.min() >= 0.0
    brightness = luminance(faces.photo.movedim(1, -1))[skin[:, 0]]
    assert 0.08 < brightness.median() < 0.5


def test_all_skin_types_are_drawn(head, source):
    """Typology angles from very light to dark, none rare."""
    from benchmarks.metrics import skin_type, typology_angle

    people = draw_people(2000, FaceZones.of(head), generator(2))
    colours = skin_colour(people.melanin[None], people.blood[None])[0].T
    kinds = [skin_type(float(angle)) for angle in typology_angle(colours)]
    for kind in ("very light", "light", "intermediate", "tan", "brown", "dark"):
        assert 0.06 < kinds.count(kind) / len(kinds) < 0.45, kind


def test_skin_is_the_same_in_every_view(head):
    """Where two views see the same place of the head they see the same skin."""
    drawn = generator(5)
    zones = FaceZones.of(head)
    heads = Heads.make(head, 1, 1, "tight", 128, drawn)
    drawer = FaceDrawer.of(heads, zones, NoiseVolume.make(drawn), head)
    people = draw_people(3, zones, drawn).rows(torch.tensor([2, 2, 2]))
    views = torch.arange(len(YAWS))
    found = drawer.draw(views, people, draw_lights(3, BANDS, drawn), torch.zeros(3), torch.zeros(3, 2))
    rest = drawer._at_pixels(heads.views, zones.vertices[None, :, :3], head.triangles)
    places = [rest[k][found.skin[k].flatten() > 0.99].numpy() for k in range(3)]
    values = [
        torch.cat([found.diffuse, found.specular, found.roughness, found.slopes], 1)[k]
        .flatten(1)
        .T[found.skin[k].flatten() > 0.99]
        for k in range(3)
    ]
    for other in (1, 2):
        distance, nearest = cKDTree(places[0]).query(places[other])
        same = torch.from_numpy(distance < 0.15)
        assert same.sum() > 40
        difference = (values[0][torch.from_numpy(nearest)] - values[other])[same].abs().median(0).values
        assert (difference < 0.12 * values[0].std(0)).all(), difference / values[0].std(0)


def test_lit_as_the_renderer_lights(head):
    """The same skin, light and camera by `render` with shadows, by code that shares only the shading with ours."""
    drawn = generator(9)
    shape, expression = draw_shape(head, drawn), draw_expression(head, drawn)
    scene = crop_scene(head, shape, expression, 30.0, "tight", SIZE, drawn)
    scene = replace(scene, light=draw_lights(1, BANDS, drawn))
    transport = Transport.of_head(scene, head, COARSE_DIRECTIONS)
    expected = render(scene, head, transport=transport)
    heads = Heads(transport.irradiance.half(), transport.normals.half(), see(scene, head, transport, 0), 1, 1, SIZE)
    drawer = FaceDrawer.of(heads, FaceZones.of(head), NoiseVolume.make(drawn), head)
    channels = torch.cat([head.diffuse(scene.albedo), head.specular(scene.albedo), head.roughness_mean[None]], -1)
    values = drawer._at_pixels(heads.views, channels.clamp(0.0, 1.0), head.triangles).mT
    skin = Skin(values[:, :3], values[:, 3:4], values[:, 4:].clamp_min(0.05), values.new_zeros(1, 2, SIZE * SIZE))
    found = drawer.lit(heads.views, skin, torch.ones(1, SIZE * SIZE), scene.light, torch.zeros(1), torch.zeros(1, 2))
    assert torch.equal(found.covered[0, 0] > 0, expected.mask[0])
    mask = expected.mask[0]
    gain = (found.shading[0].movedim(0, -1)[mask].sum() / expected.illumination[0][mask].sum()).item()
    white = found.shading[0].movedim(0, -1)[mask] / gain - expected.illumination[0][mask]
    assert white.square().mean().sqrt() < 2e-3 * expected.illumination[0][mask].square().mean().sqrt()
    # At silhouettes within the head `render` alone blends pixels.
    error = (found.photo[0].movedim(0, -1)[mask] / gain - expected.image[0][mask]).abs().amax(1)
    assert torch.quantile(error, 0.94) < 2e-3 * expected.image[0][mask].mean()
    normal = found.normal[0].movedim(0, -1)[mask] @ scene.head_rotation()[0].T
    assert (normal * expected.normal[0][mask]).sum(-1).min() > 0.9999


def test_relief_bends_normals_as_the_renderer_does(head):
    drawn = generator(11)
    scene = crop_scene(head, draw_shape(head, drawn), draw_expression(head, drawn), -40.0, "ffhq", SIZE, drawn)
    views = see(scene, head, Transport.of_head(scene, head, 8), 0)
    vertices, camera = scene.vertices_camera(head), Camera.of(scene)
    pixels = rasterizer_for(vertices.device).visible_triangles(vertices, head.triangles, camera)
    covered = fragments(vertices, head.triangles, pixels, camera)
    in_view = to_view(vertices)
    frames = pixel_frames(covered, in_view, vertex_normals(in_view, head.triangles), head)
    slopes = torch.randn(1, 2, SIZE * SIZE, generator=drawn) * 0.3
    expected = frames.bend(pixels.pack(slopes.mT.unflatten(1, (SIZE, SIZE))))
    found = bent(views, slopes).unflatten(1, (SIZE, SIZE)) @ scene.head_rotation().mT
    assert (pixels.pack(found) - expected).abs().max() < 5e-3


def test_crops_are_aligned(head):
    """The five points lie within a detector's error of the template in every view's crop."""
    from nextface.prior.crops import TEMPLATE, WINDOWS, model_points

    x, y, side = WINDOWS["tight"]
    wanted = (torch.tensor(TEMPLATE) - torch.tensor([x - side / 2, y - side / 2])) / side
    drawn = generator(4)
    for yaw in YAWS:
        scene = crop_scene(head, draw_shape(head, drawn), draw_expression(head, drawn), yaw, "tight", 100, drawn)
        points = model_points(head, scene.vertices_camera(head), Camera.of(scene))[0] / 100
        assert (points.mean(0) - wanted.mean(0)).norm() < 0.08
        assert (points - wanted).norm(dim=1).mean() < 0.16


def test_lights_light_the_face():
    lights = draw_lights(200, BANDS, generator(3))
    ahead = irradiance(torch.tensor([[0.0, 0.0, 1.0]]).expand(200, 3), lights, torch.arange(200)).mean(1) / torch.pi
    assert 0.85 < ahead.median() < 1.15 and ahead.min() > 0.3 and ahead.max() < 3.0
    assert len(environments(BANDS)) == 11


def test_noise_twin_and_period():
    volume = NoiseVolume.make(generator(1))
    places = torch.rand(2, 3, 500, generator=generator(2)) * 100 - 50
    fast, slow = look_up(volume.fields, places), look_up_torch(volume.fields, places)
    assert torch.allclose(fast, slow, atol=2e-4)
    assert torch.allclose(look_up(volume.fields, places + 3 * SIDE), fast, atol=1e-3)
    corner = look_up(volume.fields, torch.tensor([[[5.0], [7.0], [31.0]]]))
    assert torch.equal(corner[0, :, 0], volume.fields[5, 7, 31])


def test_noise_has_unit_variance_and_its_own_gradient():
    volume = NoiseVolume.make(generator(1))
    assert torch.allclose(volume.fields[..., :4].flatten(0, 2).std(0), torch.ones(4), atol=0.01)
    along_x = volume.fields[..., 4]
    # The gradient of a periodic field sums to nothing, and is as curl-free as differences can tell.
    assert along_x.mean().abs() < 1e-5
    mixed = volume.fields[..., 4].roll(-1, 1) - volume.fields[..., 4].roll(1, 1)
    other = volume.fields[..., 5].roll(-1, 0) - volume.fields[..., 5].roll(1, 0)
    assert (mixed - other).std() < 0.35 * mixed.std()


def test_pigments_darken_and_redden():
    melanin, blood = torch.tensor([[-5.0, -3.0, -1.0]]), torch.full((1, 3), -4.0)
    colours = skin_colour(melanin, blood)[0]
    assert (colours.diff(dim=1) < 0).all()
    flushed = skin_colour(melanin, blood + 1.0)[0]
    assert (flushed[0] / flushed[1] > colours[0] / colours[1]).all()


def test_masks_are_parts_of_the_head(faces):
    chances = Chances.draw(24, generator(8))
    masks = random_masks(faces, chances)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert (masks * (1.0 - faces.covered)).sum() == 0.0
    shares = masks.sum((1, 2, 3)) / faces.covered.sum((1, 2, 3))
    assert 0.3 < shares.mean() < 0.95 and shares.std() > 0.08


@pytest.mark.parametrize("domain", ["diffuse", "specular", "roughness", "normal"])
def test_corruption_is_moderate(domain, faces):
    chances = Chances.draw(24, generator(8))
    clean, spoilt = getattr(faces, domain), corrupted(domain, faces, chances)
    assert spoilt.shape == clean.shape and torch.isfinite(spoilt).all()
    core = (faces.skin > 0.9).expand_as(clean)
    error = (spoilt - clean)[core].square().mean().sqrt()
    detail = (clean - faces.mesh_normal)[core].std() if domain == "normal" else clean[core].std()
    assert 0.2 < error / detail < 2.0
    if domain == "diffuse":
        shading = luminance(faces.shading.movedim(1, -1))[:, None].clamp_min(0.02).log()
        ratio = (luminance(spoilt.movedim(1, -1)) / luminance(clean.movedim(1, -1)).clamp_min(1e-3))[:, None]
        pair = torch.stack([shading[faces.skin > 0.9], ratio[faces.skin > 0.9].clamp_min(1e-2).log()])
        assert torch.corrcoef(pair)[0, 1] > 0.3, "shading is left in the albedo"
