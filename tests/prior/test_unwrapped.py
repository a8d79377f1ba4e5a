"""Maps of the training people: seen in crops they are the crops that the generator draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from nextface.morphable.model import MorphableModel
from nextface.prior.crops import YAWS
from nextface.prior.data.faces import FaceDrawer, Faces
from nextface.prior.data.heads import BANDS, Heads, Views, draw_shape, see
from nextface.prior.data.lights import draw_lights
from nextface.prior.data.noise import NoiseVolume
from nextface.prior.data.people import People, draw_people
from nextface.prior.data.unwrapped import unwrapped
from nextface.prior.data.zones import FaceZones
from nextface.prior.encoding import Encoding
from nextface.prior.templates import Templates
from nextface.prior.views import CropViews, crop_scenes
from nextface.rendering.bake import uv_fragments
from nextface.rendering.transport import COARSE_DIRECTIONS, Transport
from nextface.textures import channels

SIZE = 128


@pytest.fixture(scope="module")
def skin(head: MorphableModel) -> tuple[People, FaceZones, NoiseVolume]:
    """Of three people: light, with the densest beard, dark."""
    drawn = torch.Generator().manual_seed(8)
    zones, noise = FaceZones.of(head), NoiseVolume.make(drawn)
    people = draw_people(200, zones, drawn)
    chosen = torch.stack([people.melanin.argmin(), people.beard.argmax(), people.melanin.argmax()])
    return people.rows(chosen), zones, noise


@pytest.fixture(scope="module")
def maps(head: MorphableModel, skin: tuple[People, FaceZones, NoiseVolume]) -> Tensor:
    people, zones, noise = skin
    return unwrapped(people, zones, noise, head, 256)


@pytest.fixture(scope="module")
def templates(head: MorphableModel, maps: Tensor) -> Templates:
    shape = draw_shape(head, torch.Generator().manual_seed(9))
    return Templates.of_maps(head, shape.expand(len(maps), -1), maps)


@pytest.fixture(scope="module")
def lights() -> Tensor:
    return draw_lights(3, BANDS, torch.Generator().manual_seed(10))


@pytest.fixture(scope="module")
def faces(
    head: MorphableModel, skin: tuple[People, FaceZones, NoiseVolume], templates: Templates, lights: Tensor
) -> Faces:
    """By the generator, each person from each side: row 3 · person + view."""
    people, zones, noise = skin
    scenes = crop_scenes(templates.scene(0, head), head, "tight", SIZE, YAWS)
    transport = Transport.of_head(scenes.select(0), head, COARSE_DIRECTIONS)
    seen = [see(scenes.select(k), head, transport, 0) for k in range(3)]
    views = Views(*(torch.cat([getattr(each, name) for each in seen]) for name in Views.__dataclass_fields__))
    heads = Heads(transport.irradiance.half(), transport.normals.half(), views, 1, 1, SIZE)
    drawer = FaceDrawer.of(heads, zones, noise, head)
    person, view = torch.arange(9) // 3, torch.arange(9) % 3
    return drawer.draw(view, people.rows(person), lights[person], torch.zeros(9), torch.zeros(9, 2))


def smooth(crops: Tensor) -> Tensor:
    """Means of 3 × 3 pixels: one ray a pixel sees more grain than nine."""
    return avg_pool2d(crops, 3, 1, 1)


def test_crops_of_the_maps_are_those_that_the_generator_draws(
    head: MorphableModel, maps: Tensor, templates: Templates, faces: Faces
):
    views = CropViews.of(templates.scene(0, head), head, "tight", SIZE)
    for person in range(len(maps)):
        rows = slice(3 * person, 3 * person + 3)
        found = views.crops(maps[person])
        assert torch.equal(views.covered, faces.covered[rows])
        plain = (smooth(faces.skin[rows]) > 0.999) & (views.steady > 0.0) & (views.facing > 0.3)
        for name, where in channels().items():
            drawn = (faces.slopes if name == "normal" else getattr(faces, name))[rows]
            ours, theirs = (smooth(each)[plain.expand_as(each)] for each in (found[:, where], drawn))
            spread = theirs.std()
            error = (ours - theirs).square().mean().sqrt()
            assert float(torch.corrcoef(torch.stack([ours, theirs]))[0, 1]) > 0.93, (person, name)
            assert float(error) < 0.37 * float(spread), (person, name, float(error / spread))
            assert abs(float(ours.mean() - theirs.mean())) < 0.03 * float(theirs.abs().mean() + spread), (person, name)


def test_a_template_s_photo_is_the_generator_s(
    head: MorphableModel, templates: Templates, faces: Faces, lights: Tensor
):
    encoding = Encoding()
    for person in (0, 2):
        found = templates.photos(person, head, lights[person : person + 1], encoding)
        expected = encoding.encode("shared", faces.photo[3 * person : 3 * person + 1])
        inside = (smooth(faces.skin[3 * person : 3 * person + 1]) > 0.999).expand_as(found)
        error = (smooth(found) - smooth(expected))[inside]
        assert float(error.abs().median()) < 0.03 and float(error.square().mean().sqrt()) < 0.08, person


def test_only_between_the_islands_are_texels_filled(head: MorphableModel, skin: tuple[People, FaceZones, NoiseVolume]):
    people, zones, noise = skin
    one = people.rows(torch.tensor([1]))
    small = unwrapped(one, zones, noise, head, 64)
    assert small.shape == (1, 64, 64, 7) and bool(torch.isfinite(small).all())
    pixels = uv_fragments(head, 64).pixels
    covered = torch.zeros(64, 64, dtype=torch.bool)
    covered[pixels.row, pixels.column] = True
    inside, outside = small[0][covered], small[0][~covered]
    assert len(outside) > 50
    assert bool((outside >= inside.amin(0) - 1e-5).all() and (outside <= inside.amax(0) + 1e-5).all())


def test_people_do_not_depend_on_their_company(maps: Tensor, head: MorphableModel, skin):
    people, zones, noise = skin
    alone = unwrapped(people.rows(torch.tensor([2])), zones, noise, head, 256)
    assert torch.allclose(alone[0], maps[2], atol=1e-5)
