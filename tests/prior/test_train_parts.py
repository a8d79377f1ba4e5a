"""The parts of training by themselves: schedules, averages, losses, codebooks, corruption, records."""

from __future__ import annotations

import logging
import math
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn.functional import avg_pool2d, interpolate, normalize
from toy_prior import TOY

from nextface.errors import ConfigError, FitError, InputError, MissingPackageError
from nextface.prior import VQAutoencoder
from nextface.prior.batch import Batch
from nextface.prior.discriminators import ProjectedDiscriminator
from nextface.prior.fusion import DOMAINS
from nextface.prior.identity import IdentityEncoder
from nextface.prior.settings import IdentitySettings, SwapSettings
from nextface.prior.swapper import Swapper
from nextface.prior.train import perceptual
from nextface.prior.train.codebooks import Codebooks
from nextface.prior.train.corruption import Draws, corrupted
from nextface.prior.train.learner import Cosine, Learner
from nextface.prior.train.losses import (
    adaptive_weight,
    fooling,
    identity_loss,
    inside,
    pixel_loss,
    recognition_loss,
    telling_apart,
)
from nextface.prior.train.processes import Processes, SharedBatchNorm
from nextface.prior.train.records import Records
from nextface.prior.train.swapping import Swapping, is_pair_step
from nextface.prior.train.tasks import Opponent, Run
from nextface.train_config import TrainSettings

ALONE = Processes()


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(autouse=True)
def fixed_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_cosine_is_the_published_one_and_then_stays():
    rate = Cosine(8e-5, 6e-5, 100)
    assert rate.at(1) == pytest.approx(8e-5) and rate.at(2) < rate.at(1)
    assert rate.at(51) == pytest.approx(7e-5)
    assert rate.at(31) == pytest.approx(6e-5 + 0.5 * 2e-5 * (1 + math.cos(0.3 * math.pi)))
    assert rate.at(101) == rate.at(10**6) == pytest.approx(6e-5)


def test_average_follows_the_parameters_alone():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    learner = Learner(module, Cosine(0.1, 0.1, 10), ALONE, ("0.", "1."), decay=0.75)
    wanted = {name: each.detach().clone() for name, each in module.named_parameters()}
    frozen = module[2].weight.detach().clone()
    for step in range(1, 4):
        learner.clear()
        module(noise(6, 2, seed=step)).square().mean().backward()
        learner.descend(step)
        for name, each in module.named_parameters():
            wanted[name] = 0.75 * wanted[name] + 0.25 * each.detach()
    averaged = learner.averaged()
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        torch.testing.assert_close(averaged[name], wanted[name])
        assert not torch.equal(averaged[name], dict(module.named_parameters())[name])
    assert torch.equal(averaged["1.running_mean"], module[1].running_mean)
    assert torch.equal(module[2].weight, frozen) and not module[2].weight.requires_grad
    before = module[0].weight.detach().clone()
    with learner.averages_in_place():
        assert torch.equal(module[0].weight, averaged["0.weight"])
    assert torch.equal(module[0].weight, before)


def test_learner_refuses_another_networks_state():
    small, large = (Learner(nn.Linear(2, n), Cosine(0.1, 0.1, 10), ALONE) for n in (2, 3))
    with pytest.raises(InputError, match="another network"):
        large.load_state_dict(small.state_dict())


def test_losses_by_hand():
    image, target = noise(2, 3, 4, 4), noise(2, 3, 4, 4, seed=1)
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, :2], mask[1] = 1.0, 1.0
    first, second = (image - target).abs()[0, :, :2].mean(), (image - target).abs()[1].mean()
    torch.testing.assert_close(pixel_loss(image, target, mask), (first + second) / 2)
    torch.testing.assert_close(pixel_loss(image, target), (image - target).abs().mean())
    assert torch.equal(inside(image, target, mask)[0, :, 2:], target[0, :, 2:])
    assert torch.equal(inside(image, target, mask)[1], image[1])
    logits = torch.tensor([-2.0, 0.5, 3.0])
    assert fooling(logits) == pytest.approx(-0.5)
    assert telling_apart(logits, logits) == pytest.approx((3.0 + 0.5 + 0.0) / 3 + (0.0 + 1.5 + 4.0) / 3)
    assert adaptive_weight(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 20.0])) == pytest.approx(0.25, rel=1e-4)
    assert adaptive_weight(torch.tensor([3.0, 4.0]), torch.tensor([0.1])) == 1.0


