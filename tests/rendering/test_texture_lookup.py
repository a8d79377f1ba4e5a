from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from drawing import doubled, toy_scene
from torch.autograd import gradcheck

from nextface.rendering.bake import bake, fill, uv_fragments
from nextface.rendering.camera import Camera
from nextface.rendering.cpu import CpuRasterizer
from nextface.rendering.fragments import barycentrics_torch, fragments
from nextface.rendering.texture import TextureLookup
from nextface.textures import LaplacianTexture


def lookup_of(model, resolution: int, batch: int = 1, size: int = 48):
    scene = toy_scene(model, batch=batch)
    scene = replace(
        scene, focal=scene.focal * size / 48, principal=scene.principal * size / 48, height=size, width=size
    )
    camera, vertices = Camera.of(scene), scene.vertices_camera(model)
    pixels = CpuRasterizer().visible_triangles(vertices, model.triangles, camera)
    covered = fragments(vertices, model.triangles, pixels, camera)
    return TextureLookup.build(covered, model, resolution, camera, vertices), covered, camera, vertices


def texture_of(batch: int, channels: int, resolution: int, seed: int = 0) -> LaplacianTexture:
    random = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, resolution, resolution, channels, generator=random, dtype=torch.float64)
    return LaplacianTexture.from_image(image)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_lookup_twin(toy, shared: bool, channels: int):
    lookup, *_ = lookup_of(doubled(toy), 64, batch=2)
    texture = texture_of(1 if shared else 2, channels, 64)
    levels = [level.requires_grad_() for level in texture.levels]
    fast, slow = lookup.lookup(texture), lookup.lookup_torch(texture)
    torch.testing.assert_close(fast, slow)
    cotangent = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, twins = (torch.autograd.grad(out, levels, cotangent) for out in (fast, slow))
    for mine, twin in zip(ours, twins, strict=True):
        torch.testing.assert_close(mine, twin)


def test_levels_finer_than_every_pixel_are_left_alone(toy):
    """The lookup is that of a map without them; what was seen still has the whole map's size."""
    lookup, *_ = lookup_of(toy, 512)
    texture = LaplacianTexture([level.float() for level in texture_of(1, 2, 512).levels])
    reached = lookup.reached(texture)
    assert 1 < len(reached) < len(texture.levels)
    assert len(reached) - 2 < float(lookup.own.max()) <= len(reached) - 1
    coarser, *_ = lookup_of(toy, reached[-1].shape[1])
    for look in ("lookup", "lookup_torch"):
        torch.testing.assert_close(getattr(lookup, look)(texture), getattr(coarser, look)(LaplacianTexture(reached)))
    assert [marks.shape[1] for marks in lookup.touched(texture)] == [level.shape[1] for level in reached]
    seen, small = (each.seen(torch.ones_like(each.own)) for each in (lookup, coarser))
    assert seen.shape == (1, 512, 512, 1)
    # Bilinear upsampling keeps the sum but for the borders.
    assert float(seen.mean()) == pytest.approx(float(small.mean()), rel=1e-3)


def test_lookup_gradcheck(toy):
    lookup, *_ = lookup_of(doubled(toy), 32)
    few = slice(None, None, 120)
    thin = replace(
        lookup,
        uv=lookup.uv[few],
        texel=lookup.texel[:, few].contiguous(),
        across=lookup.across[:, few].contiguous(),
        down=lookup.down[:, few].contiguous(),
        own=lookup.own[few],
        image=lookup.image[few],
    )
    levels = [level.requires_grad_() for level in texture_of(1, 1, 32).levels]
    assert gradcheck(lambda *parts: thin.lookup(LaplacianTexture(list(parts))), levels, fast_mode=True)


def test_constant_map_reads_its_constant(toy):
    lookup, *_ = lookup_of(toy, 128)
    value = torch.tensor([[0.2, 0.5, 0.9]])
    found = lookup.lookup(LaplacianTexture.constant(value, 128))
    torch.testing.assert_close(found, value.expand(len(found), -1))


def test_smooth_map_is_read_at_the_right_place(toy):
    """A map that stores its own (u, v) returns the interpolated coordinates: orientation and centring are right."""
    lookup, covered, *_ = lookup_of(toy, 64)
    centres = (torch.arange(64) + 0.5) / 64
    u, v = torch.meshgrid(centres, 1 - centres, indexing="xy")
    found = lookup.lookup(LaplacianTexture.from_image(torch.stack([u, v], -1)[None]))
    inside = (lookup.uv - 0.5).abs().amax(1) < 0.45  # the outer half texel of the coarsest level is constant
    torch.testing.assert_close(found[inside], lookup.uv[inside], atol=0.01, rtol=0)


