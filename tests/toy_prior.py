"""Sizes of networks that run in milliseconds."""

from __future__ import annotations

from nextface.prior.settings import AutoencoderSettings, FusionSettings, IdentitySettings, SwapSettings

TOY = AutoencoderSettings(
    image_size=32,
    width=8,
    multipliers=(1, 2),
    res_blocks=1,
    attention_sizes=(16,),
    codes=12,
    code_channels=6,
    norm_groups=4,
)
TOY_FUSION = FusionSettings(stacks=1, layers=2, heads=2, window=4, mlp_ratio=2, mask_size=16)
TOY_SWAP = SwapSettings(identity_channels=5, sizes=(16, 32))
TOY_IDENTITY = IdentitySettings(image_size=28, widths=(4, 6), blocks=(2, 1), embedding_channels=5)