def test_identity_losses():
    first, second = normalize(noise(4, 8), dim=1), normalize(noise(4, 8, seed=1), dim=1)
    everyone = torch.ones(4, dtype=torch.bool)
    cosine = (first * second).sum(1)
    torch.testing.assert_close(identity_loss(first, second, everyone), 1.0 - cosine.mean())
    torch.testing.assert_close(identity_loss(first, second, torch.arange(4) == 2), (1.0 - cosine[2]) / 4)
    people = torch.arange(4)
    assert recognition_loss(first, first, people) < 0.1 < recognition_loss(first, first.roll(1, 0), people)
    # Two rows of one person do not repel each other.
    doubled = first[[0, 0, 1, 2]]
    same = recognition_loss(doubled, doubled, torch.tensor([0, 0, 1, 2]))
    assert same < recognition_loss(doubled, doubled, people)


def laplacian_by_hand(image: Tensor, target: Tensor) -> Tensor:
    """Pyramids of both, band by band."""
    total, pair = torch.zeros(()), [image, target]
    while pair[0].shape[-1] > 8:
        coarse = [avg_pool2d(each, 2) for each in pair]
        first, second = (
            each - interpolate(low, scale_factor=2, mode="bilinear") for each, low in zip(pair, coarse, strict=True)
        )
        total, pair = total + (first - second).abs().mean(), coarse
    return total + (pair[0] - pair[1]).abs().mean()


@pytest.mark.grad
def test_laplacian_loss():
    image, target = noise(2, 3, 32, 32), noise(2, 3, 32, 32, seed=1)
    torch.testing.assert_close(perceptual.laplacian_loss(image, target), laplacian_by_hand(image, target))
    assert perceptual.laplacian_loss(image, image) == 0.0
    # It tells detail that a pixel loss weighs like any other error.
    flat = torch.full_like(image, 0.1)
    checks = 0.1 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16).expand_as(image)
    assert perceptual.laplacian_loss(image + checks, image) == pytest.approx(0.1, rel=1e-4)
    assert perceptual.laplacian_loss(image + flat, image) == pytest.approx(0.1, rel=1e-4)
    wide = noise(1, 3, 16, 16, dtype=torch.float64).requires_grad_()
    assert gradcheck(perceptual.laplacian_loss, (wide, noise(1, 3, 16, 16, seed=1, dtype=torch.float64)))


@pytest.mark.grad
def test_feature_loss_takes_any_network():
    network, head = nn.Conv2d(3, 4, 3).double(), nn.Conv2d(4, 1, 1).double()
    loss = perceptual.FeatureLoss(lambda image: [network(image), image], [head, lambda square: square.mean(1, True)])
    image, target = (noise(2, 3, 6, 6, seed=seed, dtype=torch.float64) for seed in (0, 1))
    first, second = (normalize(network(each), dim=1) for each in (image, target))
    wanted = head((first - second).square()).mean() + (normalize(image) - normalize(target)).square().mean()
    torch.testing.assert_close(loss(image, target), wanted)
    assert gradcheck(loss, (image.requires_grad_(), target))
    empty = torch.zeros(1, 3, 4, 4, requires_grad=True)
    perceptual.FeatureLoss(lambda image: [image])(empty, torch.zeros(1, 3, 4, 4)).backward()
    assert empty.grad.isfinite().all()


