"""EfficientNet-Lite0 up to its last feature map (Tan and Le 2019), with TensorFlow's padding.

It holds frozen ImageNet features for the projected discriminator; layers and keys are those of timm's
`tf_efficientnet_lite0`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

STEM = 32
# blocks, kernel, stride, channels; every stage but the first expands its channels sixfold inside
STAGES = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320))
EXPANSION = 6


class SameConv2d(nn.Conv2d):
    """Convolution without bias to ⌈size / stride⌉ pixels; an odd pixel of padding goes right and below."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (max(kernel - (side % stride or stride), 0) for side in features.shape[2:])
        padded = pad(features, (width // 2, width - width // 2, height // 2, height - height // 2))
        return conv2d(padded, self.weight, stride=self.stride, groups=self.groups)


class SeparableBlock(nn.Module):
    """Depthwise, then pointwise convolution: the first stage. [B, before, H, W] -> [B, after, H, W]"""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw = SameConv2d(before, before, kernel, groups=before)
        self.bn1 = _norm(before)
        self.conv_pw = SameConv2d(before, after, 1)
        self.bn2 = _norm(after)
        self.act = nn.ReLU6()

    def forward(self, features: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(self.act(self.bn1(self.conv_dw(features)))))


class InvertedBlock(nn.Module):
    """Inverted residual (Sandler et al. 2018, "MobileNetV2"). [B, before, H, W] -> [B, after, H/stride, W/stride]"""

    def __init__(self, before: int, after: int, kernel: int, stride: int) -> None:
        super().__init__()
        inside = EXPANSION * before
        self.conv_pw = SameConv2d(before, inside, 1)
        self.bn1 = _norm(inside)
        self.conv_dw = SameConv2d(inside, inside, kernel, stride, groups=inside)
        self.bn2 = _norm(inside)
        self.conv_pwl = SameConv2d(inside, after, 1)
        self.bn3 = _norm(after)
        self.act = nn.ReLU6()
        self.residual = stride == 1 and before == after

    def forward(self, features: Tensor) -> Tensor:
        change = self.act(self.bn1(self.conv_pw(features)))
        change = self.act(self.bn2(self.conv_dw(change)))
        change = self.bn3(self.conv_pwl(change))
        return features + change if self.residual else change


def stem() -> list[nn.Module]:
    """[B, 3, S, S] -> [B, 32, S/2, S/2]"""
    return [SameConv2d(3, STEM, 3, stride=2), _norm(STEM), nn.ReLU6()]


def stage(number: int) -> nn.Sequential:
    """Stage 0…6; see STAGES for its strides and channels."""
    count, kernel, stride, channels = STAGES[number]
    if number == 0:
        return nn.Sequential(SeparableBlock(STEM, channels, kernel))
    blocks = [InvertedBlock(STAGES[number - 1][3], channels, kernel, stride)]
    blocks += [InvertedBlock(channels, channels, kernel, 1) for _ in range(count - 1)]
    return nn.Sequential(*blocks)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
