"""Each stage's network and how it is trained, from the settings and the checkpoints that it starts from."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from nextface.errors import ConfigError, InputError
from nextface.prior.autoencoder import VQAutoencoder
from nextface.prior.checkpoint import assemble_fused, load_imagenet, load_weights, put_weights
from nextface.prior.discriminators import PatchDiscriminator, ProjectedDiscriminator
from nextface.prior.fusion import DOMAINS, FusedAutoencoder
from nextface.prior.identity import IdentityEncoder
from nextface.prior.swapper import FusedSwapper, Swapper
from nextface.prior.train.autoencoding import Autoencoding
from nextface.prior.train.recognition import Recognition
from nextface.prior.train.sizes import Checkpoint, Sizes, build, read_sizes
from nextface.prior.train.swapping import Swapping
from nextface.prior.train.tasks import Opponent, Run, Task
from nextface.train_config import STAGES, TrainSettings

logger = logging.getLogger(__name__)

DISCRIMINATOR = "discriminator.safetensors"
_DOMAIN_TABLES = tuple(f"quantize_{domain}." for domain in DOMAINS[1:])


@dataclass(frozen=True)
class Start:
    """What a stage starts from.

    files:    checkpoints of the stage before; five for a fusion of domains that were trained one by one
    identity: an identity encoder's, for the swapper
    """

    files: tuple[Path, ...] = ()
    identity: Path | None = None


@dataclass(frozen=True)
class Prepared:
    """A stage's network, on the CPU, and what it was made of.

    fresh:   domains whose codebooks start from data
    encoder: of identities, for the swapper
    critic:  the discriminator, None where it has no weight
    """

    stage: str
    net: nn.Module
    sizes: Sizes
    fresh: tuple[str, ...] = ()
    encoder: IdentityEncoder | None = None
    critic: nn.Module | None = None


def prepare(stage: str, settings: TrainSettings, start: Start) -> Prepared:
    """Build and fill the networks of a stage; what is random about them follows from the seed.

    Raises ConfigError, InputError.
    """
    if stage not in STAGES:
        raise ConfigError(f"there is no stage {stage!r}: choose one of {', '.join(STAGES)}")
    _check_count(stage, start.files)
    checkpoint = Checkpoint.read(start.files[0]) if start.files else None
    sizes = _sizes(settings, checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        net, fresh = _network(stage, settings, sizes, checkpoint, start.files)
        encoder = _identity_encoder(start.identity, sizes) if stage == "swapper" else None
        critic = _critic(stage, settings, sizes, start.files)
    return Prepared(stage, net, sizes, fresh, encoder, critic)


def make_task(prepared: Prepared, run: Run) -> Task:
    """The stage on the run's device."""
    net = prepared.net.to(run.device)
    critic = None if prepared.critic is None else prepared.critic.to(run.device)
    if isinstance(net, IdentityEncoder):
        return Recognition(net, run)
    if isinstance(net, (Swapper, FusedSwapper)):
        assert prepared.encoder is not None
        opponent = None if critic is None else Opponent(critic, run, ("discriminator.",))
        return Swapping(net, prepared.encoder.to(run.device), run, opponent)
    opponent = None if critic is None else Opponent(critic, run)
    trained = {
        "stage1": ("",),
        "stage2": ("encoder.", "quantize", "generator."),
        "fusion": ("encoder.", "fusion.", "generator."),
        "denoise": ("denoiser.",),
    }[prepared.stage]
    return Autoencoding(
        cast("VQAutoencoder | FusedAutoencoder", net),
        run,
        trained,
        routed=prepared.stage == "stage2" and isinstance(net, FusedAutoencoder),
        denoise=prepared.stage == "denoise",
        opponent=opponent,
        fresh=prepared.fresh,
    )


def _check_count(stage: str, files: Sequence[Path]) -> None:
    wanted = {"stage1": (0, 1), "fusion": (1, 5), "identity": (0, 1)}.get(stage, (1,))
    if len(files) not in wanted:
        raise ConfigError(
            f"the stage {stage} starts from {' or '.join(map(str, wanted))} checkpoints, not {len(files)}; give them with "
            "--from, for fusion either stage 2's or those of stage 1, diffuse, specular, normal and roughness in this order"
        )


