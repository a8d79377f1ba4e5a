"""Heads to swap into: what a file keeps of them, which of them a face is like, and how they look."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from known_prior import ENCODING, SIZE, with_face_points
from PIL import Image
from synthetic_photo import known_scene
from torch import Tensor
from toy_prior import TOY_IDENTITY

from nextface.color import linear_to_srgb
from nextface.errors import InputError
from nextface.morphable.model import MorphableModel
from nextface.prior.data.heads import BANDS
from nextface.prior.data.lights import draw_lights
from nextface.prior.identity import IdentityEncoder
from nextface.prior.templates import STEEPEST, Templates, _unpacked
from nextface.prior.views import CropViews
from nextface.rendering.render import render
from nextface.textures import MAP_CHANNELS, channels

COUNT = 3


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model(toy: MorphableModel) -> MorphableModel:
    return with_face_points(toy)


@pytest.fixture(scope="module")
def maps() -> Tensor:
    """Smooth noise about a tone of each head's own."""
    tone = torch.tensor([[0.5, 0.35, 0.3], [0.2, 0.1, 0.08], [0.05, 0.06, 0.09]])
    maps = torch.rand(COUNT, 64, 64, 7, generator=generator(0)) * 0.2 + 0.4
    maps[..., :3] = tone[:, None, None] * (0.8 + 0.4 * torch.rand(COUNT, 64, 64, 1, generator=generator(1)))
    maps[..., 5:] = torch.randn(COUNT, 64, 64, 2, generator=generator(2)) * 0.2
    return maps


@pytest.fixture(scope="module")
def plain(model: MorphableModel, maps: Tensor) -> Templates:
    """Without embeddings."""
    shape = torch.randn(COUNT, len(model.shape_basis), generator=generator(3))
    return Templates.of_maps(model, shape, maps)


@pytest.fixture(scope="module")
def encoder() -> IdentityEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return IdentityEncoder(TOY_IDENTITY).eval()


@pytest.fixture(scope="module")
def templates(plain: Templates, encoder: IdentityEncoder, model: MorphableModel) -> Templates:
    return plain.with_encoder(encoder, ENCODING, model)


def test_maps_come_back_to_a_byte(plain: Templates, maps: Tensor):
    """Half a step of 255 in sRGB, of 255 in weights, of 127 to the steepest slope; no slope is none."""
    where = channels()
    for index in range(COUNT):
        found, given = plain.maps(index), maps[index]
        assert found.shape == given.shape
        srgb = linear_to_srgb(found[..., where["diffuse"]]) - linear_to_srgb(given[..., where["diffuse"]])
        assert float(srgb.abs().max()) < 0.51 / 255
        for name, step in (("specular", 1 / 255), ("roughness", 1 / 255), ("normal", STEEPEST / 127)):
            assert float((found - given)[..., where[name]].abs().max()) < 0.51 * step
    flat = Templates.of_maps(with_name("x"), torch.zeros(1, 2), torch.zeros(1, 16, 16, 7))
    assert torch.equal(flat.maps(0), torch.zeros(16, 16, 7))


def with_name(name: str) -> MorphableModel:
    class Named:
        pass

    named = Named()
    named.name = name  # type: ignore[attr-defined]
    return named  # type: ignore[return-value]


def test_a_file_keeps_them(templates: Templates):
    tensors = templates.tensors()
    assert all(key.startswith("templates.") for key in tensors)
    again = Templates.of_tensors(tensors | {"encoder.blocks.0.weight": torch.zeros(1)}, templates.model, "a file")
    assert again is not None and again.count == COUNT
    assert torch.equal(again.pictures, templates.pictures)
    assert again.shape.dtype == again.embeddings.dtype == torch.float32
    torch.testing.assert_close(again.shape, templates.shape, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(again.embeddings.norm(dim=1), torch.ones(COUNT))
    torch.testing.assert_close(again.embeddings, templates.embeddings, rtol=0.0, atol=1e-3)
    assert Templates.of_tensors({"encoder.blocks.0.weight": torch.zeros(1)}, "", "a file") is None


def _as(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _picture(width: int, height: int, form: str = "WEBP", mode: str = "RGB") -> Tensor:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, form)
    return _as(file.getvalue())


@pytest.mark.parametrize(
    "change",
    [
        {"maps.1": None},
        {"shape": None},
        {"shape": torch.full((COUNT, 4), torch.nan)},
        {"embeddings": torch.zeros(COUNT + 1, 5)},
        {"maps.0": torch.zeros(7, 64, 64)},
        {"maps.0": _as(b"\x80\x04cos\nsystem\n(S'true'\ntR.")},
        {"maps.0": _picture(64, 64)},
        {"maps.0": _picture(32, 3 * 32)},
        {"maps.0": _picture(60, 3 * 60)},
        {"maps.0": _picture(64, 3 * 64, mode="RGBA")},
        {"maps.0": _picture(64, 3 * 64, form="PNG")},
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else None,
)
def test_damaged_ones_are_refused(change: dict[str, Tensor | None], templates: Templates):
    tensors = templates.tensors()
    for name, value in change.items():
        if value is None:
            del tensors[f"templates.{name}"]
        else:
            tensors[f"templates.{name}"] = value
    with pytest.raises(InputError, match="a file: the templates"):
        Templates.of_tensors(tensors, templates.model, "a file")


def test_no_broken_picture_escapes(templates: Templates):
    """Cut off or changed anywhere, a picture is refused or read: nothing else is raised."""
    whole = templates.tensors()["templates.maps.0"]
    cuts = torch.randint(len(whole), (15,), generator=generator(5)).tolist()
    refused = 0
    for place in [*range(45), *cuts]:
        wrong = whole.clone()
        wrong[place] ^= 0xFF
        for bad in (whole[:place], wrong):
            try:
                _unpacked(bad, "a file")
            except InputError:
                refused += 1
    assert refused > 90


def test_the_closest_is_the_one_with_the_largest_cosine(plain: Templates):
    rows = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.5]]), dim=1)
    templates = replace(plain, embeddings=rows)
    assert [templates.closest(torch.tensor(each)) for each in ([3.0, 0.2], [0.2, 0.3], [-0.1, 0.0])] == [0, 1, 2]
    with pytest.raises(InputError, match="with_encoder"):
        plain.closest(torch.ones(5))


