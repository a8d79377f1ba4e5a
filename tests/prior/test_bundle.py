"""A whole prior in one file: what is read is what was packed, and what does not fit is told."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from known_prior import ENCODING, SIZE, SIZES, save_random_prior, with_face_points
from safetensors.torch import load_file
from torch import Tensor, nn
from toy_prior import TOY, TOY_FUSION, TOY_IDENTITY, TOY_SWAP

from nextface.errors import InputError, OutputError
from nextface.morphable.model import MorphableModel
from nextface.prior import bundle as bundle_module
from nextface.prior.bundle import Bundle, save_bundle
from nextface.prior.checkpoint import COMPUTED, read_notes, read_weights, save_tensors, save_weights
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import FusedAutoencoder
from nextface.prior.identity import IdentityEncoder
from nextface.prior.projection import PUBLISHED_ENCODING, Projection
from nextface.prior.settings import SwapSettings
from nextface.prior.swapper import FusedSwapper
from nextface.prior.templates import Templates
from nextface.prior.train.sizes import DENOISER, PRESETS, Checkpoint
from nextface.textures import MAP_CHANNELS

CPU = torch.device("cpu")
WEIGHTS = {"diffuse": 1.0, "specular": 0.0, "roughness": 1.0, "normal": 0.0}
FLOORS = replace(ENCODING, noise_floor=(0.1, 0.2, 0.3, 0.4, 0.5))
CARD = {"stages": {"swapper": {"step": 3}}, "results": {"hours": 2.0}}


@pytest.fixture(scope="module")
def model(toy: MorphableModel) -> MorphableModel:
    return with_face_points(toy)


def checkpoint(net: nn.Module, path: Path, encoding: Encoding = ENCODING) -> Checkpoint:
    save_weights(net, path, {"sizes": SIZES.notes(), "encoding": encoding.notes()})
    return Checkpoint.read(path)


def cleaning(swapper: FusedSwapper) -> FusedAutoencoder:
    """The swapper's network with a denoiser, as the stage denoise leaves it."""
    net = FusedAutoencoder(TOY, TOY_FUSION).eval()
    own = swapper.state_dict()
    net.load_state_dict({key: own[key] for key in net.state_dict()})
    net.denoiser = copy.deepcopy(net.encoder)
    with torch.no_grad():
        net.denoiser.blocks[0].weight.mul_(0.5)
    return net


@pytest.fixture(scope="module")
def swapper() -> FusedSwapper:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return FusedSwapper(TOY, TOY_FUSION, TOY_SWAP).eval()


@pytest.fixture(scope="module")
def identity() -> IdentityEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return IdentityEncoder(TOY_IDENTITY).eval()


@pytest.fixture(scope="module")
def templates(model: MorphableModel) -> Templates:
    drawn = torch.Generator().manual_seed(3)
    shape = torch.randn(2, len(model.shape_basis), generator=drawn)
    found = Templates.of_maps(model, shape, torch.rand(2, 32, 32, 7, generator=drawn))
    return replace(found, embeddings=torch.nn.functional.normalize(torch.randn(2, 5, generator=drawn), dim=1))


@pytest.fixture(scope="module")
def parts(
    swapper: FusedSwapper, identity: IdentityEncoder, templates: Templates, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkpoint, Checkpoint, Checkpoint, Templates]:
    folder = tmp_path_factory.mktemp("parts")
    denoise = checkpoint(cleaning(swapper), folder / "denoise", FLOORS)
    return checkpoint(swapper, folder / "swapper"), denoise, checkpoint(identity, folder / "identity"), templates


@pytest.fixture(scope="module")
def packed(
    parts: tuple[Checkpoint, Checkpoint, Checkpoint, Templates], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "prior.safetensors"
    save_bundle(path, *parts, WEIGHTS, CARD)
    return path


def crops() -> Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4)) * 2.0 - 1.0


