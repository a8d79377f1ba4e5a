"""Patch discriminator (stages 1 and 2) and projected discriminator (swapper). Both return logits, higher for real."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu, normalize

from nextface.errors import InputError
from nextface.prior.efficientnet import stage, stem

PROJECTED_CHANNELS = (64, 128, 256, 512)  # of the random projections, fine to coarse
FEATURE_CHANNELS = (24, 40, 112, 320)  # of the frozen features at 1/4, 1/8, 1/16, 1/32
HEADS = ((64, 64, 128, 256, 512), (64, 128, 256, 512), (128, 256, 512), (256, 512))  # channels along each head
SMALLEST_INPUT = 128  # the deepest head still has a 4×4 map to judge


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017). Crops in -1…1, [B, 3, S, S] -> logits [B, 1, S', S'], 30×30 for S = 512.

    width:  channels after the first layer; they double up to eightfold
    layers: layers of stride 2
    With the defaults it has the layers and keys of the published `VQGANDiscriminator`, 7.0 million parameters.
    """

    def __init__(self, width: int = 64, layers: int = 4) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = width
        for number in range(1, layers + 1):
            after = width * min(2**number, 8)
            stride = 2 if number < layers else 1
            blocks.append(nn.Conv2d(channels, after, 4, stride=stride, padding=1, bias=False))
            blocks += [nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
            channels = after
        blocks.append(nn.Conv2d(channels, 1, 4, padding=1))
        self.main = nn.Sequential(*blocks)

    def forward(self, image: Tensor) -> Tensor:
        return self.main(image)


class ProjectedDiscriminator(nn.Module):
    """Projected GAN (Sauer et al. 2021): small heads on frozen ImageNet features, mixed by frozen random projections.

    Crops in -1…1, [B, 3, S, S], S a multiple of 32 and at least 128 -> the logits of all four heads, [B, N]; N = 676
    for S = 512. As published, crops are neither resized nor standardised for ImageNet. Without ImageNet weights in
    `feature_network.pretrained` (`nextface.prior.checkpoint.load_imagenet`) its judgement is worth little. The features
    always stay in evaluation mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self.feature_network = ProjectedFeatures().requires_grad_(False).eval()
        self.discriminator = Heads()

    def train(self, mode: bool = True) -> ProjectedDiscriminator:
        super().train(mode)
        self.feature_network.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        if any(side < SMALLEST_INPUT or side % 32 for side in image.shape[2:]):
            raise InputError(
                f"the projected discriminator cannot judge crops of shape {list(image.shape)}: "
                f"sides must be multiples of 32 and at least {SMALLEST_INPUT}"
            )
        return self.discriminator(self.feature_network(image))


class ProjectedFeatures(nn.Module):
    """[B, 3, S, S] -> [B, 64, S/2, S/2], [B, 64, S/4, S/4], [B, 128, S/8, S/8], [B, 256, S/16, S/16]"""

    def __init__(self) -> None:
        super().__init__()
        self.pretrained = nn.Module()
        self.pretrained.layer0 = nn.Sequential(*stem(), stage(0), stage(1))
        self.pretrained.layer1 = nn.Sequential(stage(2))
        self.pretrained.layer2 = nn.Sequential(stage(3), stage(4))
        self.pretrained.layer3 = nn.Sequential(stage(5), stage(6))
        self.scratch = nn.Module()
        for level, (before, after) in enumerate(zip(FEATURE_CHANNELS, PROJECTED_CHANNELS, strict=True)):
            self.scratch.add_module(f"layer{level}_ccm", nn.Conv2d(before, after, 1))
            self.scratch.add_module(f"layer{level}_csm", Projection(after, PROJECTED_CHANNELS[max(level - 1, 0)]))

    def forward(self, image: Tensor) -> list[Tensor]:
        laterals = []
        features = image
        for level in range(4):
            features = self.pretrained.get_submodule(f"layer{level}")(features)
            laterals.append(self.scratch.get_submodule(f"layer{level}_ccm")(features))
        outputs: list[Tensor] = []
        for level in reversed(range(4)):
            total = laterals[level] if level == 3 else laterals[level] + outputs[0]
            outputs.insert(0, self.scratch.get_submodule(f"layer{level}_csm")(total))
        return outputs


class Projection(nn.Module):
    """1×1 convolution and bilinear doubling, corners aligned. [B, before, H, W] -> [B, after, 2H, 2W]

    The published order is the reverse; the two commute, and this one convolves a quarter of the pixels.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(before, after, 1)

    def forward(self, features: Tensor) -> Tensor:
        return interpolate(self.out_conv(features), scale_factor=2.0, mode="bilinear", align_corners=True)


class SpectralConv2d(nn.Module):
    """4×4 convolution whose weight is divided by its largest singular value (Miyato et al. 2018).

    Each training step does one power iteration. The keys `weight_orig`, `weight_u` and `weight_v` are those of
    `torch.nn.utils.spectral_norm`.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, before: int, after: int, stride: int, padding: int, bias: bool) -> None:
        super().__init__()
        plain = nn.Conv2d(before, after, 4, bias=bias)
        self.stride, self.padding = stride, padding
        self.weight_orig, self.bias = plain.weight, plain.bias
        self.register_buffer("weight_u", normalize(torch.randn(after), dim=0))
        self.register_buffer("weight_v", normalize(torch.randn(16 * before), dim=0))

    def forward(self, features: Tensor) -> Tensor:
        matrix = self.weight_orig.flatten(1)
        if self.training:
            with torch.no_grad():
                self.weight_v.copy_(normalize(matrix.T @ self.weight_u, dim=0))
                self.weight_u.copy_(normalize(matrix @ self.weight_v, dim=0))
        norm = (matrix * torch.outer(self.weight_u, self.weight_v)).sum()
        return conv2d(features, self.weight_orig / norm, self.bias, self.stride, self.padding)


class DownBlock(nn.Module):
    """Convolution of stride 2, norm, leaky ReLU. [B, before, H, W] -> [B, after, H/2, W/2]"""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.main = nn.Sequential(SpectralConv2d(before, after, 2, 1, bias=True), nn.BatchNorm2d(after))

    def forward(self, features: Tensor) -> Tensor:
        return leaky_relu(self.main(features), 0.2)


class Heads(nn.Module):
    """A head for each of the four feature maps of `ProjectedFeatures` -> [B, N]"""

    def __init__(self) -> None:
        super().__init__()
        self.mini_discs = nn.ModuleList(Head(channels) for channels in HEADS)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat([head(features).flatten(1) for head, features in zip(self.mini_discs, maps, strict=True)], 1)


class Head(nn.Module):
    """Halvings along `channels`, then one logit per position. [B, C, H, W] -> [B, 1, H/2ⁿ − 3, W/2ⁿ − 3]"""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        blocks: list[nn.Module] = [
            DownBlock(before, after) for before, after in zip(channels[:-1], channels[1:], strict=True)
        ]
        self.main = nn.Sequential(*blocks, SpectralConv2d(channels[-1], 1, 1, 0, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        return self.main(features)
