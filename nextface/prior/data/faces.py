"""Faces of the training set: skin and light drawn on rasterised heads, one crop in every domain."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nextface.color import luminance
from nextface.morphable.model import MorphableModel
from nextface.prior.data.heads import Heads, Views, bent
from nextface.prior.data.noise import NoiseVolume
from nextface.prior.data.people import People
from nextface.prior.data.skin import Places, Skin, draw_skin
from nextface.prior.data.zones import FaceZones
from nextface.rendering.fragments import interpolate
from nextface.rendering.sh import irradiance, rotation_matrix
from nextface.rendering.shading import incoming, shade
from nextface.rendering.transport import Shadow, lit_share

_METERED = 0.45
"""Share of the skin in what the camera meters: how far the exposure makes up for dark and light skin."""
_GREY = 0.22


@dataclass(frozen=True)
class Faces:
    """Crops of B faces, linear, `[B, C, S, S]`.

    photo:     as a camera exposes it, 0..1, before a background. C = 3
    diffuse, specular, roughness: of the skin. C = 3, 1, 1
    normal:    unit, model axes, relief included; mesh_normal without it. C = 3
    slopes:    the relief in tangent space, green up. C = 2
    shading:   light that a white skin would send back, shadows included, as exposed. C = 3
    highlight: light that the surface reflects, as exposed. C = 3
    covered:   1 on the head; skin: 1 on skin, lips and brows. C = 1
    """

    photo: Tensor
    diffuse: Tensor
    specular: Tensor
    roughness: Tensor
    normal: Tensor
    mesh_normal: Tensor
    slopes: Tensor
    shading: Tensor
    highlight: Tensor
    covered: Tensor
    skin: Tensor

    def rows(self, index: Tensor) -> Faces:
        return Faces(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class FaceDrawer:
    """Draws faces. All on one device; nothing of it changes.

    heads, zones: of the vertices that any view sees; noise: the volumes; triangles, uv_triangles: of the model, the former
    over those vertices
    """

    heads: Heads
    zones: FaceZones
    noise: NoiseVolume
    triangles: Tensor
    uv_triangles: Tensor

    @classmethod
    def of(cls, heads: Heads, zones: FaceZones, noise: NoiseVolume, model: MorphableModel) -> FaceDrawer:
        """heads, zones: of all vertices of the model"""
        visible = heads.views.triangle.clamp_min(0).unique().long()
        seen = model.triangles[visible].unique()
        number = torch.zeros(len(model.mean), dtype=torch.int64, device=seen.device)
        number[seen] = torch.arange(len(seen), device=seen.device)
        heads = replace(heads, shadow=heads.shadow[:, seen], normals=heads.normals[:, seen])
        zones = replace(zones, vertices=zones.vertices[seen])
        return cls(heads, zones, noise, number[model.triangles], model.uv_triangles)

    def draw(self, rows: Tensor, people: People, lights: Tensor, exposure: Tensor, balance: Tensor) -> Faces:
        """Draw B faces without gradient.

        rows: of `heads.views`, int64 [B]; people: B of them; lights: view frame, [B, L, 3]; exposure: logarithm of what the
        camera's meter is off by, [B]; balance: logs of the gains of red and blue, [B, 2]
        """
        with torch.no_grad():
            views = self.heads.views.rows(rows)
            places = Places.of(self._at_pixels(views, self.zones.vertices[None], self.triangles).mT.contiguous())
            frames = self._at_pixels(views, self.zones.frames[None], self.uv_triangles).mT.contiguous()
            skin = draw_skin(places, frames, people, self.noise)
            return self.lit(views, skin, places.skin(), lights, exposure, balance)

    def lit(self, views: Views, skin: Skin, own: Tensor, lights: Tensor, exposure: Tensor, balance: Tensor) -> Faces:
        """The given skin in the given light. own: share of skin at the pixels, [B, P]"""
        count, pixels = views.triangle.shape
        image = torch.arange(count, device=lights.device).repeat_interleave(pixels)
        turn = views.rotation
        normal = bent(views, skin.slopes)
        in_view = (normal @ turn.mT).flatten(0, 1)
        diffuse, specular, roughness = (part.mT for part in (skin.diffuse, skin.specular, skin.roughness))
        rough = roughness.flatten(0, 1)
        shadow = Shadow(self._lit(views, lights).flatten(0, 1), views.lobe.float().reshape(-1, 1))
        to_viewer = views.to_viewer.float().flatten(0, 1)
        albedo, weight = diffuse.flatten(0, 1), specular.flatten(0, 1)
        colour = shade(in_view, to_viewer, albedo, weight, rough, lights, image, shadow).unflatten(0, (count, pixels))
        white = incoming(in_view, lights, image, shadow).unflatten(0, (count, pixels)) / math.pi
        covered = (views.triangle >= 0).float()
        own = own * covered
        gain = metered(colour, own, exposure, balance)[:, None]
        colour, white = colour * gain, white * gain
        size = self.heads.size

        def picture(values: Tensor) -> Tensor:
            """[B, P, C] -> [B, C, S, S], 0 off the head"""
            return (values * covered[..., None]).transpose(1, 2).unflatten(2, (size, size)).contiguous()

        return Faces(
            photo=picture(colour),
            diffuse=picture(diffuse),
            specular=picture(specular),
            roughness=picture(roughness),
            normal=picture(normal),
            mesh_normal=picture(views.normal.float()),
            slopes=picture(skin.slopes.mT),
            shading=picture(white),
            highlight=picture((colour - diffuse * white).clamp_min(0.0)),
            covered=picture(torch.ones_like(covered)[..., None]),
            skin=picture(own[..., None]),
        )

    def _at_pixels(self, views: Views, attributes: Tensor, triangles: Tensor) -> Tensor:
        """Attributes of vertices [1|B, V, C] at every pixel. `[B, P, C]`"""
        count, pixels = views.triangle.shape
        corners = triangles[views.triangle.clamp_min(0).long()].flatten(0, 1)
        image = torch.arange(count, device=corners.device).repeat_interleave(pixels)
        two = views.weights.float().flatten(0, 1)
        weights = torch.cat([two, 1.0 - two.sum(1, keepdim=True)], 1)
        return interpolate(attributes, image, corners, weights).unflatten(0, (count, pixels))

    def _lit(self, views: Views, lights: Tensor) -> Tensor:
        """Share of the irradiance that the head's own shadow leaves. [B, P, 3]"""
        turned = rotation_matrix(views.rotation, math.isqrt(lights.shape[1])) @ lights
        change = self.heads.shadow[views.head].float() @ turned
        normals = self.heads.normals[views.head].float()
        image = torch.arange(len(normals), device=normals.device).repeat_interleave(normals.shape[1])
        unshadowed = irradiance(normals.flatten(0, 1), turned, image).view_as(change)
        return self._at_pixels(views, lit_share(unshadowed, change), self.triangles)


def metered(colour: Tensor, skin: Tensor, exposure: Tensor, balance: Tensor) -> Tensor:
    """Gains of the channels: the camera's meter corrects for the skin in part.

    colour: linear, [B, P, 3]; skin: its share, [B, P]; exposure, balance: as in `FaceDrawer.draw` -> [B, 3]
    """
    mean = (luminance(colour) * skin).sum(1) / skin.sum(1).clamp_min(1.0)
    level = exposure + _METERED * torch.log(_GREY / mean.clamp_min(1e-3))
    red, blue = balance.unbind(1)
    return torch.stack([level + red, level, level + blue], 1).exp()
