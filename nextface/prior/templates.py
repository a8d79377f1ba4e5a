"""Heads whose reflectance is known: what the swapper puts other identities into."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from nextface.color import linear_to_srgb, srgb_to_linear
from nextface.errors import InputError
from nextface.morphable.model import MorphableModel
from nextface.prior.crops import DISTANCE_MM, masked
from nextface.prior.data.faces import metered
from nextface.prior.data.heads import BANDS
from nextface.prior.data.lights import draw_lights
from nextface.prior.encoding import Encoding
from nextface.prior.identity import IdentityEncoder
from nextface.prior.views import CropViews, crop_scenes
from nextface.rendering.render import render_under
from nextface.rendering.transport import COARSE_DIRECTIONS, Transport
from nextface.scene import Scene
from nextface.textures import COARSEST, MAP_CHANNELS, LaplacianTexture, SkinMaps, channels, resized, upsample

PREFIX = "templates."
"""Of the keys in a file."""
STEEPEST = 2.0
"""Slope that the largest value of a picture stands for."""
_PICTURES = ((0, 1, 2), (3, 3, 4), (5, 5, 6))
"""Channels of `MAP_CHANNELS` that are the colours of each of a head's pictures; alike ones together, which packs best."""
_SIDES = tuple(COARSEST << step for step in range(9))
"""That maps may have, as those of skin."""
_LIGHTS = 6
"""Lights under which a head is shown to an encoder of identities."""
_FRAME = 400
"""Side of the picture of `Templates.scene`, pixels and millimetres."""


@dataclass(frozen=True)
class Templates:
    """N heads of one model, at rest.

    model:      name of the morphable model whose shapes these are and in whose unwrap the maps lie
    shape:      coefficients, standard deviations. [N, Ks]
    embeddings: of each face by one encoder of identities, unit; none, E = 0, where another encoder is to make them anew.
                [N, E]
    pictures:   maps in bytes, planes in the order of `MAP_CHANNELS`: albedo sRGB, specular weight and roughness linear in
                0…255, slopes 128 + 127/`STEEPEST` each. uint8 [N, 7, R, R]
    """

    model: str
    shape: Tensor
    embeddings: Tensor
    pictures: Tensor

    @classmethod
    def of_maps(cls, model: MorphableModel, shape: Tensor, maps: Tensor) -> Templates:
        """Without embeddings. shape: [N, Ks]; maps: linear, channels as in `MAP_CHANNELS`, [N, R, R, 7]"""
        where, scaled = channels(), maps * 255.0
        scaled[..., where["diffuse"]] = 255.0 * linear_to_srgb(maps[..., where["diffuse"]].clamp(0.0, 1.0))
        scaled[..., where["normal"]] = 128.0 + (127.0 / STEEPEST) * maps[..., where["normal"]]
        pictures = scaled.round().clamp(0.0, 255.0).to(torch.uint8).movedim(-1, 1).contiguous()
        return cls(model.name, shape, shape.new_zeros(len(shape), 0), pictures)

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], model: str, source: object) -> Templates | None:
        """From what `tensors` gave; None where there are none. source: names the file in errors. Raises InputError."""
        own = {key.removeprefix(PREFIX): each for key, each in tensors.items() if key.startswith(PREFIX)}
        if not own:
            return None
        numbers = [own.pop(name, torch.zeros(0)).float() for name in ("shape", "embeddings")]
        count = len(own)
        if any(each.ndim != 2 or len(each) != count or not torch.isfinite(each).all() for each in numbers):
            raise _broken(source, f"coefficients or embeddings do not fit its {count} maps")
        if set(own) != {f"maps.{number}" for number in range(count)}:
            raise _broken(source, "maps are missing")
        pictures = [_unpacked(own[f"maps.{number}"], source) for number in range(count)]
        if len({each.shape for each in pictures}) != 1:
            raise _broken(source, "maps differ in size")
        return cls(model, numbers[0], normalize(numbers[1], dim=1), torch.stack(pictures))

    def tensors(self) -> dict[str, Tensor]:
        """For a file, about 0.13 MB for each head of 256² texels: numbers in half precision, maps as WebP."""
        own = {"shape": self.shape.half(), "embeddings": self.embeddings.half()}
        own |= {f"maps.{number}": _packed(planes) for number, planes in enumerate(self.pictures)}
        return {PREFIX + name: each for name, each in own.items()}

    def to(self, device: torch.device | str) -> Templates:
        moved = {name: getattr(self, name).to(device) for name in ("shape", "embeddings", "pictures")}
        return replace(self, **moved)

    @property
    def count(self) -> int:
        """N"""
        return len(self.shape)

    def closest(self, embedding: Tensor) -> int:
        """The head whose face is most like one. embedding: by the same encoder, [E]. Raises InputError."""
        if embedding.shape != self.embeddings.shape[1:]:
            raise InputError(
                f"a face described by {len(embedding)} numbers cannot be compared with templates described by "
                f"{self.embeddings.shape[1]}: describe them by the same encoder first (Templates.with_encoder)"
            )
        return int((self.embeddings @ embedding.to(self.embeddings)).argmax())

    def maps(self, index: int) -> Tensor:
        """Linear, channels as in `MAP_CHANNELS`. [R, R, 7]"""
        values, where = self.pictures[index].float().movedim(0, -1), channels()
        maps = values / 255.0
        maps[..., where["diffuse"]] = srgb_to_linear(maps[..., where["diffuse"]])
        maps[..., where["normal"]] = (values[..., where["normal"]] - 128.0) * (STEEPEST / 127.0)
        return maps

    def scene(self, index: int, model: MorphableModel) -> Scene:
        """The head from the front, at rest, with its maps, under light that is 1 from everywhere. Raises InputError."""
        self._check(model)
        maps = self.maps(index)[None]
        textures = {name: LaplacianTexture.from_image(maps[..., where]) for name, where in channels().items()}
        one, light = maps.new_ones(1), maps.new_zeros(1, BANDS**2, 3)
        light[:, 0] = math.sqrt(4.0 * math.pi)
        return Scene(
            shape=self.shape[index : index + 1, : len(model.shape_basis)],
            albedo=maps.new_zeros(1, len(model.diffuse_basis)),
            expression=maps.new_zeros(1, len(model.expression_basis)),
            rotation=maps.new_zeros(1, 3),
            translation=maps.new_tensor([[0.0, 0.0, DISTANCE_MM]]),
            focal=one * DISTANCE_MM,  # one pixel per millimetre
            principal=maps.new_full((1, 2), _FRAME / 2.0),
            light=light,
            exposure=0.0 * one,
            white_balance=maps.new_zeros(1, 2),
            height=_FRAME,
            width=_FRAME,
            maps=SkinMaps(**textures, confidence=torch.ones_like(maps[..., :1])),
        )

    def crops(self, index: int, views: CropViews, model: MorphableModel, encoding: Encoding) -> dict[str, Tensor]:
        """One head's maps as they look in some views, by domain as networks see them, mid-grey off the head. [N, 3, S, S] each

        views: of a scene of the model: the head's own, or a photo's, whose shape and expression the crops then have. Raises
        InputError.
        """
        self._check(model)
        size, maps = views.resolution, self.maps(index)[None]
        drawn = views.crops((resized if maps.shape[1] > size else upsample)(maps, size)[0])
        return {name: masked(views.encoded(encoding, name, drawn), views.covered) for name in MAP_CHANNELS}

    def photos(self, index: int, model: MorphableModel, lights: Tensor, encoding: Encoding) -> Tensor:
        """What a camera sees of one head from the front under each of some lights, with its own shadows; mid-grey around it.

        lights: view frame, `[L, BANDS², 3]` -> encoded, `[L, 3, S, S]`. Raises InputError.
        """
        whole = self.scene(index, model)
        seen = replace(crop_scenes(whole, model, encoding.crop, encoding.image_size, (0.0,)), maps=whole.maps)
        transport = Transport.of_head(seen, model, COARSE_DIRECTIONS)
        drawn = render_under(list(lights[:, None]), seen, model, transport=transport)
        image, head = torch.cat([each.image for each in drawn]), drawn[0].mask.to(lights).expand(len(lights), -1, -1)
        gain = metered(
            image.flatten(1, 2), head.flatten(1), lights.new_zeros(len(lights)), lights.new_zeros(len(lights), 2)
        )
        exposed = (image * gain[:, None, None]).movedim(-1, 1)
        return masked(encoding.encode("shared", exposed), head[:, None])

    def with_encoder(self, encoder: IdentityEncoder, encoding: Encoding, model: MorphableModel) -> Templates:
        """The same heads described by another encoder: the mean of what it says of each under several lights.

        encoding: how it is shown faces; model: of the heads, on their device. A head takes about a second. Raises InputError.
        """
        lights = draw_lights(_LIGHTS, BANDS, torch.Generator().manual_seed(0)).to(self.shape.device)
        device = next(encoder.parameters()).device
        rows = []
        with torch.no_grad():
            for index in range(self.count):
                photos = self.photos(index, model, lights, encoding)
                rows.append(normalize(encoder.embed(photos.to(device)).mean(0), dim=0))
        return replace(self, embeddings=torch.stack(rows).to(self.shape))

    def _check(self, model: MorphableModel) -> None:
        known, wanted = self.shape.shape[1], len(model.shape_basis)
        if model.name != self.model or wanted > known:
            raise InputError(
                f"the prior's templates are heads of the model {self.model!r} with {known} coefficients of shape, not of "
                f"{model.name!r} with {wanted}; set path to the folder of that model"
            )


