"""The morphable head as plain tensors, whatever file it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

REGIONS = ("skin", "lips", "eyebrows", "eyes", "mouth_interior", "ears", "scalp", "neck")


@dataclass(frozen=True)
class LandmarkEmbedding:
    """Where a detector's landmarks lie on the mesh.

    Point `index[k]` of the detector lies at `candidate[k, c]`, a (triangle, barycentric) pair. A fixed landmark has
    `count[k] == 1`; a contour landmark that slides along the silhouette has several candidates, ordered from the
    subject's left-most view of it to the right-most, of which one is in force at a time.

    index:       detector's own point number. [N] int64
    triangle:    [N, C] int64, padded by repeating the last candidate
    barycentric: [N, C, 3]
    count:       number of distinct candidates. [N] int64
    weight:      confidence of the point, 1 for a typical one, less for one whose place scatters between views. [N]
    """

    index: Tensor
    triangle: Tensor
    barycentric: Tensor
    count: Tensor
    weight: Tensor

    def to(self, device: torch.device | str) -> LandmarkEmbedding:
        return LandmarkEmbedding(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class MorphableModel:
    """A parametric head. Lengths in millimetres; x to the subject's left, y up, z out of the face.

    Coefficients are in standard deviations: every basis is already scaled by sqrt(variance).

    mean:             neutral mean head. [V, 3]
    shape_basis:      [Ks, V, 3]
    expression_basis: [Ke, V, 3]
    expression_lower, expression_upper: bounds of each expression coefficient, ±inf where there are none. [Ke]
    diffuse_mean:     diffuse albedo, linear Rec.709. [V, 3]
    diffuse_basis:    [Ka, V, 3]
    specular_mean:    Fresnel weight w in 0..1, F0 = 0.0278 w. [V, 1]
    specular_basis:   driven by the same coefficients as the diffuse albedo. [Ka, V, 1]
    roughness_mean:   perceptual roughness r, alpha = r². [V, 1]
    triangles:        counter-clockwise seen from outside. [T, 3] int64
    uv:               lower-left origin, symmetric about u = 0.5. [U, 2]
    uv_triangles:     [T, 3] int64 into `uv`, corner by corner as in `triangles`
    uv_to_vertex:     the vertex of each uv vertex. [U] int64
    regions:          weights in 0..1 per vertex, keys `REGIONS`. [V] each
    mirror:           left-right partner of every vertex. [V] int64
    landmarks:        embedding per landmark convention, e.g. "mediapipe", "ibug68"
    """

    name: str
    licence: str
    mean: Tensor
    shape_basis: Tensor
    expression_basis: Tensor
    expression_lower: Tensor
    expression_upper: Tensor
    diffuse_mean: Tensor
    diffuse_basis: Tensor
    specular_mean: Tensor
    specular_basis: Tensor
    roughness_mean: Tensor
    triangles: Tensor
    uv: Tensor
    uv_triangles: Tensor
    uv_to_vertex: Tensor
    regions: Mapping[str, Tensor]
    mirror: Tensor
    landmarks: Mapping[str, LandmarkEmbedding] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def vertices(self, shape: Tensor, expression: Tensor) -> Tensor:
        """Vertices in model space. shape `[B, Ks]`, expression `[B, Ke]` -> `[B, V, 3]` mm."""
        return self.mean + combined(shape, self.shape_basis) + combined(expression, self.expression_basis)

    def diffuse(self, albedo: Tensor) -> Tensor:
        """Per-vertex diffuse albedo, linear, unclamped. `[B, Ka] -> [B, V, 3]`."""
        return self.diffuse_mean + combined(albedo, self.diffuse_basis)

    def specular(self, albedo: Tensor) -> Tensor:
        """Per-vertex Fresnel weight, unclamped. `[B, Ka] -> [B, V, 1]`."""
        return self.specular_mean + combined(albedo, self.specular_basis)

    def apart_from_skin(self) -> Tensor:
        """Weight of eyes and mouth, of which the skin beside them says nothing. [V, 1]"""
        return (self.regions["eyes"] + self.regions["mouth_interior"]).clamp(0.0, 1.0)[:, None]

    def trimmed(self, components: int) -> MorphableModel:
        """The same model with only the first `components` of every basis but the expression's."""
        return replace(
            self,
            shape_basis=self.shape_basis[:components],
            diffuse_basis=self.diffuse_basis[:components],
            specular_basis=self.specular_basis[:components],
        )

    def to(self, device: torch.device | str) -> MorphableModel:
        """The same model on another device."""
        moved: dict[str, object] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, Tensor):
                moved[name] = value.to(device)
            elif isinstance(value, Mapping):
                moved[name] = {key: item.to(device) for key, item in value.items()}
        return replace(self, **moved)  # type: ignore[arg-type]


def combined(coefficients: Tensor, basis: Tensor) -> Tensor:
    """Sums of a basis, differentiable once in the coefficients. `[B, K], [K, ...] -> [B, ...]`"""
    flat = basis.flatten(1)
    sums = _Combined.apply(coefficients, flat) if coefficients.device.type == "cpu" else coefficients @ flat
    return sums.unflatten(1, basis.shape[1:])


class _Combined(torch.autograd.Function):
    """The product of two matrices row by row, each row in memory of its own: as one product, BLAS rounds a row by how many
    there are and where they lie, and a photo would come out differently from batch to batch."""

    @staticmethod
    def forward(ctx: FunctionCtx, coefficients: Tensor, flat: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(flat)  # type: ignore[attr-defined]
        return torch.stack([row.clone() @ flat for row in coefficients.unbind()])

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, cotangent: Tensor):  # type: ignore[override, no-untyped-def]
        (flat,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return torch.stack([flat @ row.clone() for row in cotangent.unbind()]), None
