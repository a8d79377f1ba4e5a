"""Every key and shape of the published checkpoints, written out from the layers they stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from nextface.prior import FusedAutoencoder, FusedSwapper, IdentityEncoder, Swapper, VQAutoencoder
from nextface.prior.discriminators import PatchDiscriminator, ProjectedDiscriminator
from nextface.prior.settings import SMALL_AUTOENCODER, SMALL_FUSION, SMALL_IDENTITY, SMALL_SWAP

Shapes = dict[str, tuple[int, ...]]


def layer(name: str, *weight: int, bias: int | None = None) -> Shapes:
    """A weight and, unless 0, a bias; by default as long as the weight."""
    length = weight[0] if bias is None else bias
    return {f"{name}.weight": weight, **({f"{name}.bias": (length,)} if length else {})}


def batch_norm(name: str, channels: int) -> Shapes:
    running = {
        f"{name}.running_mean": (channels,),
        f"{name}.running_var": (channels,),
        f"{name}.num_batches_tracked": (),
    }
    return layer(name, channels) | running


def res_block(name: str, before: int, after: int) -> Shapes:
    shapes = layer(f"{name}.norm1", before) | layer(f"{name}.conv1", after, before, 3, 3)
    shapes |= layer(f"{name}.norm2", after) | layer(f"{name}.conv2", after, after, 3, 3)
    return shapes if before == after else shapes | layer(f"{name}.conv_out", after, before, 1, 1)


def attention(name: str) -> Shapes:
    shapes = layer(f"{name}.norm", 512)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= layer(f"{name}.{part}", 512, 512, 1, 1)
    return shapes


def encoder() -> Shapes:
    shapes = layer("encoder.blocks.0", 64, 3, 3, 3)
    same = {64: (1, 2), 128: (5, 7, 8), 256: (11, 13, 14), 512: (18, 20, 22)}
    for channels, indices in same.items():
        for index in indices:
            shapes |= res_block(f"encoder.blocks.{index}", channels, channels)
    for index, before, after in ((4, 64, 128), (10, 128, 256), (16, 256, 512)):
        shapes |= res_block(f"encoder.blocks.{index}", before, after)
    for index, channels in ((3, 64), (6, 128), (9, 128), (12, 256), (15, 256)):
        shapes |= layer(f"encoder.blocks.{index}.conv", channels, channels, 3, 3)
    for index in (17, 19, 21):
        shapes |= attention(f"encoder.blocks.{index}")
    return shapes | layer("encoder.blocks.23", 512) | layer("encoder.blocks.24", 256, 512, 3, 3)


def generator() -> Shapes:
    shapes = layer("generator.blocks.0", 512, 256, 3, 3)
    same = {512: (1, 3, 4, 6), 256: (10, 12, 13), 128: (16, 18, 19), 64: (22,)}
    for channels, indices in same.items():
        for index in indices:
            shapes |= res_block(f"generator.blocks.{index}", channels, channels)
    for index, before, after in ((9, 512, 256), (15, 256, 128), (21, 128, 64)):
        shapes |= res_block(f"generator.blocks.{index}", before, after)
    for index, channels in ((8, 512), (11, 256), (14, 256), (17, 128), (20, 128)):
        shapes |= layer(f"generator.blocks.{index}.conv", channels, channels, 3, 3)
    for index in (2, 5, 7):
        shapes |= attention(f"generator.blocks.{index}")
    return shapes | layer("generator.blocks.23", 64) | layer("generator.blocks.24", 3, 64, 3, 3)


def autoencoder() -> Shapes:
    return encoder() | generator() | {"quantize.embedding.weight": (1024, 256)}


def fused() -> Shapes:
    shapes = autoencoder()
    for domain in ("diffuse", "specular", "normal", "roughness"):
        shapes[f"quantize_{domain}.embedding.weight"] = (1024, 256)
    for group in range(4):
        start = f"fusion.blocks.0.swin_blks.{group}"
        for number in range(6):
            name = f"{start}.residual_group.blocks.{number}"
            shapes |= layer(f"{name}.norm1", 256) | layer(f"{name}.norm2", 256)
            shapes |= layer(f"{name}.attn.qkv", 768, 256) | layer(f"{name}.attn.proj", 256, 256)
            shapes |= layer(f"{name}.mlp.fc1", 1024, 256) | layer(f"{name}.mlp.fc2", 256, 1024)
            shapes[f"{name}.attn.relative_position_bias_table"] = (225, 8)
            shapes[f"{name}.attn.relative_position_index"] = (64, 64)
            if number % 2:
                shapes[f"{name}.attn_mask"] = (16, 64, 64)
        shapes |= layer(f"{start}.conv", 256, 256, 3, 3)
    return shapes | layer("fusion.blocks.1", 5, 256, 1, 1)


def identity_blocks() -> Shapes:
    shapes: Shapes = {}
    for size, channels in ((16, 512), (32, 256), (64, 256), (128, 128)):
        for part in ("encode_enc", "encode_enc2", "encode_enc3"):
            for number in (1, 2):
                name = f"fuse_convs_dict.{size}.{part}"
                shapes |= layer(f"{name}.conv{number}.1", channels, channels, 3, 3)
                shapes |= layer(f"{name}.style{number}.linear", 2 * channels, 512)
    return shapes


def identity_encoder() -> Shapes:
    shapes = layer("conv1", 64, 3, 3, 3, bias=0) | batch_norm("bn1", 64) | {"prelu.weight": (64,)}
    before = 64
    for number, (channels, count) in enumerate(((64, 3), (128, 13), (256, 30), (512, 3)), start=1):
        for block in range(count):
            name = f"layer{number}.{block}"
            shapes |= batch_norm(f"{name}.bn1", before) | layer(f"{name}.conv1", channels, before, 3, 3, bias=0)
            shapes |= batch_norm(f"{name}.bn2", channels) | {f"{name}.prelu.weight": (channels,)}
            shapes |= layer(f"{name}.conv2", channels, channels, 3, 3, bias=0) | batch_norm(f"{name}.bn3", channels)
            if block == 0:
                shapes |= layer(f"{name}.downsample.0", channels, before, 1, 1, bias=0)
                shapes |= batch_norm(f"{name}.downsample.1", channels)
            before = channels
    return shapes | batch_norm("bn2", 512) | layer("fc", 512, 25088) | batch_norm("features", 512)


def patch_discriminator() -> Shapes:
    shapes = layer("main.0", 64, 3, 4, 4) | layer("main.14", 1, 512, 4, 4)
    for index, before, after in ((2, 64, 128), (5, 128, 256), (8, 256, 512), (11, 512, 512)):
        shapes |= layer(f"main.{index}", after, before, 4, 4, bias=0) | batch_norm(f"main.{index + 1}", after)
    return shapes


def projected_heads() -> Shapes:
    shapes: Shapes = {}
    laterals = ((64, 24), (128, 40), (256, 112), (512, 320))
    merged = ((64, 64), (64, 128), (128, 256), (256, 512))
    for level in range(4):
        shapes |= layer(f"feature_network.scratch.layer{level}_ccm", *laterals[level], 1, 1)
        shapes |= layer(f"feature_network.scratch.layer{level}_csm.out_conv", *merged[level], 1, 1)
    chains = ((64, 64, 128, 256, 512), (64, 128, 256, 512), (128, 256, 512), (256, 512))
    for head, chain in enumerate(chains):
        start = f"discriminator.mini_discs.{head}.main"
        for index, (before, after) in enumerate(zip(chain[:-1], chain[1:], strict=True)):
            name = f"{start}.{index}.main"
            shapes |= {f"{name}.0.bias": (after,), f"{name}.0.weight_orig": (after, before, 4, 4)}
            shapes |= {f"{name}.0.weight_u": (after,), f"{name}.0.weight_v": (before * 16,)}
            shapes |= batch_norm(f"{name}.1", after)
        shapes[f"{start}.{4 - head}.weight_orig"] = (1, 512, 4, 4)
        shapes |= {f"{start}.{4 - head}.weight_u": (1,), f"{start}.{4 - head}.weight_v": (8192,)}
    return shapes


def shapes_of(net: nn.Module) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("make", "expected", "entries", "count"),
    [
        (VQAutoencoder, autoencoder, 329, 63_740_099),
        (FusedAutoencoder, fused, 691, 86_147_720),
        (Swapper, lambda: autoencoder() | identity_blocks(), 425, 92_957_123),
        (FusedSwapper, lambda: fused() | identity_blocks(), 787, 115_364_744),
        (IdentityEncoder, identity_encoder, 925, 65_156_160),
        (PatchDiscriminator, patch_discriminator, 28, 6_960_961),
    ],
)
def test_published_keys(make: Callable[[], nn.Module], expected: Callable[[], Shapes], entries: int, count: int):
    with torch.device("meta"):
        net = make()
    assert shapes_of(net) == expected()
    assert len(net.state_dict()) == entries
    assert parameters(net) == count


def test_published_keys_of_the_projected_discriminator():
    with torch.device("meta"):
        net = ProjectedDiscriminator()
    shapes = shapes_of(net)
    assert len(shapes) == 406
    assert parameters(net) == 13_666_944
    assert parameters(net.feature_network) == 3_335_616
    pretrained = {key: shape for key, shape in shapes.items() if key.startswith("feature_network.pretrained.")}
    assert len(pretrained) == 288
    assert {key: shape for key, shape in shapes.items() if key not in pretrained} == projected_heads()
    ends = {"layer0.0.weight": (32, 3, 3, 3), "layer0.3.0.conv_dw.weight": (32, 1, 3, 3)}
    ends |= {"layer1.0.0.conv_dw.weight": (144, 1, 5, 5), "layer3.1.0.conv_pwl.weight": (320, 1152, 1, 1)}
    assert {key: pretrained[f"feature_network.pretrained.{key}"] for key in ends} == ends


def test_the_small_networks_are_small():
    with torch.device("meta"):
        assert parameters(VQAutoencoder(SMALL_AUTOENCODER)) == 2_668_387
        assert parameters(FusedSwapper(SMALL_AUTOENCODER, SMALL_FUSION, SMALL_SWAP)) < 5.1e6
        assert parameters(IdentityEncoder(SMALL_IDENTITY)) < 1.3e6