def test_what_was_packed_is_read(packed: Path, swapper: FusedSwapper, identity: IdentityEncoder, templates: Templates):
    found = Bundle.read(packed, CPU)
    assert isinstance(found.projection.net, FusedSwapper) and found.identity is not None and found.templates is not None
    for net, other in ((found.projection.net, swapper), (found.identity, identity)):
        own, given = net.state_dict(), other.state_dict()
        own = {key: each for key, each in own.items() if not key.startswith(DENOISER)}
        assert own.keys() == given.keys()
        for key, tensor in own.items():
            assert tensor.dtype == given[key].dtype
            wanted = (
                given[key].half().float() if tensor.is_floating_point() and not key.endswith(COMPUTED) else given[key]
            )
            assert torch.equal(tensor, wanted), key
        assert not net.training and not any(each.requires_grad for each in net.parameters())
    assert found.faces == found.projection.encoding == FLOORS
    assert found.projection.weights == WEIGHTS
    assert read_notes(packed)["card"] == CARD
    assert torch.equal(found.templates.pictures, templates.pictures) and found.templates.model == templates.model
    with torch.no_grad():
        swapped = found.projection.net(crops(), found.identity.embed(crops())).image
        expected = swapper(crops(), identity.embed(crops())).image
    assert float((swapped - expected).abs().median()) < 5e-3, "single codes may flip"


def test_numbers_are_stored_in_half_precision(packed: Path):
    kinds = {tensor.dtype for tensor in load_file(packed).values()}
    assert kinds == {torch.float16, torch.uint8, torch.int64}
    assert not any(key.endswith(COMPUTED) for key in load_file(packed))


def test_a_bundle_is_a_checkpoint_of_its_network(packed: Path, swapper: FusedSwapper, monkeypatch: pytest.MonkeyPatch):
    read = Checkpoint.read(packed)
    assert read.network == "FusedSwapper" and read.sizes == SIZES
    projection = Projection.read(packed, CPU)
    with torch.no_grad():
        expected = swapper.decode(swapper.fuse(swapper.encode(crops())).codes)
    assert float((projection(crops()) - expected).abs().median()) < 5e-3
    assert projection.floor("roughness") == 0.5
    with torch.no_grad():
        wanted = swapper.decode(swapper.fuse(cleaning(swapper).denoiser(crops())).codes)
    assert projection.cleaned(crops()).dtype == torch.float32, "whatever the arithmetic within"
    monkeypatch.setattr(
        "nextface.prior.projection._halves", lambda device: False
    )  # codes of a network at random flip at a breath
    assert float((projection.cleaned(crops()) - (crops() + wanted - expected)).abs().median()) < 1e-2


def test_a_plain_checkpoint_has_a_projection_alone(tmp_path: Path):
    found = Bundle.read(save_random_prior(tmp_path / "plain.safetensors"), CPU)
    assert found.identity is None and found.templates is None
    assert found.projection.weights == dict.fromkeys(MAP_CHANNELS, 1.0)


