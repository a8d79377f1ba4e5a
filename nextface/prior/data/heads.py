"""Heads seen by cameras, rasterised once: what a crop's pixels see of a head, whatever its skin and light."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import roma
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nextface.morphable.model import MorphableModel
from nextface.prior.crops import DISTANCE_MM, LAYOUTS, YAWS, Similarity, alignment, model_points, seen_in_crop
from nextface.prior.layouts import Placed, laid_out
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import Fragments
from nextface.rendering.raster import VisiblePixels
from nextface.rendering.render import to_view, viewing_directions
from nextface.rendering.transport import COARSE_DIRECTIONS, Transport, viewers
from nextface.scene import Scene

BANDS = 7
"""Of the light that heads are prepared for."""
YAW_SPREAD, PITCH_SPREAD = 9.0, 6.0
DISTANCE_SPREAD = 0.35
_SHIFT, _ZOOM, _ROLL = 0.02, 0.04, 3.0
"""Spreads of how a detector's crops differ from the model's own: share of the side, logarithm of the size, degrees."""
_GRAZING = 0.3
"""Least cosine to the camera in a photo that is laid out."""
SHAPE_SPREAD, SHAPE_LIMIT = 0.9, 2.5


@dataclass(frozen=True)
class Views:
    """What the pixels of crops see; row by row, S² places a crop. Half floats where they rest.

    triangle: visible triangle, −1 for background. int32 [N, P]
    weights:  barycentric, of its first two corners. [N, P, 2]
    normal:   unit normal of the mesh, model axes. [N, P, 3]
    tangent, bitangent: of the posed mesh, model axes, as `PixelFrames` has them. [N, P, 3]
    lobe:     share of the specular lobe that the head leaves open. [N, P]
    rotation: of the head in the view frame. [N, 3, 3]
    to_viewer: unit, view frame. [N, P, 3]
    head:     row of the head in `Heads.shadow`. int64 [N]
    """

    triangle: Tensor
    weights: Tensor
    normal: Tensor
    tangent: Tensor
    bitangent: Tensor
    lobe: Tensor
    rotation: Tensor
    to_viewer: Tensor
    head: Tensor

    def rows(self, index: Tensor) -> Views:
        return Views(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def to(self, device: torch.device | str) -> Views:
        return Views(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Heads:
    """A bank of heads: `identities` × `expressions` heads, each seen in every one of YAWS.

    shadow:  `Transport.irradiance` of each head, half floats. [identities · expressions, V, BANDS²]
    normals: of its vertices, unit, model axes, half floats. [identities · expressions, V, 3]
    views:   in the order (identity, expression, view)
    """

    shadow: Tensor
    normals: Tensor
    views: Views
    identities: int
    expressions: int
    size: int

    @classmethod
    def make(
        cls, model: MorphableModel, identities: int, expressions: int, crop: str, size: int, generator: torch.Generator
    ) -> Heads:
        """Draw heads and rasterise them, about half a second each on one core. crop: as in `Encoding`; size: pixels

        model: on the device that the bank is for; generator: of the CPU
        """
        shadows, normals, views = [], [], []
        for _, seen in draw_heads(model, identities, expressions, crop, size, generator):
            for scenes in seen:
                transport = Transport.of_head(scenes[0], model, COARSE_DIRECTIONS)
                shadows.append(transport.irradiance[0].half())
                normals.append(transport.normals[0].half())
                views += [see(scene, model, transport, len(shadows) - 1, crop) for scene in scenes]
        joined = Views(*(torch.cat([getattr(view, name) for view in views]) for name in Views.__dataclass_fields__))
        return cls(torch.stack(shadows), torch.stack(normals), joined, identities, expressions, size)

    def row(self, identity: Tensor, expression: Tensor, view: Tensor) -> Tensor:
        """Of `views`. int64 [B] each"""
        return (identity * self.expressions + expression) * len(YAWS) + view


def draw_heads(
    model: MorphableModel, identities: int, expressions: int, crop: str, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, list[list[Scene]]]]:
    """The heads of a bank one by one, not yet rasterised: the shape, [1, Ks], and for each expression the scenes of YAWS."""
    for _ in range(identities):
        shape, seen = draw_shape(model, generator), []
        for _ in range(expressions):
            expression = draw_expression(model, generator)
            seen.append([crop_scene(model, shape, expression, yaw, crop, size, generator) for yaw in YAWS])
        yield shape, seen


def draw_shape(model: MorphableModel, generator: torch.Generator) -> Tensor:
    """[1, Ks], on the model's device"""
    drawn = torch.randn(1, len(model.shape_basis), generator=generator).clamp(-SHAPE_LIMIT, SHAPE_LIMIT)
    return (drawn * SHAPE_SPREAD).to(model.device)


def draw_expression(model: MorphableModel, generator: torch.Generator) -> Tensor:
    """At rest, or up to four units at moderate strength; left and right are drawn apart. [1, Ke]"""
    count = len(model.expression_basis)
    chosen = torch.rand(count, generator=generator) < torch.randint(0, 5, (1,), generator=generator) / count
    strength = torch.rand(count, generator=generator) * 0.8 * chosen
    upper = model.expression_upper.clamp(max=2.5).cpu()
    return (strength * upper)[None].to(model.device)


