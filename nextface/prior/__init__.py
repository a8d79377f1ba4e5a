"""The reflectance prior: codebooks learnt from faces, and networks that read, mix and decode them.

ID2Reflectance, "Monocular identity-conditioned facial reflectance reconstruction" (Ren et al., CVPR 2024).
"""

from nextface.prior.autoencoder import Reconstruction, VQAutoencoder
from nextface.prior.fusion import DOMAINS, FusedAutoencoder, FusedReconstruction
from nextface.prior.identity import IdentityEncoder, identity_crop
from nextface.prior.settings import AutoencoderSettings, FusionSettings, IdentitySettings, SwapSettings
from nextface.prior.swapper import FusedSwapper, Swap, Swapper

__all__ = [
    "DOMAINS",
    "AutoencoderSettings",
    "FusedAutoencoder",
    "FusedReconstruction",
    "FusedSwapper",
    "FusionSettings",
    "IdentityEncoder",
    "IdentitySettings",
    "Reconstruction",
    "Swap",
    "SwapSettings",
    "Swapper",
    "VQAutoencoder",
    "identity_crop",
]
