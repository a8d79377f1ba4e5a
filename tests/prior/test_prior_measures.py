"""What the benchmark of the prior's networks says of networks whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import roma
import torch
from known_prior import ENCODING, SIZE, SIZES, save_random_prior
from torch import Tensor
from torch.nn.functional import interpolate, normalize

pytest.importorskip("benchmarks", reason="needs a checkout")

from benchmarks.prior_codebooks import difference, shared_out
from benchmarks.prior_crops import MAPS, Subject
from benchmarks.prior_measures import Coder, denoising, reconstruction, verdict, weights
from benchmarks.prior_nets import denoised_table, held_table, sheet
from benchmarks.prior_swap import rate
from nextface.prior.autoencoder import VQAutoencoder
from nextface.prior.checkpoint import save_weights
from nextface.prior.fusion import DOMAINS, FusedAutoencoder
from nextface.prior.projection import Answer, Projection


def smooth(generator: torch.Generator, channels: int, low: float, high: float) -> Tensor:
    grid = torch.rand(3, channels, 9, 9, generator=generator)
    return low + (high - low) * interpolate(grid, (SIZE, SIZE), mode="bilinear", align_corners=False)


def subject(seed: int, brightness: float = 0.5) -> Subject:
    """Random maps on half of the crops, spoilt by a gain, an offset and a bend; the mesh's frames are the axes."""
    generator = torch.Generator().manual_seed(seed)
    covered = torch.zeros(3, 1, SIZE, SIZE)
    covered[..., 4:28, 6:30] = 1.0
    axes = torch.eye(3)[:, None, :, None, None] * covered[None]
    slopes = smooth(generator, 2, -0.3, 0.3)
    normal = normalize(torch.cat([slopes, torch.ones(3, 1, SIZE, SIZE)], 1), dim=1)
    clean = {
        "shared": smooth(generator, 3, 0.1, 0.9),
        "diffuse": brightness * smooth(generator, 3, 0.5, 1.0),
        "specular": smooth(generator, 1, 0.2, 0.9),
        "normal": normal,
        "roughness": smooth(generator, 1, 0.3, 0.7),
    }
    spoilt = {"diffuse": clean["diffuse"] * (1.0 + 0.3 * slopes[:, :1]), "specular": 0.8 * clean["specular"]}
    spoilt |= {"normal": normalize(normal + 0.2 * slopes[:, :1], dim=1), "roughness": clean["roughness"] + 0.05}
    return Subject(
        **{name: each * covered for name, each in clean.items()},
        **{f"spoilt_{name}": each * covered for name, each in spoilt.items()},
        tangent=axes[0],
        bitangent=axes[1],
        mesh_normal=axes[2],
        covered=covered,
        skin=covered,
    )


@dataclass(frozen=True)
class Known(Coder):
    """A network with a given answer to an encoded crop of a domain."""

    says: Callable[[str, Tensor], Tensor]

    def project(self, domain: str, crops: Tensor) -> Tensor:
        return self.says(domain, crops)

    def answer(self, domain: str, crops: Tensor) -> Answer:
        said = self.says(domain, crops)
        return Answer(said, said)


@pytest.fixture(scope="module")
def people():
    return [subject(0, 0.6), subject(1, 0.06), subject(2, 0.3)]


@pytest.fixture(scope="module")
def projection():
    torch.manual_seed(0)
    return Projection(VQAutoencoder(SIZES.autoencoder).eval(), ENCODING)


def same(domain: str, crops: Tensor) -> Tensor:
    return crops


def test_a_network_that_returns_its_input(people, projection):
    coder = Known(projection, False, same)
    for row in reconstruction(coder, people):
        assert row.skill.value == pytest.approx(1.0, abs=1e-6) and row.by_crop == pytest.approx(1.0, abs=1e-6)
        assert row.rms < 1e-3 and row.frame > 100.0
        assert 0.0 < row.low_16 < row.low_8 < 1.0
        assert row.flat_frame < 40.0
    rows = denoising(coder, people)
    assert {row.domain for row in rows} == {*MAPS}
    for row in rows:
        assert abs(row.overall.value) < 1e-3 and abs(row.low.value) < 1e-3
        assert row.after == pytest.approx(row.before, rel=1e-3)


def test_a_network_that_answers_one_colour(people, projection):
    """The best colour of each crop in linear values has no skill; every other has less."""

    def colour(domain: str, crops: Tensor) -> Tensor:
        person = next(each for each in people if torch.equal(each.encoded(ENCODING, domain, each.clean(domain)), crops))
        values = person.clean(domain)
        mean = values.sum((2, 3), keepdim=True) / person.skin.sum((2, 3), keepdim=True)
        return ENCODING.encode(domain, mean.expand_as(values))

    for row in reconstruction(Known(projection, False, colour), people):
        assert row.skill.value == pytest.approx(0.0, abs=2e-3)
    worst = Known(projection, False, lambda domain, crops: torch.ones_like(crops))
    assert all(row.skill.value < -0.5 for row in reconstruction(worst, people) if row.domain != "normal")