def crop_scene(
    model: MorphableModel,
    shape: Tensor,
    expression: Tensor,
    yaw: float,
    crop: str,
    size: int,
    generator: torch.Generator,
) -> Scene:
    """A head seen in a crop, turned by about `yaw` degrees, with the small errors of a detector's alignment.

    For a layout the camera whose light and gloss the picture shows; the principal point is by how much the picture is shifted.
    """
    normal = torch.randn(8, generator=generator).tolist()
    turn = [math.radians(yaw + YAW_SPREAD * normal[0]), math.radians(PITCH_SPREAD * normal[1])]
    rotation = roma.euler_to_rotvec("YX", turn)[None].float().to(model.device)
    distance = DISTANCE_MM * math.exp(DISTANCE_SPREAD * normal[2])
    unit = rotation.new_ones(1)
    scene = Scene(
        shape=shape,
        albedo=shape.new_zeros(1, len(model.diffuse_basis)),
        expression=expression,
        rotation=rotation,
        translation=rotation.new_tensor([[0.0, 0.0, distance]]),
        focal=unit * distance,  # one pixel per millimetre
        principal=rotation.new_zeros(1, 2),
        light=rotation.new_zeros(1, BANDS**2, 3),
        exposure=0.0 * unit,
        white_balance=rotation.new_zeros(1, 2),
        height=1,
        width=1,
    )
    if crop in LAYOUTS:
        shift = rotation.new_tensor([normal[5:7]]) * _SHIFT * size
        return replace(scene, principal=shift, height=size, width=size)
    points = model_points(model, scene.vertices_camera(model), Camera.of(scene))
    return seen_in_crop(scene, _strayed(alignment(points, crop, size), size, normal[3:]), size)


def _strayed(crop: Similarity, size: int, normal: list[float]) -> Similarity:
    """A crop turned, zoomed about its centre and shifted a little."""
    turn, zoom = math.radians(_ROLL * normal[0]), math.exp(_ZOOM * normal[1])
    change = crop.matrix.new_tensor(
        [[zoom * math.cos(turn), -zoom * math.sin(turn)], [zoom * math.sin(turn), zoom * math.cos(turn)]]
    )
    shift = crop.matrix.new_tensor(normal[2:4]) * _SHIFT * size
    offset = (crop.offset - size / 2) @ change.T + size / 2 + shift
    return Similarity(change @ crop.matrix, offset)


def see(scene: Scene, model: MorphableModel, transport: Transport, head: int, crop: str = "tight") -> Views:
    """What the pixels of one square picture see of a scene's head. scene: of `crop_scene` for this crop"""
    with torch.no_grad():
        placed = _placed(scene, model, crop)
        covered = placed.seen(model)
        pixels, frames = covered.pixels, placed.frames(covered, model)
        vertices, rotation = scene.vertices_camera(model), scene.head_rotation()
        open_share = transport.unblocked_lobe(viewers(vertices, rotation), model.roughness_mean[None])

        def dense(values: Tensor) -> Tensor:
            return pixels.unpack(values).flatten(1, 2)

        if placed.turn is None:
            in_view = frames.normal @ rotation[0].T
            to_viewer = _towards_camera(covered, to_view(vertices), in_view)
        else:
            to_viewer = viewing_directions(_all_pixels(pixels), placed.camera)[None]
        return Views(
            triangle=pixels.unpack(pixels.triangle[:, None], -1).flatten(1).int(),
            weights=dense(covered.barycentric[:, :2]).half(),
            normal=dense(frames.normal).half(),
            tangent=dense(frames.tangent).half(),
            bitangent=dense(frames.bitangent).half(),
            lobe=dense(covered.interpolate(open_share))[..., 0].half(),
            rotation=rotation,
            to_viewer=to_viewer.half(),
            head=torch.full((1,), head, device=vertices.device),
        )


def _towards_camera(covered: Fragments, vertices: Tensor, normals: Tensor) -> Tensor:
    """Unit directions from a surface that is laid out to the camera of its photo, view frame; straight ahead off the head. What is
    turned away is shown as from `_GRAZING`, since no photo shows it at all. vertices, normals: view frame -> [1, S², 3]"""
    towards = normalize(-covered.interpolate(vertices), dim=-1)
    lacking = (_GRAZING - (normals * towards).sum(-1, keepdim=True)).clamp_min(0.0)
    pixels = covered.pixels
    ahead = towards.new_tensor([0.0, 0.0, 1.0]).repeat(pixels.batch, pixels.height, pixels.width, 1)
    ahead[pixels.image, pixels.row, pixels.column] = normalize(towards + lacking * normals, dim=-1)
    return ahead.flatten(1, 2)


def _placed(scene: Scene, model: MorphableModel, crop: str) -> Placed:
    if crop in LAYOUTS:
        return laid_out(crop, scene.vertices_model(model), model, scene.height, scene.principal)
    return Placed.of(scene, model)


def _all_pixels(pixels: VisiblePixels) -> VisiblePixels:
    """Every pixel of the images, covered or not."""
    everywhere = torch.zeros(pixels.batch, pixels.height, pixels.width, dtype=torch.int32, device=pixels.image.device)
    return VisiblePixels.of(everywhere)


def bent(views: Views, slopes: Tensor) -> Tensor:
    """Unit normals, model axes, of relief in tangent space. slopes: [B, 2, P] -> [B, P, 3]"""
    along, up = slopes.transpose(1, 2).split(1, -1)
    return normalize(along * views.tangent + up * views.bitangent + views.normal, dim=-1)