@pytest.fixture
def lpips_package(monkeypatch, tmp_path: Path):
    """A package with the parts of lpips that are used: scaling layer, VGG, heads."""

    class Model(nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()
            assert net == "vgg" and not verbose
            self.scaling_layer, self.net = nn.Identity(), lambda image: (image,)
            self.lins = nn.ModuleList([nn.Conv2d(3, 1, 1)])

    package = types.ModuleType("lpips")
    package.LPIPS = Model
    monkeypatch.setitem(sys.modules, "lpips", package)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path


def test_lpips_where_its_weights_are(lpips_package: Path, caplog):
    cpu = torch.device("cpu")
    with caplog.at_level(logging.WARNING):
        assert perceptual.perceptual_loss("auto", cpu) is perceptual.laplacian_loss
    assert perceptual.VGG_FILE in caplog.text
    with pytest.raises(MissingPackageError, match=perceptual.VGG_FILE):
        perceptual.perceptual_loss("lpips", cpu)
    (lpips_package / "checkpoints").mkdir()
    (lpips_package / "checkpoints" / perceptual.VGG_FILE).touch()
    assert isinstance(perceptual.perceptual_loss("auto", cpu), perceptual.FeatureLoss)
    white = torch.ones(1, 3, 4, 4)
    seen = [perceptual.perceptual_loss(name, cpu).network(white)[0][0, :, 0, 0] for name in ("lpips", "lpipsPublished")]
    assert seen[0].tolist() == [1.0, 1.0, 1.0]
    torch.testing.assert_close(seen[1], torch.tensor([2 * (1 - 0.485) / 0.229 - 1, 2 * (1 - 0.456) / 0.224 - 1, 2 * (1 - 0.406) / 0.225 - 1]))  # fmt: skip


def test_lpips_is_not_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert perceptual.perceptual_loss("auto", torch.device("cpu")) is perceptual.laplacian_loss
    with pytest.raises(MissingPackageError, match=r"nextface\[train\]"):
        perceptual.perceptual_loss("lpipsPublished", torch.device("cpu"))
    with pytest.raises(ConfigError, match="laplacian"):
        perceptual.perceptual_loss("vgg", torch.device("cpu"))


def test_unused_codes_restart():
    net = VQAutoencoder(TOY)
    learner = Learner(net, Cosine(0.01, 0.01, 10), ALONE, decay=0.9)
    books = Codebooks(net, DOMAINS[:1], ALONE, every=5)
    latent, domain = 3.0 + noise(2, 6, 4, 4), torch.tensor([0, 1])
    net.quantize(latent).loss.backward()
    learner.descend(1)
    used = torch.zeros(16, dtype=torch.int64)
    for _ in range(400):
        books.count("shared", used)
    kept = net.quantize.table[0].detach().clone()
    draws = torch.Generator().manual_seed(0)
    assert books.restart(4, latent, domain, learner, draws) == 0
    assert books.restart(5, latent, domain, learner, draws) == TOY.codes - 1
    vectors = latent.movedim(1, -1).reshape(-1, 6)
    assert (net.quantize.table[1:, None] - vectors).abs().amax(2).amin(1).max() == 0.0
    assert torch.equal(net.quantize.table[0], kept)
    name = "quantize.embedding.weight"
    assert torch.equal(learner.average[name][1:], net.quantize.table[1:])
    assert not learner.optimizer.state[learner.trained[name]]["exp_avg"][1:].any()
    assert books.restart(10, latent, domain, learner, draws) == 0  # they count as used now
    held = books.usage["shared"].share.clone()
    books.count("shared", used[:0])
    assert torch.equal(books.usage["shared"].share, held)


def test_corruption_spoils_each_domain_in_its_way():
    draws = replace(Draws.of(5, torch.Generator().manual_seed(0)), strength=torch.ones(5, 1, 1, 1))
    clean = torch.full((5, 3, 32, 32), 0.2)
    clean[3] = normalize(torch.tensor([0.2, 0.1, 1.0]), dim=0).view(3, 1, 1)
    mask = torch.ones(5, 1, 32, 32)
    mask[..., :4, :] = 0.0
    clean = clean * mask
    spoilt = corrupted(clean, torch.arange(5), draws, mask)
    assert torch.equal(spoilt[0], clean[0])
    assert ((spoilt - clean)[1:].abs().amax((1, 2, 3)) > 0.1).all()
    assert not spoilt[..., :4, :].any() and spoilt.abs().max() <= 1.0
    assert (spoilt[2] - spoilt[2].mean(0)).abs().max() < 1e-6  # grey stays grey
    assert (spoilt[1] - spoilt[1].mean(0)).abs().max() > 0.02  # a tint
    none = replace(draws, strength=torch.zeros(5, 1, 1, 1))
    torch.testing.assert_close(corrupted(clean, torch.arange(5), none, mask), clean, atol=2e-6, rtol=0)
    halves = [Draws.own(draws, Processes(rank, 5)).bumps for rank in range(5)]
    assert torch.equal(torch.cat(halves), draws.bumps)


def test_shared_batch_norm_alone_is_torchs():
    plain, shared = nn.BatchNorm2d(3), SharedBatchNorm(3, ALONE, 1e-5, 0.1)
    image = 2.0 + noise(4, 3, 5, 5)
    torch.testing.assert_close(shared(image), plain(image))
    torch.testing.assert_close(shared.state_dict(), plain.state_dict())
    torch.testing.assert_close(shared.eval()(image), plain.eval()(image))


def test_pairs_grow_rarer():
    assert [number for number in range(1, 9) if is_pair_step(number)] == [2, 4, 6, 8]
    assert sum(is_pair_step(number) for number in range(480_000, 480_180)) == 10  # every 18th


def test_a_step_of_the_swapper_against_the_projected_discriminator():
    sizes = replace(TOY, image_size=128, multipliers=(1, 1, 1, 2), attention_sizes=())
    settings = replace(TrainSettings.of("swapper", "small"), weight_adversarial=1.0, adversarial_start=1, device="cpu")
    run = Run(settings, ALONE, torch.device("cpu"), perceptual.laplacian_loss, torch.Generator())
    opponent = Opponent(ProjectedDiscriminator(), run, ("discriminator.",))
    encoder = IdentityEncoder(IdentitySettings(image_size=28, widths=(4, 6), blocks=(1, 1), embedding_channels=5))
    net = Swapper(sizes, SwapSettings(5, (16, 32)))
    task = Swapping(net, encoder, run, opponent)
    frozen = opponent.learner.module.feature_network.scratch.layer0_ccm.weight.clone()
    crops = noise(2, 3, 128, 128).clamp(-1, 1)
    told = task.step(Batch(crops, torch.zeros(2, dtype=torch.int64), torch.arange(2), partner=crops.flip(0)), 1)
    assert {"identity", "perceptual", "fooling", "telling apart", "loss"} == set(told)  # not a step of pairs
    wanted = 15 * told["identity"] + told["perceptual"] + told["fooling"]
    torch.testing.assert_close(told["loss"], wanted)
    assert told["telling apart"] > 0.0
    assert torch.equal(frozen, opponent.learner.module.feature_network.scratch.layer0_ccm.weight)


def small_swapping(seed: int = 0) -> Swapping:
    torch.manual_seed(seed)
    settings = replace(TrainSettings.of("swapper", "small"), learning_rate=3e-3, final_rate=3e-3, device="cpu")
    run = Run(settings, ALONE, torch.device("cpu"), perceptual.laplacian_loss, torch.Generator())
    encoder = IdentityEncoder(IdentitySettings(image_size=28, widths=(4, 6), blocks=(1, 1), embedding_channels=5))
    return Swapping(Swapper(TOY, SwapSettings(5, (16,))), encoder, run)


def test_a_swapper_starts_as_its_auto_encoder():
    task = small_swapping()
    crops = noise(3, 3, 32, 32).clamp(-1, 1)
    with torch.no_grad():
        swapped = task.net(crops, normalize(noise(3, 5), dim=1)).image
        own = task.net.decode(task.net.quantize(task.net.encode(crops)).codes)
    torch.testing.assert_close(swapped, own)


def test_a_swapper_learns_what_the_exchange_shows():
    """Crops whose truth is told: strangers who are brighter make the result brighter. Identity counts for photos alone."""
    task = small_swapping()
    rows = torch.tensor([0, 1, 2, 4])
    stranger = torch.stack([torch.full((3, 32, 32), value) for value in (-0.8, 0.8, -0.8, 0.8)])
    image = 0.1 * noise(4, 3, 32, 32)
    batch = Batch(image, rows, rows, stranger=stranger, exchanged=image + 0.5 * stranger)
    told = [task.step(batch, number) for number in range(1, 41)]
    assert set(told[0]) == {"loss", "identity", "perceptual", "pixel"}
    assert told[-1]["pixel"] < 0.7 * told[0]["pixel"]
    settings = task.run.settings
    parts = {
        "identity": settings.weight_identity,
        "perceptual": settings.weight_perceptual,
        "pixel": settings.weight_pixel,
    }
    torch.testing.assert_close(told[3]["loss"], sum(weight * told[3][name] for name, weight in parts.items()))
    reflectance = small_swapping().step(replace(batch, domain=torch.tensor([1, 2, 3, 4])), 1)
    assert reflectance["identity"] == 0.0
    assert [len(row) for row in task.pictures(batch)] == [4, 4, 4, 4]


def test_swapper_needs_partners():
    settings = TrainSettings.of("swapper", "small")
    run = Run(settings, ALONE, torch.device("cpu"), perceptual.laplacian_loss, torch.Generator())
    encoder = IdentityEncoder(IdentitySettings(image_size=28, widths=(4, 6), blocks=(1, 1), embedding_channels=5))
    task = Swapping(Swapper(TOY, SwapSettings(5, (16,))), encoder, run)
    rows = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(InputError, match="people"):
        task.step(Batch(noise(2, 3, 32, 32), rows, rows), 1)


def test_records_without_and_with_tensorboard(tmp_path: Path, monkeypatch):
    written: list[tuple] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            written.append(("folder", Path(folder).name))

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            written.append((tag, step))

        def add_image(self, tag: str, picture: np.ndarray, step: int, dataformats: str) -> None:
            written.append((tag, picture.shape, dataformats))

        def close(self) -> None:
            written.append(("closed",))

    module = types.ModuleType("torch.utils.tensorboard")
    for present in (None, SummaryWriter):
        if present is not None:
            module.SummaryWriter = SummaryWriter
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module if present else None)
        records = Records(tmp_path, "stage1", 4, 0, ALONE, quiet=True)
        records.add({"loss": torch.tensor(1.0), "fooling": torch.tensor(5.0)})
        records.add({"loss": torch.tensor(3.0)})
        records.flush(2)
        records.show(2, [noise(9, 3, 8, 8)])
        records.close()
        assert (tmp_path / "losses.csv").read_text(encoding="utf-8") == "step,loss,fooling\n2,2.0,5.0\n"
    assert written == [
        ("folder", "tensorboard"),
        ("loss", 2),
        ("fooling", 2),
        ("samples", (8, 64, 3), "HWC"),
        ("closed",),
    ]
    assert (tmp_path / "samples" / "stage1_00000002.png").is_file()


def test_divergence_stops(tmp_path: Path):
    records = Records(tmp_path, "stage1", 4, 0, ALONE, quiet=True)
    records.add({"loss": torch.tensor(float("nan"))})
    with pytest.raises(FitError, match="learningRate"):
        records.flush(1)
