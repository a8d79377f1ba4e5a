"""The skin of the training people as maps: what crops show of it, drawn over the whole unwrap."""

from __future__ import annotations

import torch
from torch import Tensor

from nextface.morphable.model import MorphableModel
from nextface.prior.data.noise import NoiseVolume
from nextface.prior.data.people import People
from nextface.prior.data.skin import Places, draw_skin
from nextface.prior.data.zones import FaceZones
from nextface.rendering.bake import fill, uv_fragments
from nextface.rendering.fragments import interpolate


def unwrapped(people: People, zones: FaceZones, noise: NoiseVolume, model: MorphableModel, size: int) -> Tensor:
    """Maps of B persons, linear, channels as in `nextface.textures.MAP_CHANNELS`. `[B, size, size, 7]`

    A texel has the skin at its centre; texels between the islands of the unwrap are filled from those near by. A person takes
    some 300 bytes a texel meanwhile. zones: of all vertices of the model; size: texels, a power of two. All on one device.
    """
    with torch.no_grad():
        texels = uv_fragments(model, size)
        pixels, weights = texels.pixels, texels.barycentric

        def drawn(attributes: Tensor, triangles: Tensor) -> Tensor:
            """[V, C] -> [B, C, P]"""
            values = interpolate(attributes[None], pixels.image, triangles[pixels.triangle], weights)
            return values.mT.contiguous().expand(len(people), -1, -1)

        places = Places.of(drawn(zones.vertices, model.triangles))
        skin = draw_skin(places, drawn(zones.frames, model.uv_triangles), people, noise)
        values = torch.cat([skin.diffuse, skin.specular, skin.roughness, skin.slopes], 1)
        maps = values.new_zeros(len(people), size, size, values.shape[1])
        maps[:, pixels.row, pixels.column] = values.mT
        covered = values.new_zeros(1, size, size, 1)
        covered[:, pixels.row, pixels.column] = 1.0
        return fill(maps, covered)
