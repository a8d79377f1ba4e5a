"""The pull on the maps: where it acts and where not, how strong it is, and that it leads to what the codes say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from known_prior import ENCODING, SIZE, save_constant_prior, save_random_prior, with_face_points
from synthetic_photo import known_scene
from torch import Tensor

from nextface.color import luminance
from nextface.errors import ConfigError, InputError
from nextface.morphable.model import MorphableModel
from nextface.prior.answers import Answers, _Draw
from nextface.prior.checkpoint import save_weights
from nextface.prior.projection import PUBLISHED_ENCODING, Answer, Projection
from nextface.prior.regulariser import Regulariser, pulled
from nextface.prior.settings import AutoencoderSettings
from nextface.prior.views import CropViews
from nextface.rendering.skin import statistical_maps
from nextface.textures import MAP_CHANNELS, LaplacianTexture, channels, resized

ALL = dict.fromkeys(MAP_CHANNELS, 1.0)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Says(Projection):
    """A projection whose answer is a function of the crops."""

    says: Callable[[Tensor], Tensor] = torch.zeros_like

    def answer(self, crops: Tensor) -> Answer:
        said = self.says(crops)
        return Answer(said, said)


def says(answer: Callable[[Tensor], Tensor], **encoding: object) -> Projection:
    return Says(net=None, encoding=replace(ENCODING, **encoding), says=answer)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(toy: MorphableModel) -> MorphableModel:
    return with_face_points(toy)


@pytest.fixture(scope="module")
def views(model: MorphableModel) -> CropViews:
    return CropViews.of(known_scene(model, seed=1), model, "tight", SIZE)


@pytest.fixture(scope="module")
def levels(model: MorphableModel) -> list[Tensor]:
    """Of a toy's statistical maps at 128², with some detail and bends."""
    maps = statistical_maps(known_scene(model, seed=1), model, 128)
    full = torch.cat([texture.full() for texture in maps.textures().values()], -1)
    noise = torch.randn(full.shape, generator=torch.Generator().manual_seed(2))
    return [level[0] for level in LaplacianTexture.from_image(full + 0.02 * noise).levels]


def half_seen() -> Tensor:
    """The right half of the unwrap. [128, 128, 1]"""
    seen = torch.zeros(128, 128, 1)
    seen[:, 64:] = 1.0
    return seen


def regulariser(
    projection: Projection, views: CropViews, model: MorphableModel, levels: list[Tensor], **changes: object
) -> Regulariser:
    """After its first refresh, against a photo whose gradient is 1 everywhere."""
    given = {"seen": torch.ones(128, 128, 1), "mode": "uv", "weights": ALL, **changes}
    answers = Answers.of(projection, views, model, given["seen"], ())  # type: ignore[arg-type]
    pull = Regulariser(answers, given["mode"], given["weights"], seed=0)  # type: ignore[arg-type]
    assert pull.gradients(levels) == []
    pull.begin(levels, [torch.ones_like(level) for level in levels])
    pull.refresh(levels)
    return pull


def followed(pull: Regulariser, levels: list[Tensor], steps: int = 120) -> list[Tensor]:
    """The levels after gradient descent on the pull alone, without a refresh."""
    levels = [level.clone() for level in levels]
    for _ in range(steps):
        for level, gradient in zip(levels, pull.gradients(levels), strict=False):
            level -= 0.2 * gradient / gradient.abs().amax().clamp_min(1e-12) * 0.02
    return levels


