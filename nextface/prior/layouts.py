"""Heads placed before a camera, as one square picture each shows them: as a photo does, or with their surface laid out.

The layouts of `crops.LAYOUTS` show a whole face at once, at places that need no landmarks. Both are drawn by the rasterizer:
what is to be at a place of the picture is put before that place.
"cylinder": the head unrolled about an upright axis, degrees across, millimetres up. Of parts that overlap the outermost is seen.
"unwrap": a square of the unwrap itself, whatever the head's shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nextface.errors import InputError
from nextface.morphable.model import MorphableModel
from nextface.rendering.backend import rasterizer_for
from nextface.rendering.camera import Camera
from nextface.rendering.fragments import Fragments, barycentrics
from nextface.rendering.normals import vertex_normals
from nextface.rendering.render import to_view, viewing_directions
from nextface.rendering.tangents import PixelFrames, pixel_frames
from nextface.scene import Scene

AXIS_MM = 15.0
"""How far the cylinder's axis lies before the model's origin."""
REACH = math.radians(80.0)
"""Angle about the axis at the sides of the cylinder's picture."""
TOP_MM, BOTTOM_MM = 104.0, -106.0
"""Heights at the upper and lower edge of the cylinder's picture."""
SQUARE = (0.5, 0.485, 0.71)
"""u and v of the centre of the square of the unwrap, and its side."""
_BACK = math.radians(150.0)
"""Angle from which the cylinder is cut open behind."""
_FAR = 1e4
"""mm from the camera to what is laid out: much more than a head's depth, so that nothing is foreshortened within a triangle."""
_MARKS = {
    "cylinder": {"lips": (0.5, 0.741), "eyebrows": (0.5, 0.340)},
    "unwrap": {"lips": (0.5, 0.770), "eyebrows": (0.5, 0.355)},
}
"""Where parts of the open head lie: x and y as shares of the picture's side."""
_ASTRAY = 0.06
"""Distance from there at which another model's face counts as laid out differently."""


@dataclass(frozen=True)
class Placed:
    """N heads before a camera that draws S × S pixels of each.

    vertices:  camera axes; of the model, or of its unwrap. [N, V', 3]
    triangles: of these, row by row those of the model. [T, 3]
    heads:     vertices of the heads, model axes. [N, V, 3]
    turn:      rotation of the heads in the view frame; None where the surface is laid out. [N, 3, 3]
    """

    vertices: Tensor
    triangles: Tensor
    camera: Camera
    heads: Tensor
    turn: Tensor | None

    @classmethod
    def of(cls, scene: Scene, model: MorphableModel) -> Placed:
        """As the scene's own camera sees them; all its pictures square and of one size."""
        vertices, turn = scene.vertices_camera(model), scene.head_rotation()
        return cls(vertices, model.triangles, Camera.of(scene), to_view(vertices) @ turn, turn)

    def seen(self, model: MorphableModel) -> Fragments:
        """The covered pixels; corners are vertices of the model."""
        return _seen(self.vertices, self.triangles, self.camera, model)

    def rays(self, number: int, samples: int, model: MorphableModel) -> Fragments:
        """`samples`² rays through each pixel of picture `number`, as pixels of a finer picture."""
        camera, one = self.camera, slice(number, number + 1)
        single = Camera(camera.focal[one], camera.principal[one], camera.height, camera.width)
        finer = single.scaled(
            camera.focal.new_full((1,), float(samples)), samples * camera.height, samples * camera.width
        )
        return _seen(self.vertices[one], self.triangles, finer, model)

    def frames(self, seen: Fragments, model: MorphableModel) -> PixelFrames:
        """Of the mesh at covered pixels, model axes."""
        return pixel_frames(seen, self.heads, vertex_normals(self.heads, model.triangles), model)

    def facing(self, seen: Fragments, frames: PixelFrames) -> Tensor:
        """Cosine to the viewer. Laid out: how little the surface is squeezed, 1 for half of the pixels; negative where its inner
        side is outermost. [P, 1]"""
        if self.turn is None:
            return self._squeezed(seen)
        towards = viewing_directions(seen.pixels, self.camera)
        to_viewer = (self.turn.mT[seen.pixels.image] @ towards[..., None])[..., 0]
        return (frames.normal * to_viewer).sum(-1, keepdim=True)

    def _squeezed(self, seen: Fragments) -> Tensor:
        """The lesser of a triangle's two scales, pixels per millimetre, relative to the median of all pixels."""
        image = seen.pixels.image[:, None]
        solid = self.heads[image, seen.corners]
        flat = self.camera.project(self.vertices)[image, self.triangles[seen.pixels.triangle]]
        (a, b), (p, q) = ((part[:, 1:] - part[:, :1]).unbind(1) for part in (solid, flat))
        aa, ab, bb = (a * a).sum(1), (a * b).sum(1), (b * b).sum(1)
        area = (aa * bb - ab.square()).clamp_min(1e-12)
        both = (bb * (p * p).sum(1) - 2.0 * ab * (p * q).sum(1) + aa * (q * q).sum(1)) / area
        # Rows run downwards: what is counter-clockwise from outside is clockwise by its coordinates.
        product = (q[:, 0] * p[:, 1] - p[:, 0] * q[:, 1]) / area.sqrt()
        twice = 2.0 * product.abs()
        lesser = 0.5 * ((both + twice).sqrt() - (both - twice).clamp_min(0.0).sqrt())
        return (product.sign() * (lesser / lesser.median().clamp_min(1e-12)).clamp_max(1.0))[:, None]