def _packed(planes: Tensor) -> Tensor:
    """Planes as the colours of pictures below each other, WebP without loss. [7, R, R] -> uint8 [bytes]"""
    file = io.BytesIO()
    colours = torch.stack([planes[list(rows)] for rows in _PICTURES]).permute(0, 2, 3, 1).flatten(0, 1)
    Image.fromarray(colours.cpu().contiguous().numpy()).save(file, "WEBP", lossless=True, quality=100, method=6)
    return torch.from_numpy(np.frombuffer(file.getvalue(), np.uint8).copy())


def _unpacked(packed: Tensor, source: object) -> Tensor:
    if packed.dtype != torch.uint8 or packed.ndim != 1:
        raise _broken(source, "maps are no bytes")
    try:
        with Image.open(io.BytesIO(packed.numpy().tobytes()), formats=("WEBP",)) as picture:
            side, height = picture.size
            if picture.mode != "RGB" or height != len(_PICTURES) * side or side not in _SIDES:
                raise _broken(source, f"a map is {side} × {height} pixels of mode {picture.mode}")
            values = torch.from_numpy(np.array(picture)).unflatten(0, (len(_PICTURES), side))
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise _broken(source, f"a map cannot be read: {error}") from error
    place = {plane: (number, rows.index(plane)) for number, rows in enumerate(_PICTURES) for plane in rows}
    return torch.stack([values[number, :, :, colour] for number, colour in (place[k] for k in sorted(place))])


def _broken(source: object, what: str) -> InputError:
    return InputError(f"{source}: the templates of this prior are damaged ({what}); install or pack the file again")