def test_another_identity_encoder_takes_the_place(
    packed: Path, identity: IdentityEncoder, model: MorphableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of the templates' embeddings none is left until they are made anew."""
    other = IdentityEncoder(replace(TOY_IDENTITY, embedding_channels=7))
    monkeypatch.setitem(PRESETS, "published", replace(SIZES, identity=other.settings))
    torch.save(other.state_dict(), tmp_path / "arcface.pth")
    found = Bundle.read(packed, CPU, tmp_path / "arcface.pth")
    assert found.identity is not None and found.templates is not None
    assert found.identity.settings.embedding_channels == 7 and found.faces == PUBLISHED_ENCODING
    with pytest.raises(InputError, match="with_encoder"):
        found.templates.closest(torch.zeros(7))
    anew = found.templates.with_encoder(found.identity, replace(found.faces, image_size=SIZE), model)
    assert anew.embeddings.shape == (2, 7)
    own = tmp_path / "own.safetensors"
    save_weights(identity, own, {"sizes": SIZES.notes(), "encoding": FLOORS.notes()})
    assert Bundle.read(packed, CPU, own).faces == FLOORS
    with pytest.raises(InputError, match="IdentityEncoder is needed"):
        Bundle.read(packed, CPU, packed)


def test_a_file_too_large_is_not_written(parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bundle_module, "LIMIT", 50_000)
    with pytest.raises(OutputError, match=r"would take 0\.\d MB"):
        save_bundle(tmp_path / "large.safetensors", *parts, WEIGHTS, CARD)
    assert not list(tmp_path.iterdir())


def test_parts_that_do_not_fit_are_not_packed(parts, tmp_path: Path):
    swaps, cleans, identifies, templates = parts
    for wrong in ((identifies, cleans, identifies), (swaps, cleans, swaps)):
        with pytest.raises(InputError, match="needed here"):
            save_bundle(tmp_path / "a", *wrong, templates, WEIGHTS, CARD)
    foreign = replace(
        cleans, weights=cleans.weights | {"quantize.embedding.weight": torch.zeros(TOY.codes, TOY.code_channels)}
    )
    with pytest.raises(InputError, match="another network"):
        save_bundle(tmp_path / "a", swaps, foreign, identifies, templates, WEIGHTS, CARD)
    key = "encoder.blocks.0.weight"
    much = {key: torch.full_like(swaps.weights[key], 1e6)}
    huge = [replace(each, weights=each.weights | much) for each in (swaps, cleans)]
    with pytest.raises(InputError, match=key):
        save_bundle(tmp_path / "a", *huge, identifies, templates, WEIGHTS, CARD)
    other = replace(swaps, sizes=replace(SIZES, swap=SwapSettings(identity_channels=6, sizes=(16, 32))))
    with pytest.raises(InputError, match="6"):
        save_bundle(tmp_path / "a", other, cleans, identifies, templates, WEIGHTS, CARD)
    assert not list(tmp_path.iterdir())


def changed(packed: Path, path: Path, tensors: dict[str, Tensor | None], **notes: object) -> Path:
    own = {key: each for key, each in (read_weights(packed) | tensors).items() if each is not None}
    save_tensors(own, path, read_notes(packed) | notes)
    return path


@pytest.mark.parametrize(
    ("tensors", "notes", "match"),
    [
        ({"identity.fc.bias": None}, {}, "missing: fc.bias"),
        ({"identity.more": torch.zeros(2)}, {}, "unexpected: more"),
        ({"templates.maps.0": torch.zeros(9, dtype=torch.uint8)}, {}, "templates"),
        ({"templates.embeddings": torch.ones(2, 3)}, {}, "3 numbers"),
        ({}, {"weights": {"diffuse": "all"}}, "weights"),
        ({}, {"weights": {"gloss": 1}}, "weights"),
        ({}, {"weights": {"diffuse": float("nan")}}, "weights"),
        ({}, {"weights": [1, 1]}, "weights"),
    ],
)
def test_damaged_files_are_refused(tensors, notes, match: str, packed: Path, tmp_path: Path):
    with pytest.raises(InputError, match=match):
        Bundle.read(changed(packed, tmp_path / "wrong.safetensors", tensors, **notes), CPU)


def test_truncated_files_are_refused(packed: Path, tmp_path: Path):
    whole = packed.read_bytes()
    for length in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(InputError, match="not a readable checkpoint"):
            Bundle.read(tmp_path / "cut.safetensors", CPU)


@pytest.fixture(scope="module")
def pack() -> ModuleType:
    """tools/pack_prior.py"""
    spec = importlib.util.spec_from_file_location("pack_prior", Path(__file__).parents[2] / "tools" / "pack_prior.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_templates_are_spread(pack: ModuleType, toy: MorphableModel):
    """Every tone from light to dark, each with its own head, and more varied than people taken at random."""
    from nextface.morphable.open_head import read_open_head
    from nextface.paths import default_model_folder
    from nextface.prior.data.people import draw_people
    from nextface.prior.data.zones import FaceZones

    drawn = torch.Generator().manual_seed(5)
    people = draw_people(4000, FaceZones.of(read_open_head(default_model_folder() / "open_head.h5")), drawn)
    shapes = torch.randn(64, 20, generator=drawn)
    persons = pack.spread(people, shapes, 24)
    tones = people.melanin[persons]
    assert len(persons) == len({person % 64 for person in persons}) == 24
    assert bool((tones.diff() > 0).all())
    low, high = people.melanin.quantile(torch.tensor([0.04, 0.96]))
    assert tones[0] < low and tones[-1] > high
    for looks in (people.beard, people.freckles, people.lipstick_cover):
        assert 3 <= int((looks[persons] > 0.3).sum()) <= 16
    assert float(people.age[persons].std()) > float(people.age.std())
    assert persons == pack.spread(people, shapes, 24)