def laid_out(layout: str, heads: Tensor, model: MorphableModel, size: int, shift: Tensor | None = None) -> Placed:
    """The surfaces of heads, laid out.

    layout: of `crops.LAYOUTS`; heads: vertices, model axes, [N, V, 3]; size: pixels; shift: of the picture to the right and down,
    pixels, [N, 2]. Raises InputError where the model's face lies elsewhere than the open head's, which priors are trained on.
    """
    _check(layout, model)
    flat, depth = _cylinder(heads) if layout == "cylinder" else _unwrapped(model, len(heads))
    triangles = model.triangles if layout == "cylinder" else model.uv_triangles
    # Before the place that it is to be seen at, whatever its depth.
    vertices = torch.cat([flat * size, torch.ones_like(depth)], -1) * depth
    principal = heads.new_zeros(len(heads), 2) if shift is None else shift
    camera = Camera(heads.new_ones(len(heads)), principal, size, size)
    return Placed(vertices, triangles, camera, heads, None)


def _cylinder(heads: Tensor) -> tuple[Tensor, Tensor]:
    """Places, shares of the picture's side, and depths; 0, which no camera sees, behind the cut. [N, V, 2], [N, V, 1]"""
    x, y, z = heads.unbind(-1)
    out = z - AXIS_MM
    angle = torch.atan2(x, out)
    across, down = 0.5 + angle / (2.0 * REACH), (TOP_MM - y) / (TOP_MM - BOTTOM_MM)
    depth = torch.where(angle.abs() < _BACK, _FAR - torch.hypot(x, out), 0.0)
    return torch.stack([across, down], -1), depth[..., None]


def _unwrapped(model: MorphableModel, count: int) -> tuple[Tensor, Tensor]:
    u, v, side = SQUARE
    across, up = model.uv.unbind(-1)
    flat = torch.stack([0.5 + (across - u) / side, 0.5 - (up - v) / side], -1)
    return flat.expand(count, -1, -1), flat.new_full((count, len(flat), 1), _FAR)


def _check(layout: str, model: MorphableModel) -> None:
    rest = model.mean[None]
    flat = _cylinder(rest)[0][0] if layout == "cylinder" else _unwrapped(model, 1)[0][0]
    for name, place in _MARKS[layout].items():
        weight = model.regions[name] if layout == "cylinder" else model.regions[name][model.uv_to_vertex]
        middle = (flat * weight[:, None]).sum(0) / weight.sum().clamp_min(1e-6)
        if float((middle - middle.new_tensor(place)).norm()) > _ASTRAY:
            raise InputError(
                f"the face of the model {model.name!r} lies elsewhere in the layout {layout!r} than the open head's, which the "
                "prior was trained on: use a prior of aligned crops (crop = tight)"
            )


def _seen(vertices: Tensor, triangles: Tensor, camera: Camera, model: MorphableModel) -> Fragments:
    pixels = rasterizer_for(vertices.device).visible_triangles(vertices, triangles, camera)
    weights = barycentrics(vertices, triangles[pixels.triangle], pixels, camera)
    return Fragments(pixels, model.triangles[pixels.triangle], weights)