def test_distance_hides_fine_levels(toy):
    near, *_ = lookup_of(toy, 256, size=192)
    far, *_ = lookup_of(toy, 256, size=24)
    assert near.own.median() - far.own.median() == pytest.approx(3.0, abs=0.3)
    texture = LaplacianTexture.constant(torch.zeros(1, 1), 256)
    texture.levels[-1] += 1.0
    assert far.lookup(texture).abs().median() == 0.0


def test_own_level_is_the_pixel_size(toy):
    """Central differences of uv by pixels agree with the analytic footprint."""
    model = doubled(toy)
    lookup, covered, camera, vertices = lookup_of(model, 1024)
    pixels, corners = covered.pixels, covered.corners
    step = 1e-4
    squares = 0.0
    for axis in range(2):
        uv = []
        for sign in (step, -step):
            shift = torch.zeros(1, 2, dtype=torch.float64)
            shift[0, axis] = -sign
            moved = Camera(camera.focal, camera.principal + shift, camera.height, camera.width)
            weights = barycentrics_torch(vertices, corners, pixels, moved)
            uv.append((weights[..., None] * model.uv[model.uv_triangles[pixels.triangle]]).sum(1))
        squares = squares + (((uv[0] - uv[1]) / (2 * step)) ** 2).sum(1)
    expected = -torch.log2((squares / 2).sqrt() * 16)
    free = (lookup.own > 0) & (lookup.own < 6)
    assert free.float().mean() > 0.9
    torch.testing.assert_close(lookup.own[free], expected[free], atol=1e-5, rtol=0)


def test_seen_counts_every_pixel_once(toy):
    lookup, *_ = lookup_of(toy, 32, size=96)  # pixels are finer than texels
    seen = lookup.seen(torch.ones(len(lookup.own)))
    finest = lookup.own == lookup.own.max()
    assert seen.shape == (1, 32, 32, 1)
    only_fine = lookup.seen(finest.float())
    assert only_fine.sum() == pytest.approx(float(finest.sum()), rel=1e-4)
    assert (seen[..., 0] > 0.5).float().mean() > 0.2


def test_baked_uv_returns_its_texel_centres(toy):
    """Baking the position and looking the texels up again returns it."""
    resolution = 64
    baked = bake(toy.mean[None], toy, resolution)
    assert baked.shape == (1, resolution, resolution, 3)
    texels = uv_fragments(toy, resolution)
    u, v = toy.uv.unbind(-1)
    at_texels = (texels.barycentric * u[texels.corners]).sum(1), (texels.barycentric * v[texels.corners]).sum(1)
    torch.testing.assert_close(at_texels[0], (texels.pixels.column + 0.5) / resolution, atol=1e-4, rtol=0)
    torch.testing.assert_close(1 - at_texels[1], (texels.pixels.row + 0.5) / resolution, atol=1e-4, rtol=0)
    corners = toy.triangles[texels.pixels.triangle]
    expected = (texels.barycentric[..., None] * toy.mean[corners]).sum(1)
    torch.testing.assert_close(texels.pixels.pack(baked), expected, atol=1e-3, rtol=0)


def test_fill_is_exact_where_covered_and_bounded_elsewhere():
    random = torch.Generator().manual_seed(0)
    image = torch.rand(2, 32, 32, 3, generator=random)
    mask = (torch.rand(1, 32, 32, 1, generator=random) > 0.8).float()
    filled = fill(image, mask)
    assert torch.equal(filled * mask, image * mask)
    assert filled.min() >= image.min() and filled.max() <= image.max()
    constant = fill(0.7 * mask, mask)
    torch.testing.assert_close(constant, torch.full_like(constant, 0.7))


def test_statistical_skin_baked_and_looked_up_looks_the_same(toy):
    lookup, covered, *_ = lookup_of(toy, 256)
    skin = toy.diffuse_mean[None]
    found = lookup.lookup(LaplacianTexture.from_image(bake(skin, toy, 256)))
    assert (found - covered.interpolate(skin)).abs().median() < 0.01
