"""Training crops from folders: layouts, encodings, masks, sharing among processes, and every mistake in them."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_data import SIDE, SIZES, batches, same, toy_settings

from nextface import cli
from nextface.errors import ConfigError, InputError
from nextface.prior.batch import Batch
from nextface.prior.encoding import Encoding
from nextface.prior.fusion import DOMAINS
from nextface.prior.settings import SwapSettings
from nextface.prior.train.folders import (
    FolderSource,
    mirrored,
    people_folder,
    photo_folder,
    random_mask,
    read_crop,
    reflectance_folder,
    shard_rows,
)
from nextface.prior.train.loop import train
from nextface.prior.train.sizes import Checkpoint, Sizes, read_sizes
from nextface.prior.train.sources import MixedSource, folder_encoding, open_folders, open_source
from nextface.prior.train.stages import Start, prepare
from nextface.train_config import STAGES, TrainSettings

PLAIN = Encoding(image_size=32, specular=(0.0, 1.0), roughness=(0.0, 1.0))
CPU = torch.device("cpu")


def opened(crops: Path, stage: str = "stage1", **changes: object) -> FolderSource:
    settings = toy_settings(stage, crops, **changes)
    return open_folders(stage, settings, folder_encoding(settings, SIZES), settings.batch)


def test_layouts(crops: Path):
    photos = photo_folder(crops / "photos")
    assert len(photos.files[0]) == 6 and not photos.known
    assert [path.name for path in photos.files[0]] == [f"{number:05d}.png" for number in range(6)]
    kinds = reflectance_folder(crops / "reflectance")
    assert [kind.domain for kind in kinds] == list(DOMAINS[1:]) and [kind.codebook for kind in kinds] == [1, 2, 3, 4]
    assert [kind.domain for kind in reflectance_folder(crops / "reflectance", "normal")] == ["normal"]
    (alone,) = reflectance_folder(crops / "reflectance" / "normal", "normal")
    assert (alone.domain, alone.codebook) == ("normal", 3)
    (mixed,) = reflectance_folder(crops / "reflectance" / "normal", mixed=True)
    assert (mixed.domain, mixed.codebook) == ("diffuse", 0)
    people = people_folder(crops / "people")
    assert people.known and [len(files) for files in people.files] == [3, 3, 3]


def test_rows_of_a_batch(crops: Path):
    """Photos and reflectance half and half, every file of each; normals have unit length; masks are grey outside."""
    source = opened(crops, batch=200)
    batch = next(source)
    assert batch.image.shape == (200, 3, SIDE, SIDE) and batch.image.abs().max() <= 1.0
    share = (batch.domain == 0).float().mean()
    assert 0.4 < share < 0.6 and set(batch.domain.tolist()) == {0, 1, 2, 3, 4}
    assert batch.mask is not None and (batch.identity == -1).all() and batch.partner is None
    whole = batch.mask.amin((1, 2, 3)) == 1.0
    assert 0.35 < whole.float().mean() < 0.65
    assert not (batch.image * (1.0 - batch.mask)).any()
    normals = batch.image[(batch.domain == 3) & whole]
    assert (normals.norm(dim=1) - 1.0).abs().max() < 0.02
    assert (normals[:, 2] > 0.0).all()
    grey = batch.image[(batch.domain == 2) | (batch.domain == 4)]
    assert torch.equal(grey[:, 0], grey[:, 1])


def test_mirrored_normals_still_point_outwards(crops: Path):
    normals = read_crop(crops / "reflectance" / "normal" / "0.png", "normal", PLAIN)
    assert normals[0, 0, 16, 0] < -0.2 and normals[0, 0, 16, -1] > 0.2
    torch.testing.assert_close(mirrored(normals, "normal"), normals, atol=0.08, rtol=0)  # the blob is nearly symmetric
    assert torch.equal(mirrored(normals, "diffuse"), normals.flip(-1))


def test_values_of_files(tmp_path: Path):
    deep = np.full((32, 32), 257 * 51 + 100, np.uint16)  # 0.2 and 100 steps that 8 bits cannot hold
    Image.fromarray(deep).save(tmp_path / "deep.png")
    value = read_crop(tmp_path / "deep.png", "roughness", PLAIN)
    torch.testing.assert_close(value, torch.full((1, 3, 32, 32), 2 * (257 * 51 + 100) / 65535 - 1))
    stretched = read_crop(tmp_path / "deep.png", "roughness", replace(PLAIN, roughness=(0.1, 0.6)))
    torch.testing.assert_close(stretched, (value + 1.0 - 0.2) * 2.0 - 1.0)
    Image.new("RGB", (64, 64), (200, 100, 50)).save(tmp_path / "colour.png")
    colour = read_crop(tmp_path / "colour.png", "shared", PLAIN)
    torch.testing.assert_close(colour[0, :, 5, 5], torch.tensor([200, 100, 50]) / 127.5 - 1.0, atol=1e-4, rtol=0)


def test_people_come_in_pairs(crops: Path):
    batch = next(opened(crops, "identity", batch=24))
    assert batch.partner is not None and set(batch.identity.tolist()) == {0, 1, 2}
    # ann is red, bob green, cyd blue
    for image in (batch.image, batch.partner):
        assert torch.equal(image[:, :, SIDE // 2, SIDE // 2].argmax(1), batch.identity)
    assert not torch.equal(batch.image, batch.partner)


def test_stream_is_the_same_however_it_is_read(crops: Path):
    first = batches(opened(crops), 4)
    assert all(same(a, b) for a, b in zip(first, batches(opened(crops, workers=3), 4), strict=True))
    assert not same(first[0], first[1]) and not same(first[0], next(opened(crops, seed=1)))
    stopped = opened(crops)
    batches(stopped, 2)
    further = opened(crops)
    next(further)
    further.load_state_dict(stopped.state_dict())
    assert all(same(a, b) for a, b in zip(first[2:], batches(further, 2), strict=True))
    shards = [opened(crops).shard(rank, 4) for rank in range(4)]
    for whole in first:
        assert same(whole, Batch.joined([next(shard) for shard in shards]))
    late = stopped.shard(1, 2)
    assert torch.equal(next(late).image, first[2].image[4:])


def test_mixed_sources(crops: Path):
    parts = [opened(crops, batch=4), opened(crops, batch=2, seed=1)]
    mixed = MixedSource([opened(crops, batch=4), opened(crops, batch=2, seed=1)])
    first = next(mixed)
    assert same(first, Batch.joined([next(part) for part in parts])) and len(first.image) == 6
    state, second = mixed.state_dict(), next(mixed)
    mixed.load_state_dict(state)
    assert same(next(mixed), second)
    halves = [MixedSource([opened(crops, batch=4), opened(crops, batch=2, seed=1)]).shard(rank, 2) for rank in range(2)]
    rows = torch.cat([next(half).image for half in halves])
    assert torch.equal(rows.sum((1, 2, 3)).sort().values, first.image.sum((1, 2, 3)).sort().values)
    with pytest.raises(ConfigError, match="cannot be mixed"):
        MixedSource([opened(crops), opened(crops, crop="ffhq")])


def test_joined_batches_fill_in_masks():
    def part(mask: bool, partner: bool) -> Batch:
        image, rows = torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64)
        return Batch(image, rows, rows, torch.zeros(2, 1, 4, 4) if mask else None, None, image if partner else None)

    joined = Batch.joined([part(True, True), part(False, False)])
    assert joined.mask is not None and joined.mask.mean((1, 2, 3)).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert joined.partner is None
    assert Batch.joined([part(False, True), part(False, True)]).mask is None


def test_random_masks_are_blobs_of_every_size():
    shares = [float(random_mask(np.random.default_rng(seed), 64).mean()) for seed in range(40)]
    assert min(shares) > 0.05 and max(shares) < 0.95 and np.std(shares) > 0.1


def test_generated_faces_stand_in_for_folders(crops: Path, monkeypatch):
    """Alone without folders, beside them with a share; what the generator draws is tested with it."""
    made: list[tuple] = []

    class Generated:
        def __init__(self, model: object, faces: object, encoding: Encoding, device: object) -> None:
            made.append((faces, encoding))
            self.inner = opened(crops, batch=faces.batch)
            self.encoding = encoding

        def __next__(self) -> Batch:
            return next(self.inner)

    monkeypatch.setattr("nextface.prior.train.sources.GeneratedFaces", Generated)
    monkeypatch.setattr("nextface.prior.train.sources.read_open_head", lambda path: None)
    alone = TrainSettings.of("swapper", "small")
    assert type(open_source("swapper", alone, SIZES, CPU)) is Generated
    assert made[-1][0].strangers and not made[-1][0].partners and min(made[-1][0].weights) > 0.0
    assert made[-1][0].batch == 8
    mixed = open_source("swapper", toy_settings("swapper", crops, generated=0.5), SIZES, CPU)
    assert isinstance(mixed, MixedSource) and made[-1][0].weights == (0.4, 0.0, 0.0, 0.0, 0.0)
    assert made[-1][0].partners and not made[-1][0].strangers and made[-1][0].batch == 4
    mixed = open_source("denoise", toy_settings("denoise", crops, generated=0.5), SIZES, CPU)
    assert isinstance(mixed, MixedSource) and [len(next(part).image) for part in mixed.parts] == [4, 4]
    assert made[-1][0].corrupted and made[-1][1].image_size == SIDE
    assert isinstance(open_source("stage1", toy_settings("stage1", crops), SIZES, CPU), FolderSource)
    open_source("stage2", replace(TrainSettings.of("stage2", "small"), domain="normal"), SIZES, CPU)
    assert made[-1][0].weights == (0.5, 0.0, 0.0, 0.5, 0.0)


def failing(capsys, *words: object, message: str, code: int) -> None:
    """The command says in one line what is wrong."""
    assert cli.main(["train-prior", *map(str, words)]) == code
    error = capsys.readouterr().err
    assert error.startswith("nextface: error: ") and error.count("\n") == 1, error
    assert message in error


def test_wrong_words(tmp_path: Path, crops: Path, capsys):
    out = ["--output", tmp_path / "out", "--device", "cpu"]
    failing(capsys, "stage3", *out, message="'stage3'", code=2)
    failing(capsys, "stage1", *out, "--photo", crops, message="did you mean '--photos'?", code=2)
    failing(capsys, "stage1", *out, "--preset", "huge", message="published", code=2)
    failing(capsys, "stage1", *out, "--finalRate", "1", message="the rate would rise", code=2)
    failing(capsys, "stage1", *out, "--generated", "2", message="from 0 to 1", code=2)
    failing(capsys, "stage1", *out, "--sizes", "none.json", message="none.json", code=2)
    failing(capsys, "stage1", *out, "--photos", tmp_path / "none", message="cannot be read", code=3)
    failing(capsys, "stage2", *out, message="--from", code=2)
    failing(capsys, "fusion", *out, "--from", "a", "b", message="1 or 5", code=2)
    failing(capsys, "stage2", *out, "--from", tmp_path / "none.safetensors", message="none.safetensors", code=3)
    (tmp_path / "my.ini").write_text("seeds = 3\n", encoding="utf-8")
    failing(capsys, "stage1", *out, "--config", tmp_path / "my.ini", message="my.ini: unknown setting 'seeds'; did you mean 'seed'?", code=2)  # fmt: skip


def test_defaults_of_stages_and_presets(tmp_path: Path, monkeypatch):
    seen = []
    monkeypatch.setattr("nextface.prior.train.loop.train", lambda *given, **rest: seen.append(given) or "weights")
    monkeypatch.setattr(cli, "set_threads", lambda config, environment: None)
    (tmp_path / "my.ini").write_text("preset = published\nseed = 3\nbatch = 24\n", encoding="utf-8")
    words = ["train-prior", "stage2", "--output", str(tmp_path), "--config", str(tmp_path / "my.ini")]
    assert cli.main([*words, "--batch", "6", "--from", "a.pth"]) == 0
    stage, settings, output, start = seen[0]
    assert (stage, output, start) == ("stage2", tmp_path, Start((Path("a.pth"),)))
    assert (settings.batch, settings.seed, settings.learning_rate) == (6, 3, 5e-5)
    assert settings.weight_adversarial == 0.8 and settings.adversarial_start == 30002
    for stage, preset in itertools.product(STAGES, ("small", "published")):
        own = TrainSettings.of(stage, preset)
        assert own.final_rate <= own.learning_rate and (preset == "published" or own.weight_adversarial == 0.0)
        assert TrainSettings().with_texts({key: str(value) for key, value in own.as_keys().items()}) == own


def test_wrong_folders(crops: Path, tmp_path: Path):
    with pytest.raises(InputError, match="no images"):
        photo_folder(tmp_path)
    with pytest.raises(InputError, match="every person needs one"):
        people_folder(crops / "photos" / "00000")
    with pytest.raises(InputError, match="--domain"):
        reflectance_folder(crops / "reflectance" / "normal")
    shutil.copytree(crops / "reflectance" / "normal", tmp_path / "some" / "normal")
    with pytest.raises(InputError, match="no subfolder diffuse; it has normal"):
        reflectance_folder(tmp_path / "some", "diffuse")
    Image.new("RGB", (64, 48)).save(tmp_path / "wide.png")
    with pytest.raises(InputError, match="square"):
        read_crop(tmp_path / "wide.png", "shared", PLAIN)
    with pytest.raises(ConfigError, match="multiple of 3"):
        shard_rows(8, 0, 3)
    with pytest.raises(InputError, match="people"):
        settings = toy_settings("identity", crops)
        train("identity", settings, tmp_path / "run", source=lambda *given: opened(crops))


def test_wrong_checkpoints(crops: Path, tmp_path: Path):
    weights = train("stage1", toy_settings("stage1", crops, iterations=1), tmp_path / "stage1")
    identity = train("identity", toy_settings("identity", crops, iterations=1), tmp_path / "identity")
    with pytest.raises(InputError, match="FusedAutoencoder is needed"):
        prepare("fusion", toy_settings("fusion", crops), Start((weights,)))
    with pytest.raises(InputError, match="IdentityEncoder, but a VQAutoencoder"):
        prepare("stage2", toy_settings("stage2", crops), Start((identity,)))
    with pytest.raises(ConfigError, match="--identity"):
        prepare("swapper", toy_settings("swapper", crops), Start((weights,)))
    with pytest.raises(ConfigError, match="not the sizes of"):
        prepare("stage2", toy_settings("stage2", crops, sizes="small"), Start((weights,)))
    content = Checkpoint.read(weights)
    torch.save(content.weights, tmp_path / "foreign.pth")  # of the same sizes, but it does not say so
    with pytest.raises(InputError, match="of another shape"):
        prepare("stage2", toy_settings("stage2", crops), Start((tmp_path / "foreign.pth",)))
    given = Start((tmp_path / "foreign.pth",))
    assert prepare("stage2", toy_settings("stage2", crops, sizes=str(crops / "sizes.json")), given).sizes == SIZES
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="no network of the prior"):
        prepare("stage2", toy_settings("stage2", crops), Start((tmp_path / "other.pth",)))


def test_identities_of_another_length(crops: Path, tmp_path: Path):
    sizes = replace(SIZES, swap=SwapSettings(7, (8,)))
    weights = train("stage1", toy_settings("stage1", crops, iterations=1), tmp_path / "stage1")
    identity = train("identity", toy_settings("identity", crops, iterations=1), tmp_path / "identity")
    content = Checkpoint.read(weights)
    torch.save(content.weights, tmp_path / "foreign.pth")
    (tmp_path / "sizes.json").write_text(str(sizes.notes()).replace("'", '"'), encoding="utf-8")
    settings = toy_settings("swapper", crops, sizes=str(tmp_path / "sizes.json"))
    with pytest.raises(InputError, match="identities of 5 numbers"):
        prepare("swapper", settings, Start((tmp_path / "foreign.pth",), identity))


def test_a_training_of_other_settings_does_not_go_on(crops: Path, tmp_path: Path):
    train("stage1", toy_settings("stage1", crops, iterations=1), tmp_path)
    with pytest.raises(ConfigError, match="seed = 5 differs"):
        train("stage1", toy_settings("stage1", crops, iterations=2, seed=5), tmp_path)
    with pytest.raises(ConfigError, match="holds a training of stage1, not identity"):
        train("identity", toy_settings("identity", crops), tmp_path)
    weights = train("stage1", toy_settings("stage1", crops, iterations=2, workers=2), tmp_path)
    assert Checkpoint.read(weights).notes["step"] == 2
    (tmp_path / "training.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        train("stage1", toy_settings("stage1", crops), tmp_path)


def test_sizes_in_a_file(tmp_path: Path):
    file = tmp_path / "sizes.json"
    file.write_text('{"autoencoder": {"codes": 2048}, "patch_width": 32}', encoding="utf-8")
    assert read_sizes(str(file)).autoencoder.codes == 2048 and read_sizes(str(file)).fusion == Sizes().fusion
    for text, message in (
        ('{"encoder": {}}', "unknown: encoder"),
        ('{"autoencoder": {"colour": 3}}', "colour"),
        ('{"patch_width": "wide"}', "'wide'"),
        ('{"autoencoder": 3}', "not an object"),
        ("[]", "no JSON object"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            read_sizes(str(file))
