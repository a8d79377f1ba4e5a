"""Skin maps as Laplacian levels."""

from __future__ import annotations

import pytest
import torch

from nextface.textures import COARSEST, MAP_CHANNELS, LaplacianTexture, SkinMaps, upsample


def random_image(size: int, channels: int = 3, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, size, size, channels, generator=torch.Generator().manual_seed(size))


@pytest.mark.parametrize("size", [16, 32, 128, 256])
def test_levels_sum_to_the_image(size: int):
    image = random_image(size)
    texture = LaplacianTexture.from_image(image)
    assert [level.shape[1] for level in texture.levels] == [COARSEST << number for number in range(len(texture.levels))]
    assert texture.resolution == size
    assert texture.channels == 3
    assert torch.allclose(texture.full(), image, atol=1e-5)


def test_the_coarsest_level_is_the_mean_of_its_texels():
    image = random_image(64)
    texture = LaplacianTexture.from_image(image)
    block = image[1, 4:8, 8:12].mean((0, 1))
    assert torch.allclose(texture.levels[0][1, 1, 2], block, atol=1e-6)


def test_a_constant_map_is_coarse_alone():
    texture = LaplacianTexture.constant(torch.tensor([[0.2, 0.4], [0.6, 0.8]]), 128)
    assert texture.resolution == 128
    assert all(float(level.abs().max()) == 0.0 for level in texture.levels[1:])
    assert torch.allclose(texture.full()[1], torch.tensor([0.6, 0.8]).expand(128, 128, 2))


def test_upsampling_is_half_pixel_centred():
    """A ramp stays a ramp away from the border: no shift by half a texel."""
    ramp = torch.arange(16.0)[None, None, :, None].expand(1, 16, 16, 1)
    fine = upsample(ramp, 32)[0, 0, :, 0]
    expected = (torch.arange(32) + 0.5) / 2 - 0.5
    assert torch.allclose(fine[1:-1], expected[1:-1], atol=1e-5)
    assert upsample(ramp, 16) is ramp


def test_a_texel_of_a_fine_level_stays_where_it_is():
    texture = LaplacianTexture.constant(torch.zeros(1, 1), 64)
    texture.levels[-1][0, 10, 50] = 1.0
    assert torch.nonzero(texture.full()[0, ..., 0]).tolist() == [[10, 50]]


def test_exported_images_are_in_range():
    textures = {
        name: LaplacianTexture.from_image(4.0 * random_image(32, count) - 2.0) for name, count in MAP_CHANNELS.items()
    }
    maps = SkinMaps(**textures, confidence=torch.zeros(2, 32, 32, 1))
    images = maps.images()
    assert {name: image.shape[-1] for name, image in images.items()} == {
        "diffuse": 3,
        "specular": 1,
        "roughness": 1,
        "normal": 3,
    }
    for name in ("diffuse", "specular", "roughness"):
        assert float(images[name].min()) >= (0.05 if name == "roughness" else 0.0)
        assert float(images[name].max()) <= 1.0
    assert torch.allclose(images["normal"].norm(dim=-1), torch.ones(2, 32, 32), atol=1e-5)


def test_flat_slopes_are_the_surface_s_own_normal():
    maps = SkinMaps(
        **{name: LaplacianTexture.constant(torch.zeros(1, count), 32) for name, count in MAP_CHANNELS.items()},
        confidence=torch.zeros(1, 32, 32, 1),
    )
    assert torch.equal(maps.images()["normal"], torch.tensor([0.0, 0.0, 1.0]).expand(1, 32, 32, 3))
