from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn.functional import interpolate

from nextface.errors import InputError
from nextface.prior.discriminators import PatchDiscriminator, ProjectedDiscriminator, Projection, SpectralConv2d
from nextface.prior.efficientnet import InvertedBlock, SameConv2d


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_patch_discriminator_of_another_size():
    assert PatchDiscriminator(8, 3)(noise(2, 3, 64, 64)).shape == (2, 1, 6, 6)


def test_projected_discriminator_judges_four_scales():
    with torch.device("meta"):
        assert ProjectedDiscriminator()(torch.empty(2, 3, 512, 512)).shape == (2, 676)
    net = ProjectedDiscriminator()
    maps = net.feature_network(noise(2, 3, 128, 128))
    shapes = [tuple(features.shape[1:]) for features in maps]
    assert shapes == [(64, 64, 64), (64, 32, 32), (128, 16, 16), (256, 8, 8)]
    logits = net(noise(2, 3, 128, 128))
    assert logits.shape == (2, 4)
    logits.sum().backward()
    assert all(parameter.grad is None for parameter in net.feature_network.parameters())
    assert all(parameter.grad is not None for parameter in net.discriminator.parameters())
    for side in (96, 150):
        with pytest.raises(InputError, match="multiples of 32 and at least 128"):
            net(noise(1, 3, side, side))


def test_frozen_features_pass_gradients_but_never_learn_statistics():
    net = ProjectedDiscriminator().train()
    assert net.discriminator.training and not any(module.training for module in net.feature_network.modules())
    image = noise(2, 3, 128, 128).requires_grad_()
    before = net.feature_network.pretrained.layer0[1].running_mean.clone()
    net(image).sum().backward()
    assert image.grad.abs().max() > 0
    assert torch.equal(net.feature_network.pretrained.layer0[1].running_mean, before)


@pytest.mark.parametrize("training", [True, False])
def test_spectral_norm_is_torchs(training: bool):
    own = SpectralConv2d(3, 5, stride=2, padding=1, bias=True).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        reference = nn.utils.spectral_norm(nn.Conv2d(3, 5, 4, stride=2, padding=1)).double()
    reference.load_state_dict(own.state_dict())
    own.train(training)
    reference.train(training)
    for step in range(3):
        image = noise(2, 3, 8, 8, seed=step).double()
        first, second = own(image), reference(image)
        torch.testing.assert_close(first, second)
        gradients = [
            torch.autograd.grad(out.square().sum(), net.weight_orig) for out, net in ((first, own), (second, reference))
        ]
        torch.testing.assert_close(*gradients)
    for name, tensor in own.state_dict().items():
        torch.testing.assert_close(tensor, reference.state_dict()[name])


def test_spectral_norm_converges():
    layer = SpectralConv2d(3, 5, stride=1, padding=0, bias=False)
    for _ in range(50):
        layer(noise(1, 3, 4, 4))
    largest = torch.linalg.matrix_norm(layer.weight_orig.flatten(1), 2)
    norm = (layer.weight_orig.flatten(1) * torch.outer(layer.weight_u, layer.weight_v)).sum()
    torch.testing.assert_close(norm, largest, rtol=1e-3, atol=0)


@pytest.mark.grad
def test_gradient_through_the_norm():
    layer = SpectralConv2d(2, 3, stride=2, padding=1, bias=True).double().eval()
    image = noise(1, 2, 4, 4).double().requires_grad_()
    weight = layer.weight_orig.detach().clone().requires_grad_()
    run = lambda image, weight: torch.func.functional_call(layer, {"weight_orig": weight}, (image,))  # noqa: E731
    assert gradcheck(run, (image, weight))


def test_convolution_and_doubling_commute():
    layer, features = Projection(3, 2), noise(1, 3, 5, 5)
    published = layer.out_conv(interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=True))
    torch.testing.assert_close(layer(features), published)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("side", [7, 8])
def test_tensorflows_padding(kernel: int, stride: int, side: int):
    """Output y starts at input y·stride − ⌊total / 2⌋, total the least padding that gives ⌈side / stride⌉ outputs."""
    layer, features = SameConv2d(1, 1, kernel, stride), noise(1, 1, side, side)
    size = -(-side // stride)
    before = max((size - 1) * stride + kernel - side, 0) // 2
    out = layer(features)
    assert out.shape == (1, 1, size, size)
    for y in range(size):
        for x in range(size):
            total = 0.0
            for i in range(kernel):
                for j in range(kernel):
                    row, column = y * stride + i - before, x * stride + j - before
                    if 0 <= row < side and 0 <= column < side:
                        total += (features[0, 0, row, column] * layer.weight[0, 0, i, j]).item()
            assert out[0, 0, y, x].item() == pytest.approx(total, abs=1e-5)


def test_only_blocks_that_keep_their_shape_have_a_skip():
    features = noise(1, 4, 6, 6)
    for after, stride, residual in ((4, 1, True), (4, 2, False), (6, 1, False)):
        block = InvertedBlock(4, after, 3, stride).eval()
        nn.init.zeros_(block.conv_pwl.weight)
        assert torch.equal(block(features), features) == residual
