"""Scenes and double-precision copies for the renderer's tests."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nextface.morphable.model import MorphableModel
from nextface.rendering.camera import Camera
from nextface.rendering.raster import VisiblePixels
from nextface.scene import Scene
from nextface.textures import LaplacianTexture, SkinMaps

SIZE = 48


def doubled(model: MorphableModel) -> MorphableModel:
    """The model in double precision, for finite differences."""
    moved = {}
    for name in model.__dataclass_fields__:
        value = getattr(model, name)
        if isinstance(value, Tensor) and value.is_floating_point():
            moved[name] = value.double()
    return replace(model, **moved)


def toy_scene(model: MorphableModel, batch: int = 1, bands: int = 9, maps: bool = False) -> Scene:
    """A turned head under coloured light, at `SIZE`², in the model's precision; with rough maps when asked."""
    random = torch.Generator().manual_seed(7)
    dtype = model.mean.dtype

    def normal(*shape: int, scale: float) -> Tensor:
        return scale * torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)

    band = torch.tensor([degree for degree in range(bands) for _ in range(2 * degree + 1)])
    light = normal(batch, bands * bands, 3, scale=0.6) / (1.0 + band[:, None]) ** 2
    light[:, 0] = 3.5
    turn = torch.tensor([[0.15, 0.45, -0.1]], dtype=dtype).repeat(batch, 1)
    place = torch.tensor([[6.0, -4.0, 620.0]], dtype=dtype).repeat(batch, 1)
    return Scene(
        shape=normal(batch, model.shape_basis.shape[0], scale=0.5),
        albedo=normal(batch, model.diffuse_basis.shape[0], scale=0.5),
        expression=normal(batch, model.expression_basis.shape[0], scale=0.3).abs(),
        rotation=turn + normal(batch, 3, scale=0.1),
        translation=place + normal(batch, 3, scale=3.0),
        focal=torch.full((batch,), 2.3 * SIZE, dtype=dtype),
        principal=torch.full((batch, 2), 0.5 * SIZE, dtype=dtype),
        light=light,
        exposure=normal(batch, scale=0.1),
        white_balance=normal(batch, 2, scale=0.1),
        height=SIZE,
        width=SIZE,
        maps=rough_maps(batch, 64, random, dtype) if maps else None,
    )


def rough_maps(batch: int, resolution: int, random: torch.Generator, dtype: torch.dtype) -> SkinMaps:
    """Noise around plausible skin, within range."""

    def texture(mean: float, spread: float, channels: int) -> LaplacianTexture:
        noise = torch.rand(batch, resolution, resolution, channels, generator=random, dtype=torch.float64) - 0.5
        return LaplacianTexture.from_image((mean + spread * noise).to(dtype))

    return SkinMaps(
        diffuse=texture(0.5, 0.4, 3),
        specular=texture(0.6, 0.4, 1),
        roughness=texture(0.45, 0.3, 1),
        normal=texture(0.0, 0.4, 2),
        confidence=torch.ones(batch, resolution, resolution, 1, dtype=dtype),
    )


class FrozenRasterizer:
    """Always answers with the pixels seen first: visibility is held fixed, as between two optimisation steps."""

    def __init__(self, pixels: VisiblePixels) -> None:
        self.pixels = pixels

    def visible_triangles(self, vertices_camera: Tensor, triangles: Tensor, camera: Camera) -> VisiblePixels:
        return self.pixels