def test_a_network_that_knows_the_truth_and_one_that_makes_all_worse(people, projection):
    def truth(domain: str, crops: Tensor) -> Tensor:
        person = next(
            each for each in people if torch.equal(each.encoded(ENCODING, domain, each.spoilt(domain)), crops)
        )
        return person.encoded(ENCODING, domain, person.clean(domain))

    better = denoising(Known(projection, False, truth), people)
    assert all(row.overall.low > 20.0 and row.pulled.low > 20.0 for row in better)
    assert weights(better) == dict.fromkeys(MAPS, 1)
    noise = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(9))
    worse = denoising(Known(projection, False, lambda domain, crops: crops + 0.3 * noise), people)
    assert weights(worse) == dict.fromkeys(MAPS, 0)
    half = denoising(Known(projection, False, lambda domain, crops: truth("roughness", crops)
                           if domain == "roughness" else crops + 0.3 * noise), people)  # fmt: skip
    assert weights(half) == dict.fromkeys(MAPS, 0) | {"roughness": 1}


def test_the_albedos_brightness_is_the_lights_matter(people, projection):
    """An answer of half the brightness costs nothing."""

    def darker(domain: str, crops: Tensor) -> Tensor:
        return ENCODING.encode(domain, 0.5 * ENCODING.decode(domain, crops)) if domain == "diffuse" else crops

    rows = {row.domain: row for row in denoising(Known(projection, False, darker), people) if row.group == "all"}
    assert abs(rows["diffuse"].overall.value) < 0.01


def test_tones_are_told_apart(projection):
    light, dark = [subject(seed, 0.8) for seed in (0, 1)], [subject(seed, 0.04) for seed in (2, 3)]
    rows = reconstruction(Known(projection, False, same), light + dark)
    assert [(row.group, row.subjects) for row in rows if row.domain == "diffuse"][0] == ("all", 4)
    assert len([row for row in rows if row.domain == "roughness"]) == 1
    assert light[0].tone != dark[0].tone


def test_normals_are_compared_without_the_mesh(people):
    """Turned with their frames, normals are the same relief; the mesh's own normals are none."""
    person = people[0]
    relief = person.compared("normal", person.normal)
    assert torch.allclose(relief, person.normal, atol=1e-6)
    turn = roma.rotvec_to_rotmat(torch.tensor([0.3, -0.7, 0.5]))

    def turned(values: Tensor) -> Tensor:
        return torch.einsum("ij,njhw->nihw", turn, values)

    names = ("normal", "tangent", "bitangent", "mesh_normal")
    other = replace(person, **{name: turned(getattr(person, name)) for name in names})
    assert torch.allclose(other.compared("normal", other.normal), relief, atol=1e-5)
    bare = other.compared("normal", other.mesh_normal)
    assert torch.allclose(bare, torch.tensor([0.0, 0.0, 1.0])[:, None, None] * person.covered, atol=1e-5)


def test_codes_and_ways_of_every_stage(tmp_path, people):
    person = people[0]
    given = person.encoded(ENCODING, "roughness", person.roughness)
    torch.manual_seed(1)
    fused = FusedAutoencoder(SIZES.autoencoder, SIZES.fusion)
    for domain in DOMAINS[1:]:
        torch.nn.init.normal_(fused.codebook(domain).table)
    notes = {"sizes": SIZES.notes(), "encoding": ENCODING.notes()}
    for stage, routed in (("stage2", True), ("denoise", False)):
        save_weights(fused, tmp_path / f"{stage}.safetensors", {**notes, "stage": stage})
        coder = Coder.read(tmp_path / f"{stage}.safetensors", torch.device("cpu"))
        assert coder.routed == routed
        assert set(coder.codes("roughness", given)) == {"shared", "roughness"}
        assert torch.equal(coder.project("roughness", given), coder.project("specular", given)) != routed
    alone = Coder(Projection(VQAutoencoder(SIZES.autoencoder).eval(), ENCODING), False)
    assert alone.codes("diffuse", given)["shared"].shape == (3, 16, 16)


def test_tables_and_pictures(tmp_path, people):
    coder = Coder.read(save_random_prior(tmp_path / "prior.safetensors"), torch.device("cpu"))
    held, denoised = reconstruction(coder, people), denoising(coder, people)
    assert len(held_table(held).splitlines()) == 2 + len(held)
    columns = {line.count("|") for line in held_table(held).splitlines()} | {12}
    assert columns == {12} and "°" in denoised_table(denoised)
    assert sheet(coder, people, spoilt=True).shape == (3, 3 * 3 * SIZE, 2 * len(MAPS) * SIZE)
    assert verdict("skill", 0.55, 0.6).endswith("MISSED by 0.050")
    assert verdict("skill", 0.6, 0.6).endswith("met")


def test_retrieval_rate():
    gallery = torch.eye(6)
    assert rate(gallery, gallery).value == 1.0
    assert rate(gallery.roll(1, 0), gallery).value == 0.0
    assert rate(torch.cat([gallery[:3], gallery[:3]]), gallery).value == 0.5


def test_differences_between_codebooks_and_the_share_of_work():
    flats = torch.rand(8, 3, generator=torch.Generator().manual_seed(0)) + 0.5
    gap = difference([0.2 * flats, 0.4 * flats], [0.5 * flats, flats], flats)
    assert gap.value == pytest.approx(0.45) and gap.high - gap.low < 1e-6
    shares = shared_out([0, 1, 2], 2)
    assert sorted(chain for share in shares for chain in share) == sorted(
        (s, w) for s in range(3) for w in (False, True)
    )
    assert {sum(2 if wide else 3 for _, wide in share) for share in shares} <= {7, 8}
