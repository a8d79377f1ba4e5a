"""Every stage trained after the one before it: losses fall, files are complete, and a stopped run goes on exactly."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import two_processes
from PIL import Image
from pretend_device import PRETEND, PretendDevice
from safetensors.torch import load_file
from torch import nn
from training_data import SIDE, SIZES, toy_settings

from nextface.ini import read_ini
from nextface.prior import FusedAutoencoder, FusedSwapper, IdentityEncoder, VQAutoencoder
from nextface.prior.checkpoint import load_weights, read_notes, read_weights
from nextface.prior.encoding import Encoding
from nextface.prior.projection import Projection
from nextface.prior.train.corruption import Draws, corrupted
from nextface.prior.train.loop import SETTINGS, STATE, WEIGHTS, train
from nextface.prior.train.perceptual import laplacian_loss
from nextface.prior.train.processes import Processes
from nextface.prior.train.sizes import Checkpoint, Sizes
from nextface.prior.train.sources import folder_encoding, open_folders, open_source
from nextface.prior.train.stages import DISCRIMINATOR, Start, make_task, prepare
from nextface.prior.train.tasks import Run
from nextface.train_config import TrainSettings

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"stage1": 40, "stage2": 40, "fusion": 32, "denoise": 160, "identity": 24, "swapper": 20}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def chain(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the training of every stage in a folder of its name."""
    runs = tmp_path_factory.mktemp("chain")

    def run(stage: str, *start: str, identity: str | None = None) -> None:
        steps = STEPS[stage]
        settings = toy_settings(stage, crops, iterations=steps, log_every=steps // 4, sample_every=steps, average=0.9)
        if stage == "denoise":
            settings = replace(settings, learning_rate=1e-3, final_rate=1e-4)
        files = tuple(runs / name / WEIGHTS for name in start)
        given = Start(files, None if identity is None else runs / identity / WEIGHTS)
        train(stage, settings, runs / stage, given, published=stage in ("stage1", "denoise"))

    run("stage1")
    run("stage2", "stage1")
    run("fusion", "stage2")
    run("denoise", "fusion")
    run("identity")
    run("swapper", "denoise", identity="identity")
    return runs


def curve(folder: Path, name: str) -> list[float]:
    with (folder / "losses.csv").open(encoding="utf-8") as file:
        return [float(line[name]) for line in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("stage", "name", "share"),
    [
        ("stage1", "pixel", 0.8),
        ("stage2", "pixel", 0.9),
        ("fusion", "loss", 0.95),
        ("identity", "loss", 0.5),
        ("swapper", "identity", 0.6),
    ],
)
def test_losses_fall(chain: Path, stage: str, name: str, share: float):
    values = curve(chain / stage, name)
    assert len(values) == 4 and all(np.isfinite(values))
    assert values[-1] < share * values[0]


def test_the_denoiser_brings_spoilt_crops_nearer_to_clean_ones(chain: Path, crops: Path):
    settings = toy_settings("denoise", crops, batch=32, seed=5, masked=0.0)
    batch = next(open_folders("denoise", settings, folder_encoding(settings, SIZES), 32))
    draws = Draws.of(32, torch.Generator().manual_seed(6))
    spoilt = corrupted(batch.image, batch.domain, replace(draws, strength=torch.full_like(draws.strength, 0.8)))
    touched = batch.domain > 0
    projection = Projection.read(chain / "denoise" / WEIGHTS, torch.device("cpu"))
    errors = [(each - batch.image)[touched].square().mean() for each in (projection.cleaned(spoilt), spoilt)]
    assert float(errors[0]) < 0.99 * float(errors[1])
    assert torch.equal(projection(spoilt), Projection.read(chain / "fusion" / WEIGHTS, torch.device("cpu"))(spoilt))


def test_checkpoints_load_by_themselves(chain: Path):
    kinds = {
        "stage1": VQAutoencoder, "stage2": FusedAutoencoder, "fusion": FusedAutoencoder, "denoise": FusedAutoencoder,
        "identity": IdentityEncoder, "swapper": FusedSwapper,
    }  # fmt: skip
    for stage, kind in kinds.items():
        checkpoint = Checkpoint.read(chain / stage / WEIGHTS)
        assert checkpoint.sizes == SIZES
        assert type(checkpoint.build((kind.__name__,), Sizes())) is kind
        assert checkpoint.notes["stage"] == stage and checkpoint.notes["step"] == STEPS[stage]
        assert not {"photos", "people"} & set(checkpoint.notes["settings"])


def test_encoding_tells_the_noise_floor(chain: Path):
    encoding = Encoding.from_notes(read_notes(chain / "fusion" / WEIGHTS)["encoding"])
    assert (encoding.crop, encoding.image_size, encoding.norm_groups) == ("tight", SIDE, 4)
    assert all(0.01 < floor < 1.0 for floor in encoding.noise_floor)
    swapper = Encoding.from_notes(read_notes(chain / "swapper" / WEIGHTS)["encoding"])
    assert not any(swapper.noise_floor)


def test_only_the_named_parts_learn(chain: Path):
    moving = {
        ("stage2", "fusion"): ("encoder.", "fusion.", "generator."),
        ("fusion", "denoise"): ("denoiser.",),
        ("denoise", "swapper"): ("fuse_convs_dict.",),
    }
    for (before, after), starts in moving.items():
        old, new = load_file(chain / before / WEIGHTS), load_file(chain / after / WEIGHTS)
        changed = {key for key in new if key not in old or not torch.equal(old[key], new[key])}
        assert changed and all(key.startswith(starts) for key in changed)
        assert {start for start in starts for key in changed if key.startswith(start)} == set(starts)
    old, new = load_file(chain / "stage1" / WEIGHTS), load_file(chain / "stage2" / WEIGHTS)
    assert not torch.equal(old["quantize.embedding.weight"], new["quantize.embedding.weight"])


def test_domain_codebooks_start_from_data_and_part(chain: Path):
    tables = load_file(chain / "stage2" / WEIGHTS)
    diffuse, normal = (tables[f"quantize_{domain}.embedding.weight"] for domain in ("diffuse", "normal"))
    assert diffuse.norm(dim=1).min() > 1.0 / SIZES.autoencoder.codes  # not the published start, uniform in ±1/K
    apart = torch.cdist(diffuse, normal).amin(1).mean()
    assert apart > 0.05


def test_samples_and_settings_are_written(chain: Path, crops: Path):
    with Image.open(chain / "swapper" / "samples" / f"swapper_{STEPS['swapper']:08d}.png") as picture:
        assert picture.size == (8 * SIDE, 3 * SIDE)
    written = TrainSettings().with_texts(read_ini(chain / "fusion" / SETTINGS))
    assert written.reflectance == str(crops / "reflectance") and written.iterations == STEPS["fusion"]


def test_published_layout(chain: Path):
    content = torch.load(chain / "stage1" / "net_g_latest.pth", weights_only=True)
    assert set(content) == {"params", "params_ema"} and content["params"].keys() == content["params_ema"].keys()
    load_weights(VQAutoencoder(SIZES.autoencoder), chain / "stage1" / "net_g_latest.pth")
    average = read_weights(chain / "stage1" / "net_g_latest.pth")
    own = load_file(chain / "stage1" / WEIGHTS)
    assert all(torch.equal(average[key], own[key]) for key in own)
    load_weights(FusedAutoencoder(SIZES.autoencoder, SIZES.fusion), chain / "denoise" / "net_g_latest.pth")


def test_published_stage_2_of_each_domain_and_its_fusion(chain: Path, crops: Path, tmp_path: Path):
    stage1 = chain / "stage1" / WEIGHTS
    files = [stage1]
    for domain in ("diffuse", "specular", "normal", "roughness"):
        settings = toy_settings("stage2", crops, iterations=1, domain=domain)
        files.append(train("stage2", settings, tmp_path / domain, Start((stage1,))))
    out = train("fusion", toy_settings("fusion", crops, iterations=1), tmp_path / "fusion", Start(tuple(files)))
    fused = load_file(out)
    assert torch.equal(fused["quantize.embedding.weight"], load_file(stage1)["quantize.embedding.weight"])
    for file, domain in zip(files[1:], ("diffuse", "specular", "normal", "roughness"), strict=True):
        table = load_file(file)["quantize.embedding.weight"]
        assert torch.equal(fused[f"quantize_{domain}.embedding.weight"], table)


@pytest.mark.parametrize(("stage", "start"), [("stage2", "stage1"), ("denoise", "fusion"), ("swapper", "denoise"), ("identity", None)])  # fmt: skip
def test_a_stopped_run_ends_with_the_same_bytes(
    chain: Path, crops: Path, tmp_path: Path, stage: str, start: str | None
):
    """With a discriminator in stage 2. The stop falls between two checkpoints' worth of lines."""
    playing = {"weight_adversarial": 0.8, "adversarial_start": 2} if stage == "stage2" else {}
    settings = toy_settings(stage, crops, iterations=6, **playing)
    given = Start(() if start is None else (chain / start / WEIGHTS,), chain / "identity" / WEIGHTS)
    train(stage, settings, tmp_path / "whole", given)
    train(stage, settings, tmp_path / "parts", given, stop_after=3)
    assert read_notes(tmp_path / "parts" / STATE)["step"] == 3
    train(stage, settings, tmp_path / "parts", given)
    names = [STATE, WEIGHTS, *([DISCRIMINATOR] if playing else [])]
    assert all((tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes() for name in names)
    steps = curve(tmp_path / "parts", "step")
    assert steps == [2, 3, 4, 6] and curve(tmp_path / "whole", "step") == [2, 4, 6]
    assert curve(tmp_path / "parts", "loss")[-1] == curve(tmp_path / "whole", "loss")[-1]


def test_bfloat16(crops: Path, tmp_path: Path):
    settings = toy_settings("stage1", crops, iterations=2, precision="bfloat16")
    weights = load_file(train("stage1", settings, tmp_path))
    assert all(each.dtype == torch.float32 and each.isfinite().all() for each in weights.values())
    plain = load_file(train("stage1", toy_settings("stage1", crops, iterations=2), tmp_path / "plain"))
    assert any(not torch.equal(weights[key], plain[key]) for key in plain)


@pytest.mark.parametrize(("stage", "start"), [("stage1", None), ("stage2", "stage1"), ("denoise", "fusion"), ("identity", None), ("swapper", "fusion")])  # fmt: skip
def test_nothing_is_left_behind_on_another_device(chain: Path, crops: Path, stage: str, start: str | None):
    playing = {"weight_adversarial": 0.8, "adversarial_start": 1} if stage in ("stage1", "stage2") else {}
    settings = toy_settings(stage, crops, restart_every=1, **playing)
    given = Start(() if start is None else (chain / start / WEIGHTS,), chain / "identity" / WEIGHTS)
    prepared = prepare(stage, settings, given)
    source = open_source(stage, settings, SIZES, torch.device("cpu"))
    with PretendDevice():
        for module in (prepared.net, prepared.critic, prepared.encoder):
            if module is not None:
                put_on(module, PRETEND)
        run = Run(settings, Processes(), PRETEND, laplacian_loss, torch.Generator())
        task = make_task(prepared, run)
        task.start(lambda: next(source).to(PRETEND, torch.float32))
        for step in (1, 2):
            told = task.step(next(source).to(PRETEND, torch.float32), step)
            assert all(np.isfinite(float(value)) for value in told.values())
        task.pictures(next(source).to(PRETEND, torch.float32))


def put_on(module: nn.Module, device: torch.device) -> None:
    """`module.to(device)`, which torch refuses for tensors of a class of their own."""
    for each in module.modules():
        for name, parameter in list(each.named_parameters(recurse=False)):
            setattr(each, name, nn.Parameter(parameter.detach().to(device)))
        for name, buffer in list(each.named_buffers(recurse=False)):
            setattr(each, name, buffer.to(device))


@pytest.mark.slow
def test_two_processes_are_one(chain: Path, crops: Path, tmp_path: Path):
    """Gloo, with discriminators, shared batch norms, counted codes, restarts and permuted identities."""
    two_processes.run(crops, chain, tmp_path / "one")
    together(tmp_path / "two", [two_processes.__file__, str(crops), str(chain), str(tmp_path / "two")])
    for stage in two_processes.STARTS:
        one, two = (load_file(tmp_path / where / stage / WEIGHTS) for where in ("one", "two"))
        assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-5, stage
        one, two = (load_file(tmp_path / where / stage / STATE) for where in ("one", "two"))
        assert one.keys() == two.keys()
        for name in ("loss", "pixel") if stage != "identity" else ("loss", "recognised"):
            np.testing.assert_allclose(*(curve(tmp_path / where / stage, name) for where in ("one", "two")), atol=1e-5)
    assert any("opponent" in key for key in load_file(tmp_path / "two" / "stage1" / STATE))
    for name in ("loss", "pixel", "codebook", "codes in use, shared"):  # in single precision, by the command
        np.testing.assert_allclose(*(curve(tmp_path / where / "command", name) for where in ("one", "two")), atol=1e-5)


def together(folder: Path, words: list[str]) -> None:
    """Run a Python command in two processes that find each other as under torchrun."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "prior")]),
    }  # fmt: skip
    logs = [(folder / f"rank{rank}.log").open("w+", encoding="utf-8") for rank in range(2)]
    ranks = [
        subprocess.Popen(
            [sys.executable, *words],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=log,
            stderr=log,
        )
        for rank, log in enumerate(logs)
    ]
    for rank in ranks:
        rank.wait(timeout=120)
    for rank, log in zip(ranks, logs, strict=True):
        log.seek(0)
        assert rank.returncode == 0, log.read()
        log.close()
