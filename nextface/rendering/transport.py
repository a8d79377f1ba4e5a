"""Self-shadowing under SH light: what the head's own surface takes from the light that reaches each vertex.

Precomputed radiance transfer (Sloan, Kautz & Snyder 2002) of the difference between the shadowed and the unshadowed head:
where nothing is blocked the difference is exactly zero, and what is left is smooth enough to live at vertices. It is held
in the head's own frame, so that it follows a turning head and changes with the shape alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import normalize

from nextface.constants import constant
from nextface.morphable.model import MorphableModel
from nextface.rendering.basis import band_numbers, sh_basis
from nextface.rendering.camera import CAMERA_TO_VIEW
from nextface.rendering.fragments import Fragments
from nextface.rendering.jit import array, compiled, kernel, spread, together
from nextface.rendering.normals import vertex_normals
from nextface.rendering.sh import cosine_coefficients, rotation_matrix, scale_bands
from nextface.rendering.specular import TABLE_BANDS, lobes
from nextface.rendering.visibility import blocked, sphere_directions
from nextface.scene import Scene

DIRECTIONS = 256
COARSE_DIRECTIONS = 128
"""Directions of a fine transport and of one that is made often: under a hard light 2% and 3% off a very fine one."""
_TURNED_AWAY, _NOTICED = -0.3, 0.005
"""Cosine to the viewer below which no triangle of a vertex is visible; share of the hemisphere whose loss shows."""
_DARK = 0.02
"""Least irradiance that a share is taken of; white paper in ordinary light has about π."""


@dataclass(frozen=True)
class Shadow:
    """What self-shadowing leaves at covered pixels, in 0..1.

    lit:  share of the irradiance on the mesh, per channel. [P, 3]
    lobe: share of the specular lobe. [P, 1]
    """

    lit: Tensor
    lobe: Tensor


@dataclass(frozen=True)
class Transport:
    """The light that a head blocks from itself. No gradient reaches the shape.

    irradiance: what unit SH coefficients (head frame: model axes) lose of the irradiance max(n·ω, 0), ≤ 0 for l = 0. [B, V, L]
    unshadowed: the irradiance that they would give. [B, V, L]
    hidden:     SH coefficients of the blocked part of the hemisphere about the normal, at most 10 bands. [B, V, L']
    normals:    unit vertex normals, model axes. [B, V, 3]
    """

    irradiance: Tensor
    unshadowed: Tensor
    hidden: Tensor
    normals: Tensor

    @classmethod
    def of(
        cls,
        vertices_model: Tensor,
        triangles: Tensor,
        bands: int,
        directions: int = DIRECTIONS,
        receivers: Tensor | None = None,
    ) -> Transport:
        """From the vertices' places in the head, mm.

        vertices_model: [B, V, 3]; triangles: [T, 3]; receivers: share of its shadow that a vertex shows, all if left out, [V, 1]
        """
        with torch.no_grad():
            normals = vertex_normals(vertices_model, triangles)
            toward = sphere_directions(directions).to(normals)
            basis = sh_basis(toward, bands) * (4.0 * math.pi / directions)
            low = min(bands, TABLE_BANDS) ** 2
            # A head at a time on the CPU, in memory of its own: BLAS rounds by the size of a matrix and by where it lies.
            several = 1 if compiled(normals) else len(normals)
            lost, hidden = [], []
            for vertices, normal in zip(vertices_model.split(several), normals.split(several), strict=True):
                normal = normal.clone()
                shares = blocked(vertices, normal, triangles, toward)
                if receivers is not None:
                    shares = shares * receivers
                lost.append(-(shares * (normal @ toward.T)) @ basis)
                hidden.append(shares @ basis[:, :low])
            unshadowed = scale_bands(sh_basis(normals.flatten(0, 1), bands)[..., None], cosine_coefficients(bands))
            lost_all = torch.cat(lost)
            return cls(lost_all, unshadowed.reshape(lost_all.shape), torch.cat(hidden), normals)

    @classmethod
    def of_head(cls, scene: Scene, model: MorphableModel, directions: int = DIRECTIONS) -> Transport:
        """Of a scene's head. The lining of its mouth shows no shadow: the teeth that a photo shows stand in front of it."""
        receivers = 1.0 - model.regions["mouth_interior"][:, None] if "mouth_interior" in model.regions else None
        return cls.of(scene.vertices_model(model), model.triangles, scene.bands, directions, receivers)

    def renewed(self, which: Tensor, later: Transport) -> Transport:
        """This, with the heads for which `which` is true as `later` has them. which: [B] bool"""
        rows = which[:, None, None]
        return Transport(
            torch.where(rows, later.irradiance, self.irradiance),
            torch.where(rows, later.unshadowed, self.unshadowed),
            torch.where(rows, later.hidden, self.hidden),
            torch.where(rows, later.normals, self.normals),
        )

    def shadow(self, radiance: Tensor, rotation: Tensor) -> Tensor:
        """Change of the irradiance at every vertex, `[B, V, 3]`; linear in the light, differentiable in light and rotation.

        radiance: SH coefficients of as many bands, view frame, [B, L, 3]; rotation: of the head in the view frame, [B, 3, 3]
        """
        return _Product.apply(self.irradiance, _turned(radiance, rotation))

    def lit(self, radiance: Tensor, rotation: Tensor) -> Tensor:
        """Share of the irradiance that the head leaves to every vertex, per channel, `[B, V, 3]` in 0..1.

        A share and not a difference: in shadow the relief of the skin, and a moving shape, are shaded by the light that is left.
        Differentiable in light and rotation; parameters as in `shadow`.
        """
        turned = _turned(radiance, rotation)
        return lit_share(_Product.apply(self.unshadowed, turned), _Product.apply(self.irradiance, turned))

    def unblocked_lobe(self, to_viewer: Tensor, roughness: Tensor) -> Tensor:
        """Share of the specular lobe that the head leaves open at every vertex, `[B, V, 1]` in 0..1.

        to_viewer: unit, model axes, [B, V, 3]; roughness: perceptual, [B|1, V, 1]
        """
        with torch.no_grad():
            bands = math.isqrt(self.hidden.shape[2])
            normals = self.normals.flatten(0, 1)
            rough = roughness.expand(len(self.normals), -1, -1).flatten(0, 1)
            lobe = lobes(normals, to_viewer.flatten(0, 1), rough, bands)
            about_normal = sh_basis(normals, bands)
            band = band_numbers(bands, normals.device)
            whole = sh_basis(lobe.direction, bands) * lobe.about_direction[:, band]
            low = lobe.about_normal.shape[1] ** 2
            whole[:, :low] += about_normal[:, :low] * lobe.about_normal[:, band[:low]]
            hemisphere = about_normal * constant(hemisphere_coefficients(bands), normals)[band]
            lost = (self.hidden.flatten(0, 1) * whole).sum(-1)
            total = (hemisphere * whole).sum(-1)
            return (1.0 - lost / total.clamp_min(1e-3)).clamp(0.0, 1.0).reshape(*self.normals.shape[:2], 1)

    def cast(
        self, seen: Fragments, vertices_camera: Tensor, rotation: Tensor, radiance: Tensor, roughness: Tensor
    ) -> Shadow:
        """The shadow at covered pixels.

        vertices_camera: mm, [B, V, 3]; rotation: of the head in the view frame, [B, 3, 3]; radiance: view frame, [B, L, 3];
        roughness: of the vertices, [B|1, V, 1]
        """
        shown = ShownTransport.of(self, viewers(vertices_camera, rotation), roughness)
        values = seen.interpolate(shown.shares(radiance, rotation))
        return Shadow(values[:, :3], values[:, 3:])


@dataclass(frozen=True)
class ShownTransport:
    """Of the vertices that a viewer sees in some shadow, about a third of the head's.

    noticed: which they are, for each image. bool [B, V]
    index:   those of any image. [N] int64
    part:    their transport
    lobe:    open share of their specular lobe for that viewer. [B, N, 1]
    """

    noticed: Tensor
    index: Tensor
    part: Transport
    lobe: Tensor

    @classmethod
    def of(cls, transport: Transport, to_viewer: Tensor, roughness: Tensor) -> ShownTransport:
        """to_viewer: unit, model axes, [B, V, 3]; roughness: perceptual, [B|1, V, 1]"""
        with torch.no_grad():
            facing = (transport.normals * to_viewer).sum(-1) > _TURNED_AWAY
            noticed = facing & (transport.hidden[..., 0] > _NOTICED * math.sqrt(math.pi))
            index = noticed.any(0).nonzero()[:, 0]
            parts = (transport.irradiance, transport.unshadowed, transport.hidden, transport.normals)
            part = Transport(*(each[:, index] for each in parts))
            return cls(noticed, index, part, part.unblocked_lobe(to_viewer[:, index], roughness[:, index]))

    def shares(self, radiance: Tensor, rotation: Tensor) -> Tensor:
        """What is left at every vertex of the irradiance, per channel, and of the specular lobe. `[B, V, 4]` in 0..1

        Parameters as in `Transport.shadow`.
        """
        left = torch.cat([self.part.lit(radiance, rotation), self.lobe], -1)
        left = torch.where(self.noticed[:, self.index, None], left, 1.0)
        return left.new_ones(*self.noticed.shape, 4).index_copy(1, self.index, left)


def lit_share(unshadowed: Tensor, change: Tensor) -> Tensor:
    """What is left of an irradiance that changes by so much, in 0..1. Any shape."""
    return (1.0 + change / unshadowed.clamp_min(_DARK)).clamp(0.0, 1.0)


def _turned(radiance: Tensor, rotation: Tensor) -> Tensor:
    """The light's coefficients in the head's frame. [B, L, 3]"""
    return (rotation_matrix(rotation, math.isqrt(radiance.shape[1]))[..., None] * radiance[:, None]).sum(2)


class _Product(torch.autograd.Function):
    """`[B, N, L] @ [B, L, 3]`. On the CPU a vertex at a time and in the order of the vertices: BLAS rounds by the size of a matrix and
    by where it lies, and a photo would come out differently from batch to batch."""

    @staticmethod
    def forward(ctx: FunctionCtx, irradiance: Tensor, turned: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(irradiance)  # type: ignore[attr-defined]
        if not compiled(irradiance):
            return irradiance @ turned
        product = turned.new_empty(*irradiance.shape[:2], 3)
        arrays = [array(irradiance), array(turned.mT), product.numpy()]
        for number in range(len(irradiance)):
            spread(_forward, irradiance.shape[1], *(each[number] for each in arrays))
        return product

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, cotangent: Tensor):  # type: ignore[override, no-untyped-def]
        (irradiance,) = ctx.saved_tensors  # type: ignore[attr-defined]
        if not compiled(irradiance):
            return None, irradiance.mT @ cotangent
        to_turned = cotangent.new_zeros(len(irradiance), 3, irradiance.shape[2])
        arrays = [array(irradiance), array(cotangent), to_turned.numpy()]
        together([(_backward, tuple(each[number] for each in arrays)) for number in range(len(irradiance))])
        return None, to_turned.mT


@kernel
def _forward(start, stop, irradiance, turned, product):  # type: ignore[no-untyped-def]
    for v in range(start, stop):
        red = green = blue = product.dtype.type(0)
        for k in range(irradiance.shape[1]):
            red += irradiance[v, k] * turned[0, k]
            green += irradiance[v, k] * turned[1, k]
            blue += irradiance[v, k] * turned[2, k]
        product[v, 0], product[v, 1], product[v, 2] = red, green, blue


@kernel
def _backward(irradiance, cotangent, to_turned):  # type: ignore[no-untyped-def]
    for v in range(irradiance.shape[0]):
        red, green, blue = cotangent[v, 0], cotangent[v, 1], cotangent[v, 2]
        for k in range(irradiance.shape[1]):
            to_turned[0, k] += red * irradiance[v, k]
            to_turned[1, k] += green * irradiance[v, k]
            to_turned[2, k] += blue * irradiance[v, k]


def viewers(vertices_camera: Tensor, rotation: Tensor) -> Tensor:
    """Unit directions from the vertices to the camera, model axes. `[B, V, 3]`"""
    toward = -normalize(vertices_camera.detach(), dim=-1) * constant(CAMERA_TO_VIEW, vertices_camera)
    return toward @ rotation.detach()


@lru_cache
def hemisphere_coefficients(bands: int) -> tuple[float, ...]:
    """h_l of the hemisphere about n, whose SH coefficients are h_l Y_lm(n): h_l = 2π ∫₀¹ P_l(t) dt."""
    values = [2.0 * math.pi]
    for degree in range(1, bands):
        # ∫₀¹ P_l = (P_{l−1}(0) − P_{l+1}(0)) / (2l + 1); the Legendre polynomials of odd degree vanish at 0.
        values.append(
            2.0 * math.pi * (_legendre_at_zero(degree - 1) - _legendre_at_zero(degree + 1)) / (2 * degree + 1)
        )
    return tuple(values)


def _legendre_at_zero(degree: int) -> float:
    half = degree // 2
    return 0.0 if degree % 2 else (-1.0) ** half * math.comb(degree, half) / 2.0**degree
