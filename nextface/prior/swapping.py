"""The identity of a photo, put into the reflectance of a person whose maps are known (ID2Reflectance, Ren et al. 2024)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nextface.errors import InputError
from nextface.morphable.model import MorphableModel
from nextface.prior.bundle import Bundle
from nextface.prior.crops import masked
from nextface.prior.stitching import Stitched, stitch
from nextface.prior.swapper import FusedSwapper, IdentityBlock, Swapper
from nextface.prior.templates import Templates
from nextface.prior.views import CropViews
from nextface.textures import MAP_CHANNELS, resized, upsample

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SwappedViews:
    """given: a template's crops; swapped: with the identity of another; encoded, [N, 3, S, S] by domain of MAP_CHANNELS"""

    given: dict[str, Tensor]
    swapped: dict[str, Tensor]


@dataclass(frozen=True)
class Swapping:
    """A prior that can swap: its swapper, its identity encoder and its templates agree.

    source: names it in errors
    """

    bundle: Bundle
    source: Path

    def __post_init__(self) -> None:
        """Raises InputError."""
        net, identity = self.bundle.projection.net, self.bundle.identity
        if not isinstance(net, (FusedSwapper, Swapper)):
            raise InputError(
                f"{self.source}: holds a {type(net).__name__}, which cannot swap; give a checkpoint of the stage swapper"
            )
        if identity is None:
            raise InputError(
                f"{self.source}: holds no identity encoder; give one with --identity or identityCheckpoint"
            )
        length, wanted = identity.settings.embedding_channels, _identity_channels(net)
        if length != wanted:
            raise InputError(
                f"{self.source}: its swapper takes identities of {wanted} numbers, but the identity encoder gives {length}; "
                "give the encoder that the swapper was trained with"
            )

    @property
    def templates(self) -> Templates:
        """Raises InputError where the prior has none."""
        if self.bundle.templates is None:
            raise InputError(
                f"{self.source}: holds no templates; give crops to swap, or the prior that ships with nextface"
            )
        return self.bundle.templates

    def for_model(self, model: MorphableModel) -> Swapping:
        """With templates that are heads of a model and described by the identity encoder, which takes a second each where another
        one described them. Raises InputError."""
        templates, identity = self.templates, self.bundle.identity
        assert identity is not None
        if templates.model != model.name:
            raise InputError(
                f"{self.source}: its templates are heads of the {templates.model}, not of the {model.name}"
            )
        if not templates.embeddings.shape[1]:
            log.info("%s: describing its %d templates by the given identity encoder", self.source, templates.count)
            templates = templates.with_encoder(identity, self.bundle.faces, model)
        return replace(self, bundle=replace(self.bundle, templates=templates))

    def identity(self, crop: Tensor) -> Tensor:
        """Unit embedding of the face in a photo's crop: the mean of those of it and its mirror image.

        crop: cut and encoded as `Bundle.faces`, [1, 3, S, S] -> [E]
        """
        encoder = self.bundle.identity
        assert encoder is not None
        with torch.no_grad():
            return normalize(encoder.embed(torch.cat([crop, crop.flip(-1)])).mean(0), dim=0)

    def swap(self, crops: Tensor, identity: Tensor) -> Tensor:
        """Encoded crops of any domain with an identity: x + G(Q(E(x)), identity) − G(Q(E(x))), so that detail which codes cannot hold
        stays. [N, 3, S, S], [E] or [N, E] -> [N, 3, S, S]"""
        with torch.no_grad():
            given = crops.to(memory_format=torch.channels_last)
            net = self.bundle.projection.net
            return crops + net(given, identity.expand(len(crops), -1)).image - self.bundle.projection(given)

    def swap_views(self, template: int, views: CropViews, model: MorphableModel, identity: Tensor) -> SwappedViews:
        """All domains of a template in all views, with an identity. identity: [E]"""
        given = self.templates.crops(template, views, model, self.bundle.projection.encoding)
        swapped = self.swap(torch.cat([given[domain] for domain in MAP_CHANNELS]), identity)
        parts = [masked(part, views.covered) for part in swapped.split(views.count)]
        return SwappedViews(given, dict(zip(MAP_CHANNELS, parts, strict=True)))

    def maps(self, template: int, views: CropViews, model: MorphableModel, swapped: SwappedViews) -> Stitched:
        """Complete maps of swapped views; the template's own where no view shows the skin. [R, R, 7], R = `views.resolution`"""
        encoding = self.bundle.projection.encoding
        crops = [views.decoded(encoding, domain, swapped.swapped[domain]) for domain in MAP_CHANNELS]
        known = self.templates.maps(template).to(views.facing)[None]
        size = views.resolution
        known = resized(known, size) if known.shape[1] > size else upsample(known, size)
        return stitch(torch.cat(crops, 1), views, model, known[0])


def _identity_channels(net: FusedSwapper | Swapper) -> int:
    """Length of the identities that a swapper takes."""
    block = cast(IdentityBlock, next(iter(net.fuse_convs_dict.values())))
    return block.encode_enc.style1.linear.in_features
