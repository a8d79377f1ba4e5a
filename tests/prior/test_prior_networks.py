from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn.functional import linear
from toy_prior import TOY, TOY_FUSION, TOY_IDENTITY, TOY_SWAP

from nextface.errors import ConfigError, InputError
from nextface.prior import FusedAutoencoder, FusedSwapper, IdentityEncoder, Swapper, VQAutoencoder, identity_crop
from nextface.prior.autoencoder import Encoder, Generator
from nextface.prior.blocks import AttentionBlock, Downsample, ResBlock, Upsample
from nextface.prior.discriminators import PatchDiscriminator
from nextface.prior.fusion import DOMAINS
from nextface.prior.settings import (
    SMALL_AUTOENCODER,
    SMALL_FUSION,
    SMALL_IDENTITY,
    SMALL_SWAP,
    AutoencoderSettings,
    FusionSettings,
    IdentitySettings,
    SwapSettings,
)
from nextface.prior.swapper import IdentityBlock, InstanceNorm
from nextface.prior.swin import SwinLayer, SwinStack


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(autouse=True)
def fixed_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.grad
@pytest.mark.parametrize(
    "block",
    [
        ResBlock(4, 8, 2),
        AttentionBlock(4, 2),
        Downsample(4),
        Upsample(4),
        SwinStack(4, FusionSettings(stacks=1, layers=2, heads=2, window=2, mlp_ratio=1, mask_size=8)),
    ],
    ids=lambda block: type(block).__name__,
)
def test_gradients_of_blocks(block: nn.Module):
    block = block.double()
    features = noise(2, 4, 4, 4, dtype=torch.float64).requires_grad_()
    names, parameters = zip(*block.named_parameters(), strict=True)

    def run(features: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(block, dict(zip(names, values, strict=True)), (features,))

    assert gradcheck(run, (features, *parameters), fast_mode=True)


@pytest.mark.grad
def test_gradients_of_the_identity_block():
    block = IdentityBlock(2, 3).double()
    features, identity = noise(2, 2, 3, 3, dtype=torch.float64), noise(2, 3, seed=1, dtype=torch.float64)
    assert gradcheck(block, (features.requires_grad_(), identity.requires_grad_()))


@pytest.mark.grad
def test_gradients_of_encoder_and_generator():
    settings = AutoencoderSettings(8, 4, (1, 2), 1, (4,), 5, 3, 2)
    image = noise(1, 3, 8, 8, dtype=torch.float64).requires_grad_()
    codes = noise(1, 3, 4, 4, dtype=torch.float64).requires_grad_()
    assert gradcheck(Encoder(settings).double(), image)
    assert gradcheck(Generator(settings).double(), codes)


def test_attention_is_a_softmax_over_all_positions():
    block = AttentionBlock(8, 2)
    features = noise(2, 8, 3, 5)
    normal = block.norm(features)
    query, key, value = (
        linear(normal.flatten(2).mT, p.weight[:, :, 0, 0], p.bias) for p in (block.q, block.k, block.v)
    )
    weights = torch.softmax(query @ key.mT / 8**0.5, -1)
    expected = features + block.proj_out((weights @ value).mT.reshape(features.shape))
    torch.testing.assert_close(block(features), expected)


@pytest.mark.parametrize("side", [16, 8])
@pytest.mark.parametrize("shift", [0, 2])
def test_windows_against_a_loop_over_tokens(side: int, shift: int):
    """Without rolling: tokens in the same shifted window see each other. The mask is stored for 16, not for 8."""
    window, heads, channels = 4, 2, 6
    layer = SwinLayer(channels, TOY_FUSION, shift)
    nn.init.normal_(layer.attn.relative_position_bias_table)
    tokens = noise(2, side, side, channels)
    normal = layer.norm1(tokens)
    table = layer.attn.relative_position_bias_table
    query, key, value = layer.attn.qkv(normal).view(2, side, side, 3, heads, -1).unbind(3)
    mixed = torch.empty(2, side, side, heads, channels // heads)
    for y in range(side):
        for x in range(side):
            rows = [r for r in range(side) if (r - shift) // window == (y - shift) // window]
            columns = [c for c in range(side) if (c - shift) // window == (x - shift) // window]
            near = torch.cartesian_prod(torch.tensor(rows), torch.tensor(columns))
            keys, values = key[:, near[:, 0], near[:, 1]], value[:, near[:, 0], near[:, 1]]
            bias = table[(y - near[:, 0] + window - 1) * (2 * window - 1) + x - near[:, 1] + window - 1]
            scores = (query[:, y, x][:, None] * keys).sum(-1) / (channels / heads) ** 0.5 + bias
            mixed[:, y, x] = (torch.softmax(scores, 1)[..., None] * values).sum(1)
    attended = tokens + layer.attn.proj(mixed.flatten(3))
    expected = attended + layer.mlp(layer.norm2(attended))
    torch.testing.assert_close(layer(tokens), expected, atol=1e-5, rtol=1e-5)


def test_instance_norm_of_a_constant_map_is_zero_in_half_precision():
    maps = torch.full((1, 2, 4, 4), 0.5, dtype=torch.float16)
    assert torch.equal(InstanceNorm()(maps), torch.zeros_like(maps))


def test_small_networks_run():
    image, identity = noise(1, 3, 128, 128), noise(1, 128)
    with torch.inference_mode():
        net = FusedSwapper(SMALL_AUTOENCODER, SMALL_FUSION, SMALL_SWAP)
        swapped = net(image, identity)
        embedding = IdentityEncoder(SMALL_IDENTITY).eval().embed(image)
    assert swapped.latent.shape == (1, 64, 16, 16)
    assert swapped.image.shape == image.shape
    assert embedding.shape == (1, 128)
    assert embedding.norm().item() == pytest.approx(1)


def test_autoencoder_decodes_its_own_indices():
    net = VQAutoencoder(TOY)
    result = net(noise(2, 3, 32, 32))
    assert result.quantized.indices.shape == (2, 16, 16)
    torch.testing.assert_close(net.decode_indices(result.quantized.indices), result.image)


def test_other_crop_sizes_pass_and_odd_ones_are_refused():
    net = FusedAutoencoder(TOY, TOY_FUSION)
    assert net(noise(1, 3, 48, 16)).image.shape == (1, 3, 48, 16)
    for shape in ((1, 3, 31, 32), (1, 1, 32, 32), (3, 32, 32), (1, 3, 0, 32)):
        with pytest.raises(InputError, match="multiple of 2"):
            net(noise(*shape))
    with pytest.raises(InputError, match="windows of 4x4"):
        net(noise(1, 3, 36, 32))


@pytest.mark.parametrize("number", range(5))
def test_fused_codes_are_the_weighted_sum_of_all(number: int):
    """With the fusion's last layer constant, the mixture is that of its bias."""
    net = FusedAutoencoder(TOY, TOY_FUSION)
    last = net.fusion.blocks[1]
    nn.init.zeros_(last.weight)
    latent = noise(2, 6, 16, 16)
    with torch.no_grad():
        last.bias.zero_()[number] = -2.0
        expected = -2.0 * net.codebook(DOMAINS[number])(latent).codes
        torch.testing.assert_close(net.fuse(latent).codes, expected)


def test_fusion_leaves_codebooks_without_gradient():
    net = FusedAutoencoder(TOY, TOY_FUSION)
    net(noise(1, 3, 32, 32)).image.square().sum().backward()
    assert all(net.codebook(domain).table.grad is None for domain in DOMAINS)
    untouched = {name for name, parameter in net.named_parameters() if parameter.grad is None}
    assert all("embedding" in name for name in untouched)


def test_known_domains_use_their_own_codebook():
    net = FusedAutoencoder(TOY, TOY_FUSION)
    latent = noise(5, 6, 16, 16).requires_grad_()
    domains = torch.tensor([3, 0, 3, 4, 0])
    routed = net.route(latent, domains)
    alone = [net.codebook(DOMAINS[domain])(latent[row : row + 1]) for row, domain in enumerate(domains.tolist())]
    for field in ("codes", "indices", "distance"):
        torch.testing.assert_close(getattr(routed, field), torch.cat([getattr(each, field) for each in alone]))
    torch.testing.assert_close(routed.loss, torch.stack([each.loss for each in alone]).mean())
    routed.loss.backward()
    used = {domain for domain in DOMAINS if net.codebook(domain).table.grad is not None}
    assert used == {"shared", "normal", "roughness"}
    with pytest.raises(InputError, match="domains must be indices"):
        net.route(latent, domains + 1)


def test_identities_are_injected_where_published():
    assert Generator(replace(AutoencoderSettings(), width=2, norm_groups=1, code_channels=2)).taps == {
        6: 16,
        9: 32,
        12: 64,
        15: 128,
        18: 256,
        21: 512,
    }


def test_fused_swapper_without_styles_is_the_fused_autoencoder():
    """γ = −1 and β = 0 silence the residual blocks."""
    swapper = FusedSwapper(TOY, TOY_FUSION, TOY_SWAP)
    net = FusedAutoencoder(TOY, TOY_FUSION)
    net.load_state_dict({key: value for key, value in swapper.state_dict().items() if "fuse_convs" not in key})
    image, identity = noise(1, 3, 32, 32), noise(1, 5)
    assert not torch.allclose(swapper(image, identity).image, net(image).image, atol=1e-2)
    for name, parameter in swapper.fuse_convs_dict.named_parameters():
        if ".style" in name:
            nn.init.zeros_(parameter)
            if name.endswith("bias"):
                nn.init.constant_(parameter[: len(parameter) // 2], -1.0)
    torch.testing.assert_close(swapper(image, identity).image, net(image).image)


def test_each_image_gets_its_own_identity():
    swapper = Swapper(TOY, TOY_SWAP)
    image, identity = noise(1, 3, 32, 32).expand(2, -1, -1, -1), noise(2, 5)
    both = swapper(image, identity).image
    torch.testing.assert_close(both[1:], swapper(image[1:], identity[1:]).image)
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_identity_crop_of_a_crop_that_needs_no_resizing():
    crop = noise(1, 3, 128, 128)
    assert torch.equal(identity_crop(crop), crop[:, :, :112, 8:120])
    with pytest.raises(InputError, match="multiple of 16"):
        identity_crop(noise(1, 3, 100, 100))


def test_identity_encoder_refuses_other_sizes():
    net = IdentityEncoder(TOY_IDENTITY).eval()
    assert net.embed(noise(2, 3, 32, 32)).shape == (2, 5)
    with pytest.raises(InputError, match=r"give \[B, 3, 28, 28\]"):
        net(noise(2, 3, 32, 32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype):
    net = FusedSwapper(TOY, TOY_FUSION, TOY_SWAP)
    image, identity = noise(1, 3, 32, 32), noise(1, 5)
    with torch.autocast("cpu", dtype):
        mixed = net(image, identity).image
    half = net.to(dtype)(image.to(dtype), identity.to(dtype)).image
    assert half.dtype == dtype
    assert mixed.isfinite().all()
    assert half.isfinite().all()


def test_networks_follow_the_device_of_their_weights():
    """On the device without data every tensor that a network makes elsewhere would be an error."""
    with torch.device("meta"):
        nets = (FusedSwapper(TOY, replace(TOY_FUSION, mask_size=8), TOY_SWAP), Swapper(TOY, TOY_SWAP))
        image, identity = torch.empty(2, 3, 32, 32), torch.empty(2, 5)
    for net in nets:
        assert net(image, identity).image.shape == image.shape
    assert PatchDiscriminator(8, 2).to("meta")(image).shape == (2, 1, 6, 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoencoderSettings(width=32), "32 norm groups.*at least two"),
        (lambda: AutoencoderSettings(width=80), "norm groups"),
        (lambda: AutoencoderSettings(image_size=500), "not a multiple of 32"),
        (lambda: AutoencoderSettings(codes=0), "positive"),
        (lambda: AutoencoderSettings(multipliers=()), "positive"),
        (lambda: FusionSettings(window=7), "even window"),
        (lambda: FusionSettings(mask_size=20), "multiple"),
        (lambda: IdentitySettings(blocks=(1, 2)), "as many widths"),
        (lambda: IdentitySettings(image_size=100), "multiple of 2"),
        (lambda: FusedAutoencoder(TOY, replace(TOY_FUSION, heads=4)), "4 attention heads"),
        (lambda: FusedAutoencoder(TOY, replace(TOY_FUSION, window=6, mask_size=12)), "windows of 6"),
        (lambda: Swapper(TOY, SwapSettings(5, (8, 16))), r"identity blocks at \[8\]"),
    ],
)
def test_impossible_settings_are_refused(make, message: str):
    with pytest.raises(ConfigError, match=message):
        make()


def test_one_channel_per_group_would_fix_the_mean_colour():
    """Why such settings are refused: the norm sets every channel's mean, and a convolution follows it directly."""
    single = nn.Sequential(nn.GroupNorm(4, 4), nn.Conv2d(4, 3, 1))
    double = nn.Sequential(nn.GroupNorm(2, 4), nn.Conv2d(4, 3, 1))
    features = noise(2, 4, 8, 8) + noise(2, 4, 1, 1, seed=1)
    spread = {net: (net(features).mean((2, 3))[0] - net(features).mean((2, 3))[1]).norm() for net in (single, double)}
    assert spread[single] < 1e-6 < 1e-2 < spread[double]
