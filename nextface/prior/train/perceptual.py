"""How far two images are apart to the eye.

LPIPS (Zhang et al. 2018) where the package and VGG's ImageNet weights are at hand; they are never downloaded. Else the
Laplacian loss: it needs no weights, and unlike the plain pixel loss it weighs every band of detail by itself, so that
a net cannot pay for smeared brows and lips with right colours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from nextface.errors import ConfigError, MissingPackageError
from nextface.prior.blocks import at_least_single

logger = logging.getLogger(__name__)

PerceptualLoss = Callable[[Tensor, Tensor], Tensor]
"""Two batches of images in -1…1, [B, 3, S, S] -> []"""

CHOICES = ("auto", "lpips", "lpipsPublished", "laplacian")
VGG_FILE = "vgg16-397923af.pth"
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def perceptual_loss(choice: str, device: torch.device) -> PerceptualLoss:
    """A loss by its name in CHOICES. Raises ConfigError, MissingPackageError."""
    if choice not in CHOICES:
        raise ConfigError(f"there is no perceptual loss {choice!r}: choose one of {', '.join(CHOICES)}")
    if choice == "laplacian":
        return laplacian_loss
    missing = lpips_missing()
    if missing is not None and choice == "auto":
        logger.warning("the perceptual loss is the Laplacian one, since %s", missing)
        return laplacian_loss
    if missing is not None:
        raise MissingPackageError(f"perceptual = {choice}: {missing}")
    return lpips_loss(device, published=choice == "lpipsPublished")


def laplacian_loss(image: Tensor, target: Tensor) -> Tensor:
    """Σ bands of Laplacian pyramids down to 8² or less of mean|difference|.

    The Lap1 loss of Bojanowski et al. 2018, "Optimizing the latent space of generative networks": its weights, 4 per octave
    on sums over pixels, are means. [B, 3, S, S] -> []
    """
    difference = image - target
    bands = []
    while difference.shape[-1] % 2 == 0 and difference.shape[-1] > 8:
        coarse = avg_pool2d(difference, 2)
        up = interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
        bands.append((difference - up).abs().mean())
        difference = coarse
    return torch.stack([*bands, difference.abs().mean()]).sum()


class FeatureLoss(nn.Module):
    """LPIPS's distance on any network's features: Σ layers of mean over positions of head(|f(x)/‖f(x)‖ − f(y)/‖f(y)‖|²).

    network: images in -1…1 to feature maps [B, C_l, H_l, W_l]
    heads:   one for each map, [B, C_l, H, W] -> [B, 1, H, W]; without them channels are summed
    """

    def __init__(
        self,
        network: Callable[[Tensor], Sequence[Tensor]],
        heads: Sequence[Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.network(target)
        total = image.new_zeros(())
        for level, (found, right) in enumerate(zip(self.network(image), wanted, strict=True)):
            difference = (_unit(found) - _unit(right)).square()
            weighed = difference.sum(1, keepdim=True) if self.heads is None else self.heads[level](difference)
            total = total + at_least_single(weighed).mean()
        return total


def lpips_loss(device: torch.device, published: bool = False) -> FeatureLoss:
    """LPIPS 0.1 with VGG16.

    published: standardise for ImageNet and double before LPIPS's own scaling, as the published code does: 4.4 times the
               contrast that VGG was trained with. Else images are scaled once, as LPIPS's authors mean it.
    """
    import lpips

    model = lpips.LPIPS(net="vgg", verbose=False).requires_grad_(False).eval().to(device)
    mean = torch.tensor(_IMAGENET_MEAN, device=device).view(3, 1, 1)
    deviation = torch.tensor(_IMAGENET_DEVIATION, device=device).view(3, 1, 1)

    def features(image: Tensor) -> Sequence[Tensor]:
        if published:
            image = 2.0 * ((0.5 * image + 0.5 - mean) / deviation) - 1.0
        return model.net(model.scaling_layer(image))

    return FeatureLoss(features, list(model.lins))


def lpips_missing() -> str | None:
    """Why LPIPS cannot be used here, with the remedy; None when it can."""
    try:
        import lpips  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # a torchvision of another build fails as it likes
        return f"the package lpips cannot be imported ({error}); pip install 'nextface[train]'"
    weights = Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
    if not weights.is_file():
        return f"VGG's ImageNet weights are not at {weights}; put torchvision's {VGG_FILE} there"
    return None


def _unit(features: Tensor) -> Tensor:
    wide = at_least_single(features)
    # 1e-20: the root has a gradient where every channel is 0
    return wide / ((wide.square().sum(1, keepdim=True) + 1e-20).sqrt() + 1e-10)
