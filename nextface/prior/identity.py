"""The face-recognition network that says who a face is (ArcFace, Deng et al. 2019)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from nextface.errors import InputError
from nextface.prior.settings import IdentitySettings


class IdentityBottleneck(nn.Module):
    """x + norm(conv(prelu(norm(conv(norm(x)))))). [B, before, H, W] -> [B, after, H/stride, W/stride]"""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.prelu = nn.PReLU(after)
        self.conv2 = nn.Conv2d(after, after, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, features: Tensor) -> Tensor:
        change = self.prelu(self.bn2(self.conv1(self.bn1(features))))
        return self.downsample(features) + self.bn3(self.conv2(change))


class IdentityEncoder(nn.Module):
    """IResNet. With default settings it has the layers and keys of insightface's r100, 65.2 million parameters.

    Face crops in -1…1, RGB, [B, 3, S, S] with S = `IdentitySettings.image_size` -> embeddings of any length, [B, E]
    """

    def __init__(self, settings: IdentitySettings | None = None) -> None:
        super().__init__()
        self.settings = settings = settings or IdentitySettings()
        channels = settings.widths[0]
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        for number, (width, count) in enumerate(zip(settings.widths, settings.blocks, strict=True), start=1):
            blocks = [IdentityBottleneck(channels, width, stride=2)]
            blocks += [IdentityBottleneck(width, width, stride=1) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            channels = width
        self.bn2 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels * settings.final_size**2, settings.embedding_channels)
        self.features = nn.BatchNorm1d(settings.embedding_channels)  # a norm, in spite of its name

    def forward(self, face: Tensor) -> Tensor:
        size = self.settings.image_size
        if face.shape[1:] != (3, size, size):
            raise InputError(f"faces of shape {list(face.shape)} cannot be recognised: give [B, 3, {size}, {size}]")
        features = self.prelu(self.bn1(self.conv1(face)))
        for number in range(1, len(self.settings.widths) + 1):
            features = self.get_submodule(f"layer{number}")(features)
        return self.features(self.fc(self.bn2(features).flatten(1)))

    def embed(self, crop: Tensor) -> Tensor:
        """Unit embeddings of FFHQ-aligned crops in -1…1. [B, 3, S, S] -> float32 [B, E]"""
        return normalize(self(identity_crop(crop, self.settings.image_size)).float(), dim=-1)


def identity_crop(crop: Tensor, size: int = 112) -> Tensor:
    """The part of an FFHQ-aligned crop that is shown to the identity encoder.

    The upper 7/8 of the rows and the middle 7/8 of the columns (rows 0…447, columns 32…479 of 512), resized bicubically
    without antialiasing. The published system does so everywhere; against ArcFace's own alignment the face is about 17%
    too small and lies lower. crop: [B, 3, S, S], S a multiple of 16 -> [B, 3, size, size]
    """
    side = crop.shape[-1]
    if crop.shape[-2] != side or side % 16:
        raise InputError(f"an identity crop needs square crops with a side that is a multiple of 16, not {crop.shape}")
    margin = side // 16
    part = crop[..., : side - 2 * margin, margin : side - margin]
    if part.shape[-1] == size:
        return part
    return interpolate(part, size=(size, size), mode="bicubic", align_corners=False)