def _sizes(settings: TrainSettings, checkpoint: Checkpoint | None) -> Sizes:
    asked = read_sizes(settings.sizes or settings.preset)
    if checkpoint is None or checkpoint.sizes is None:
        return asked
    if settings.sizes and asked != checkpoint.sizes:
        raise ConfigError(
            f"sizes = {settings.sizes}: not the sizes of {checkpoint.path}; leave them out, a checkpoint brings its own"
        )
    return checkpoint.sizes


def _network(
    stage: str, settings: TrainSettings, sizes: Sizes, checkpoint: Checkpoint | None, files: Sequence[Path]
) -> tuple[nn.Module, tuple[str, ...]]:
    """The network and the domains whose codebooks start from data."""
    if stage == "identity":
        net = build("IdentityEncoder", sizes)
        if checkpoint is not None:
            put_weights(net, checkpoint.weights, checkpoint.path)
        return net, ()
    if checkpoint is None:
        return build("VQAutoencoder", sizes), DOMAINS[:1]
    if stage == "stage1" or (stage == "stage2" and settings.domain):
        return checkpoint.build(("VQAutoencoder",), sizes), ()
    if stage == "denoise":
        net = cast("VQAutoencoder | FusedAutoencoder", checkpoint.build(("VQAutoencoder", "FusedAutoencoder"), sizes))
        net.denoiser = copy.deepcopy(net.encoder)
        return net, ()
    if stage == "swapper":
        checkpoint.demand(("VQAutoencoder", "FusedAutoencoder"))
        swaps = build("Swapper" if checkpoint.network == "VQAutoencoder" else "FusedSwapper", sizes)
        put_weights(swaps, checkpoint.weights, checkpoint.path, fresh=("fuse_convs_dict.",))
        return swaps, ()
    fused = cast(FusedAutoencoder, build("FusedAutoencoder", sizes))
    _start_even(fused)
    if len(files) > 1:
        assemble_fused(fused, files[0], dict(zip(DOMAINS[1:], files[1:], strict=True)))
        return fused, ()
    checkpoint.demand(("VQAutoencoder",) if stage == "stage2" else ("FusedAutoencoder",))
    put_weights(fused, checkpoint.weights, checkpoint.path, fresh=("fusion.", *_DOMAIN_TABLES))
    return fused, DOMAINS[1:] if stage == "stage2" else ()


def _start_even(net: FusedAutoencoder) -> None:
    """Let the fusion begin as the mean of the codebooks: the decoder would not know a random mixture of codes."""
    last = net.fusion.blocks[1]
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, 1.0 / len(DOMAINS))


def _identity_encoder(path: Path | None, sizes: Sizes) -> IdentityEncoder:
    if path is None:
        raise ConfigError("the swapper needs an encoder of identities; give its checkpoint with --identity")
    checkpoint = Checkpoint.read(path)
    encoder = cast(IdentityEncoder, checkpoint.build(("IdentityEncoder",), sizes))
    length, wanted = encoder.settings.embedding_channels, sizes.swap.identity_channels
    if length != wanted:
        raise InputError(f"{path}: makes identities of {length} numbers, but the swapper's sizes say {wanted}")
    return encoder


def _critic(stage: str, settings: TrainSettings, sizes: Sizes, files: Sequence[Path]) -> nn.Module | None:
    """The discriminator, an auto-encoder's with the weights that the stage before left beside its own."""
    if settings.weight_adversarial == 0.0 or stage == "identity":
        return None
    if stage == "swapper":
        projected = ProjectedDiscriminator()
        if settings.imagenet:
            load_imagenet(projected, settings.imagenet)
        else:
            logger.warning("the discriminator looks at random features; set imagenet to timm's tf_efficientnet_lite0")
        return projected
    patches = PatchDiscriminator(sizes.patch_width, sizes.patch_layers)
    if files and (files[0].parent / DISCRIMINATOR).is_file():
        load_weights(patches, files[0].parent / DISCRIMINATOR)
    return patches