def test_a_scene_shows_the_maps_from_the_front(plain: Templates, model: MorphableModel):
    even = Templates.of_maps(
        model, plain.shape, torch.full((COUNT, 64, 64, 7), 0.4) * torch.tensor([1.0] * 5 + [0.0] * 2)
    )
    scene = even.scene(1, model)
    assert torch.equal(scene.shape[0], plain.shape[1]) and not scene.expression.any() and not scene.rotation.any()
    drawn = render(scene, model)
    mask = drawn.mask[0]
    rows, columns = torch.nonzero(mask, as_tuple=True)
    assert min(int(rows.min()), int(columns.min())) > 0
    assert max(int(rows.max()), int(columns.max())) < scene.height - 1
    for name in ("diffuse", "specular", "roughness"):
        assert torch.allclose(getattr(drawn, name)[0][mask], torch.tensor(0.4), atol=3e-3)
    # White light from everywhere: irradiance π.
    assert torch.allclose(drawn.illumination[0][mask], torch.tensor(1.0), atol=0.02)


def test_heads_of_another_model_are_refused(templates: Templates, model: MorphableModel):
    views = CropViews.of(known_scene(model), model, ENCODING.crop, SIZE, (0.0,))
    other = replace(model, name="another head")
    for use in (lambda: templates.scene(0, other), lambda: templates.crops(0, views, other, ENCODING)):
        with pytest.raises(InputError, match="another head"):
            use()


def test_crops_have_the_photo_s_shape_and_the_template_s_skin(plain: Templates, maps: Tensor, model: MorphableModel):
    views = CropViews.of(known_scene(model, seed=1), model, ENCODING.crop, SIZE)
    found = plain.crops(2, views, model, ENCODING)
    assert list(found) == list(MAP_CHANNELS)
    inside = torch.nn.functional.max_pool2d(1.0 - views.covered, 3, 1, 1) == 0.0
    expected = views.crops(maps[2])
    for domain, crop in found.items():
        assert crop.shape == (3, 3, SIZE, SIZE)
        assert not crop[(views.covered == 0.0).expand_as(crop)].any(), "mid-grey off the head"
        values = expected[:, channels()[domain]]
        if domain == "normal":
            values = views.normals(values)
        wanted = ENCODING.encode(domain, values)
        where = inside.expand_as(crop)
        assert float((crop - wanted)[where].abs().max()) < 0.03, domain
    level = plain.crops(2, replace_resolution(views, model), model, ENCODING)["roughness"]
    assert level.shape == (1, 3, 16, 16) and bool(torch.isfinite(level).all())


def replace_resolution(views: CropViews, model: MorphableModel) -> CropViews:
    """Views that draw from maps of another size than the templates'."""
    coarse = CropViews.of(known_scene(model, seed=1), model, ENCODING.crop, 16, (0.0,))
    assert coarse.resolution < views.resolution
    return coarse


def test_photos_follow_the_light(plain: Templates, model: MorphableModel):
    """Twice the light is 2^0.55 times as bright, since the camera meters the skin in part; light from the left is on the left."""
    lights = draw_lights(1, BANDS, generator(6)) * 0.3
    lights = torch.cat([lights, 2.0 * lights, torch.zeros_like(lights), torch.zeros_like(lights)])
    lights[2:, 0] = 1.0
    lights[2, 3], lights[3, 3] = -0.8, 0.8  # Y3 is along x, to the right of the photo
    photos = plain.photos(0, model, lights, ENCODING)
    assert photos.shape == (4, 3, SIZE, SIZE)
    covered = photos.abs().amax((0, 1)) > 0.0
    assert 0.2 < float(covered.float().mean()) < 0.98, "mid-grey around the head"
    one, two = (ENCODING.decode("shared", photos[row : row + 1])[0] for row in (0, 1))
    dim = covered & (two < 0.9).all(0)
    assert torch.allclose((two / one)[:, dim], torch.tensor(2.0**0.55), rtol=2e-3)
    left, right = photos[2].mean(0), photos[3].mean(0)
    half = SIZE // 2
    assert float((left - right)[:, :half].mean()) > 0.05 > -0.05 > float((left - right)[:, half:].mean())


def test_photos_lead_back_to_their_heads(templates: Templates, encoder: IdentityEncoder, model: MorphableModel):
    """Under lights that the embeddings were not made with."""
    lights = draw_lights(2, BANDS, generator(7))
    for index in range(COUNT):
        photos = templates.photos(index, model, lights, ENCODING)
        with torch.no_grad():
            assert [templates.closest(each) for each in encoder.embed(photos)] == [index, index]
    torch.testing.assert_close(templates.embeddings.norm(dim=1), torch.ones(COUNT))
