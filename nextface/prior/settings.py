"""Sizes of the prior's networks. The defaults are those of the published system; `SMALL_*` are ours."""

from __future__ import annotations

from dataclasses import dataclass

from nextface.errors import ConfigError


@dataclass(frozen=True)
class AutoencoderSettings:
    """The vector-quantised auto-encoder (ID2Reflectance, CVPR 2024; layers as in VQGAN, Esser et al. 2021).

    image_size:      side of the square crops, pixels
    width:           feature channels at full resolution
    multipliers:     channels of each level as multiples of `width`; each level halves the resolution of the one before
    res_blocks:      residual blocks per level
    attention_sizes: sides of the feature maps at which each residual block is followed by attention
    codes:           entries of a codebook
    code_channels:   channels of an entry, and of the latent map
    norm_groups:     groups of every group normalisation
    """

    image_size: int = 512
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2, 4, 4, 8)
    res_blocks: int = 2
    attention_sizes: tuple[int, ...] = (16,)
    codes: int = 1024
    code_channels: int = 256
    norm_groups: int = 32

    def __post_init__(self) -> None:
        counts = (self.image_size, self.width, self.res_blocks, self.codes, self.code_channels, self.norm_groups)
        _require(
            min(counts) >= 1 and len(self.multipliers) >= 1, f"every size of the auto-encoder must be positive: {self}"
        )
        _require(
            self.image_size % self.downsampling == 0,
            f"image_size {self.image_size} is not a multiple of {self.downsampling}, "
            f"the downsampling of {len(self.multipliers)} levels",
        )
        for channels in self.widths:
            _require(
                channels % self.norm_groups == 0 and channels >= 2 * self.norm_groups,
                f"a level of {channels} channels cannot have {self.norm_groups} norm groups: each group needs the same "
                "number of channels and at least two, or the mean colour of the output cannot depend on the image; "
                "lower norm_groups or raise width",
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, full resolution first."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Side of each level's feature maps, full resolution first."""
        return tuple(self.image_size >> level for level in range(len(self.multipliers)))

    @property
    def downsampling(self) -> int:
        """Pixels of the image along one side of a token."""
        return 1 << (len(self.multipliers) - 1)

    @property
    def latent_size(self) -> int:
        """Side of the latent map, in tokens."""
        return self.image_size // self.downsampling


@dataclass(frozen=True)
class FusionSettings:
    """The Swin stack that predicts the weights of the codebooks (Liu et al. 2021; SwinIR, Liang et al. 2021).

    stacks:    residual groups
    layers:    transformer layers per group; every second one works on shifted windows
    heads:     attention heads
    window:    side of an attention window, tokens; even
    mlp_ratio: hidden channels of a layer's perceptron as a multiple of the token's
    mask_size: side of the token grid whose shift masks are stored in the checkpoint. The published network stores them
               for 32 and works on 16, where masks are made as needed; equal to the latent size they are used as stored.
    """

    stacks: int = 4
    layers: int = 6
    heads: int = 8
    window: int = 8
    mlp_ratio: int = 4
    mask_size: int = 32

    def __post_init__(self) -> None:
        _require(
            min(self.stacks, self.layers, self.heads, self.mlp_ratio, self.window, self.mask_size) >= 1
            and self.window % 2 == 0
            and self.mask_size % self.window == 0,
            f"the fusion network needs positive sizes, an even window and a mask_size that is a multiple of it: {self}",
        )


@dataclass(frozen=True)
class SwapSettings:
    """Where and how the swapper injects an identity.

    identity_channels: length of an identity embedding
    sizes:             sides of the decoder's feature maps that get an identity block ("F16+F32+F64+F128" of the paper)
    """

    identity_channels: int = 512
    sizes: tuple[int, ...] = (16, 32, 64, 128)


@dataclass(frozen=True)
class IdentitySettings:
    """The IResNet face-recognition network (ArcFace, Deng et al. 2019).

    image_size:         side of its input, pixels
    widths:             channels of each layer; each layer halves the resolution
    blocks:             residual blocks of each layer
    embedding_channels: length of the embedding
    """

    image_size: int = 112
    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (3, 13, 30, 3)
    embedding_channels: int = 512

    def __post_init__(self) -> None:
        _require(
            len(self.widths) == len(self.blocks) >= 1
            and min(*self.widths, *self.blocks, self.embedding_channels) >= 1
            and self.image_size >= 1
            and self.image_size % (1 << len(self.widths)) == 0,
            "the identity encoder needs as many widths as block counts, all positive, and an image_size that is a "
            f"multiple of 2 to the number of layers: {self}",
        )

    @property
    def final_size(self) -> int:
        """Side of the last feature map."""
        return self.image_size >> len(self.widths)


def check_fusion(autoencoder: AutoencoderSettings, fusion: FusionSettings) -> None:
    """Raise ConfigError unless the fusion network fits the auto-encoder's latent map."""
    _require(
        autoencoder.code_channels % fusion.heads == 0,
        f"code_channels {autoencoder.code_channels} cannot be split into {fusion.heads} attention heads",
    )
    _require(
        autoencoder.latent_size % fusion.window == 0,
        f"a latent map of {autoencoder.latent_size}² tokens cannot be split into windows of {fusion.window}²",
    )


def check_swap(autoencoder: AutoencoderSettings, swap: SwapSettings) -> None:
    """Raise ConfigError unless every injection size is a size of the decoder."""
    unknown = sorted(set(swap.sizes) - set(autoencoder.sizes))
    _require(
        not unknown,
        f"identity blocks at {unknown}: the decoder's feature maps have the sizes {sorted(autoencoder.sizes)}",
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


SMALL_AUTOENCODER = AutoencoderSettings(
    image_size=128, width=32, multipliers=(1, 1, 2, 4), res_blocks=1, codes=512, code_channels=64, norm_groups=16
)
SMALL_FUSION = FusionSettings(stacks=2, layers=2, heads=4, mask_size=16)
SMALL_SWAP = SwapSettings(identity_channels=128, sizes=(16, 32, 64))
SMALL_IDENTITY = IdentitySettings(widths=(16, 32, 64, 64), blocks=(1, 2, 2, 1), embedding_channels=128)