@pytest.mark.parametrize("mode", ["uv", "image"])
def test_only_resolved_levels_and_seen_skin_are_pulled(mode: str, views, model, levels):
    pull = regulariser(
        says(lambda crops: torch.full_like(crops, 0.5)), views, model, levels, mode=mode, seen=half_seen()
    )
    gradients = pull.gradients(levels)
    assert [len(gradient) for gradient in gradients] == [16, 32]  # of 16, 32, 64, 128: crops of 32 pixels, maps of 64²
    assert [len(level) for level in pulled(pull.answers, levels)] == [16, 32]
    for gradient in gradients:
        size = len(gradient)
        strength = gradient.abs().sum(-1)
        assert float(strength[:, : size // 2].max()) == 0.0
        assert float(strength[:, size // 2 :].max()) > 0.0
    eyes = views.draw(model.regions["eyes"][:, None])
    assert float(pull.answers.weight[eyes > 0.9].max()) < 0.11


def test_the_edge_of_what_is_known_does_not_count(views, model, levels):
    answers = Answers.of(says(torch.zeros_like), views, model, half_seen(), ())
    unknown = 1.0 - answers.known
    near = torch.nn.functional.max_pool2d(unknown, 3, 1, 1) > 0  # 1/32 of 32 pixels
    assert float(answers.weight[near].max()) == 0.0
    assert float(answers.weight.max()) > 0.5
    seen_by_the_net = []

    def note(crops: Tensor) -> Tensor:
        seen_by_the_net.append(crops)
        return crops

    asked = Answers.of(says(note), views, model, half_seen(), ())
    crop = torch.full((3, 3, SIZE, SIZE), 0.7)
    found = asked.ask("diffuse", crop, torch.Generator().manual_seed(0)).cleaned
    given = seen_by_the_net[0]
    assert set(given.unique().tolist()) == {0.0, torch.tensor(0.7).item()}
    assert len(given) == len(asked.asked) < 3  # the view of the side that nobody saw is not asked about
    rest = [view for view in range(3) if view not in asked.asked.tolist()]
    assert torch.equal(found[rest], crop[rest])


@pytest.mark.parametrize("mode", ["uv", "image"])
def test_a_prior_that_agrees_does_not_pull(mode: str, views, model, levels):
    """The views' blur is not taken for a wish."""
    pull = regulariser(says(lambda crops: crops), views, model, levels, mode=mode)
    assert max(float(gradient.abs().max()) for gradient in pull.gradients(levels)) < 1e-3


@pytest.mark.parametrize("mode", ["uv", "image"])
def test_the_maps_follow_the_prior(mode: str, views, model, levels):
    """A constant answer: specular and roughness approach its value, the albedo keeps its mean and loses its variation."""
    pull = regulariser(says(lambda crops: torch.full_like(crops, 0.2)), views, model, levels, mode=mode)
    sure = resized(pull.answers.confidence[None], 32)[0, ..., 0] > 0.9
    before, after = (
        LaplacianTexture([level[None] for level in each[:2]]).full()[0][sure]
        for each in (levels, followed(pull, levels))
    )
    albedo = channels()["diffuse"]
    assert torch.allclose(after[:, albedo].mean(0), before[:, albedo].mean(0), atol=0.03)
    assert float(after[:, albedo].std(0).mean()) < 0.7 * float(before[:, albedo].std(0).mean())
    for name in ("specular", "roughness"):
        low, high = getattr(ENCODING, name)
        errors = [(each[:, channels()[name]] - (low + (high - low) * 0.6)).abs().mean() for each in (before, after)]
        assert float(errors[1]) < 0.5 * float(errors[0]), name


def test_an_answer_is_told_apart_into_tone_and_pattern(views, model, levels):
    """A gain of linear light is found, the same for all views, within its range; without it the answer is the crop again."""
    answers = Answers.of(says(torch.zeros_like), views, model, torch.ones(128, 128, 1), ())
    crop = answers.encoded("diffuse", answers.crops(levels))
    linear = ENCODING.decode("diffuse", crop)
    gains = torch.tensor([0.9, 0.8, 0.7])
    answer = ENCODING.encode("diffuse", gains[:, None, None] * linear)
    assert torch.allclose(answers.gains("diffuse", crop, answer), gains, atol=1e-3)
    assert torch.allclose(answers.in_tone("diffuse", crop, answer), crop, atol=1e-3)
    far = answers.gains("diffuse", crop, ENCODING.encode("diffuse", 0.2 * linear))
    assert torch.allclose(far, torch.full((3,), 0.5))
    tilted = crop.clone()
    tilted[1] += 0.2
    assert float((answers.in_tone("diffuse", crop, tilted) - crop)[1].abs().mean()) > 0.05


def test_the_tint_is_the_answers_colour_without_its_lightness(views, model, levels):
    """Of all answers the tint is read off anew; a grey change leaves it 1."""

    def times(gains: list[float]) -> Callable[[Tensor], Tensor]:
        gain = torch.tensor(gains)[:, None, None]
        return lambda crops: ENCODING.encode("diffuse", gain * ENCODING.decode("diffuse", crops))

    for gains in ([0.8, 0.8, 0.8], [0.9, 0.8, 0.7]):
        only = {"diffuse": 1.0}
        pull = regulariser(says(times(gains)), views, model, levels, weights=only)
        expected = torch.tensor(gains)
        assert torch.allclose(pull.tint / pull.tint[1], expected / expected[1], atol=2e-3)
        crop = pull.answers.encoded("diffuse", pull.answers.crops(levels))
        mean = (pull.answers.weight * ENCODING.decode("diffuse", crop)).sum((0, 2, 3))
        assert luminance(mean * pull.tint) == pytest.approx(float(luminance(mean)), rel=1e-4)


def test_wishes_below_the_noise_floor_are_none(views, model):
    """What is common to all that counts is a judgement and no noise: only the pattern of a change has a floor."""
    answers = Answers.of(
        says(torch.zeros_like, noise_floor=(0.0, 0.1, 0.2, 0.3, 0.4)), views, model, torch.ones(128, 128, 1), ()
    )
    crop = torch.zeros(len(answers.weight), 3, SIZE, SIZE)
    counted = (answers.weight > 0.0).expand_as(crop)
    side = torch.where(torch.arange(SIZE) < SIZE // 2, 1.0, -1.0).expand_as(crop)
    even = float((answers.weight * side[:, :1]).sum() / answers.weight.sum())
    for domain, floor in (("diffuse", 0.1), ("specular", 0.2), ("normal", 0.3), ("roughness", 0.4)):
        wish = answers.wish(domain, crop, crop - 0.25)
        assert torch.allclose(wish[counted], torch.tensor(-0.25), atol=1e-6)
        wish = answers.wish(domain, crop, crop + 0.25 * side)
        level = 0.25 * even
        rest = 0.25 * side - level
        expected = level + rest.sign() * (rest.abs() - floor).clamp_min(0.0)
        assert torch.allclose(wish[counted], expected[counted], atol=1e-6)


@pytest.mark.parametrize("mode", ["uv", "image"])
def test_weights_scale_the_pull_and_zero_leaves_a_domain_out(mode: str, views, model, levels):
    def gradients(**weights: float) -> Tensor:
        pull = regulariser(
            says(lambda crops: torch.full_like(crops, 0.4)), views, model, levels, mode=mode, weights={**ALL, **weights}
        )
        return pull.gradients(levels)[1]

    plain, more = gradients(), gradients(diffuse=3.0, normal=0.0)
    where = channels()
    torch.testing.assert_close(more[..., where["diffuse"]], 3.0 * plain[..., where["diffuse"]])
    torch.testing.assert_close(more[..., where["specular"]], plain[..., where["specular"]])
    assert float(more[..., where["normal"]].abs().max()) == 0.0


def test_a_pull_is_as_strong_as_the_photo_s_and_less_for_faint_wishes(views, model, levels):
    """Over the texels that the prior has a say in; a wish much fainter pulls in proportion, not as much."""

    def share(answer: Callable[[Tensor], Tensor]) -> float:
        pull = regulariser(says(answer), views, model, levels, weights={**ALL, "roughness": 2.0})
        own = pull.gradients(levels)[0][..., channels()["roughness"]].norm()
        photo = resized(pull.answers.confidence[None], 16).norm()
        return float(own / photo)

    assert share(lambda crops: -torch.ones_like(crops)) == pytest.approx(2.0, rel=1e-3)
    assert share(lambda crops: crops + 1e-4) < 0.1


def test_answers_are_averaged_over_refreshes(views, model, levels):
    given = iter([0.6, 0.2])
    only = {"roughness": 1.0}
    pull = regulariser(says(lambda crops: torch.full_like(crops, next(given))), views, model, levels, weights=only)
    pull.refresh(levels)
    middle = pull._earlier["roughness"].cleaned[0, :, 12:20, 12:20]
    assert torch.allclose(middle, torch.tensor(0.4), atol=1e-6)


@pytest.mark.parametrize("draw", [_Draw(0, 0, False), _Draw(2, -1, False), _Draw(-2, 1, True)])
def test_moved_crops_come_back(draw: _Draw):
    crops = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    for domain in ("diffuse", "normal"):
        moved = draw.apply(crops, domain)
        assert torch.equal(draw.undo(moved, domain)[..., 2:-2, 2:-2], crops[..., 2:-2, 2:-2])
    if draw.mirrored:
        assert torch.equal(draw.apply(crops, "normal")[:, 0], -draw.apply(crops, "diffuse")[:, 0])
    assert torch.equal(draw.apply(crops, "diffuse")[0, 0, 1 + draw.y].abs().sum() > 0, torch.tensor(True))


def test_the_same_seed_asks_the_same(views, model, levels, tmp_path: Path):
    projection = Projection.read(save_random_prior(tmp_path / "random.safetensors"), CPU)
    one, two = (regulariser(projection, views, model, levels).gradients(levels) for _ in range(2))
    assert all(torch.equal(first, second) for first, second in zip(one, two, strict=True))
    assert all(bool(torch.isfinite(gradient).all()) and float(gradient.abs().max()) > 0 for gradient in one)


def test_checkpoints_are_read_with_what_they_say_of_themselves(tmp_path: Path):
    projection = Projection.read(save_constant_prior(tmp_path / "a.safetensors", 0.25), CPU)
    assert projection.encoding == ENCODING
    assert projection.seconds > 0.0
    crops = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(projection(crops), torch.tensor(0.25))
    assert not projection(crops).requires_grad
    other = replace(ENCODING, noise_floor=(0.0, 0.1, 0.2, 0.3, 0.4))
    assert [
        Projection.read(save_constant_prior(tmp_path / "b.safetensors", 0.0, other), CPU).floor(domain)
        for domain in ("diffuse", "roughness")
    ] == [0.1, 0.4]


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="not a readable checkpoint"):
        Projection.read(tmp_path / "absent.safetensors", CPU)
    with pytest.raises(InputError, match="32 pixels"):
        Projection.read(save_constant_prior(tmp_path / "c.safetensors", 0.0, replace(ENCODING, image_size=64)), CPU)
    unknown = tmp_path / "d.safetensors"
    save_weights(torch.nn.Linear(2, 2), unknown, {})
    with pytest.raises((InputError, ConfigError), match="no network"):
        Projection.read(unknown, CPU)
    assert PUBLISHED_ENCODING.image_size == AutoencoderSettings().image_size
