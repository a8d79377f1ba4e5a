"""Studio lights and the environment map."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from nextface import export
from nextface.export.light import light_map
from nextface.export.lights import STUDIO_LIGHTS, Lamp, lamp_radiance
from nextface.rendering.sh import irradiance


@pytest.mark.parametrize("sharpness", [1.5, 14.0])
def test_a_lamp_shows_its_colour_on_a_white_surface_that_faces_it(sharpness):
    lamp = Lamp((0.6, 0.0, 0.8), (1.0, 0.5, 0.25), sharpness)
    radiance = lamp_radiance(lamp, 9)[None]
    facing = torch.tensor([[0.6, 0.0, 0.8]])
    shown = irradiance(facing, radiance, torch.zeros(1, dtype=torch.int64))[0] / math.pi
    torch.testing.assert_close(shown, torch.tensor(lamp.colour), rtol=0.02, atol=0)


@pytest.mark.parametrize("light", STUDIO_LIGHTS, ids=lambda light: light.name)
def test_studio_lights_never_overexpose_white_skin_much(light):
    normals = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    shown = irradiance(normals, light.radiance(9), torch.zeros(200, dtype=torch.int64)) / math.pi
    assert 0.4 < float(shown.max()) < 2.5


def test_a_lamp_behind_the_subject_to_the_right_lies_right_of_the_centre():
    lamp = Lamp((math.sin(0.6), 0.0, -math.cos(0.6)), (1.0, 1.0, 1.0), 30.0)
    environment = light_map(lamp_radiance(lamp, 9), 64, smooth=False)
    assert environment.shape == (64, 128, 3) and (environment >= 0).all()
    row, column = divmod(int(environment[..., 0].argmax()), 128)
    assert abs(row - 31.5) <= 1.5
    assert (column + 0.5) / 128 == pytest.approx(0.5 + 0.6 / (2 * math.pi), abs=0.02)


def test_smoothing_keeps_the_mean_and_damps_the_ringing():
    radiance = lamp_radiance(Lamp((0.0, 1.0, 0.0), (1.0, 1.0, 1.0), 60.0), 9)
    raw, smooth = light_map(radiance, 64, False), light_map(radiance, 64, True)
    below = slice(20, None)
    assert raw[below].std() > 5 * smooth[below].std()
    assert float(smooth.max()) < float(raw.max())


def test_png_is_encoded_and_exr_is_not_clipped(reconstruction, folder, tmp_path):
    OpenEXR = pytest.importorskip("OpenEXR")
    config = replace(reconstruction.config, save_exr=True, env_map_res=16)
    export.write(replace(reconstruction, config=config), tmp_path, {"envmap"})
    with OpenEXR.File(str(tmp_path / "envMap_0.exr")) as file:
        stored = file.channels()["RGB"].pixels
    expected = light_map(reconstruction.scene.radiance()[0], 16, True).numpy()
    np.testing.assert_allclose(stored, expected, atol=1e-6)
    png = np.asarray(Image.open(folder / "envMap_0.png"))
    assert png.shape == (64, 128, 3)
    assert not (tmp_path / "envMap_0.png").exists()


def test_relit_views_agree_with_the_renderer(reconstruction):
    """A relit view is the head drawn under that light, shadows included, at twice the size."""
    from nextface.export.images import encode_srgb
    from nextface.export.result import PhotoResult
    from nextface.export.studio import BACKDROP, relit_views, studio_scene
    from nextface.rendering.render import render

    result = PhotoResult(0, reconstruction.scene, reconstruction.model)
    light = STUDIO_LIGHTS[1].radiance(9)
    (relit,) = relit_views(result, 0.4, 96, [light])
    drawn = render(studio_scene(result, 0.4, 192), reconstruction.model, radiance=light, transport=result.transport)
    picture = torch.where(drawn.mask[0, ..., None], drawn.image[0].clamp(0, 1), torch.tensor(BACKDROP))
    expected = encode_srgb(picture.unflatten(0, (96, 2)).unflatten(2, (96, 2)).mean((1, 3)))
    off = np.abs(relit.astype(int) - expected.astype(int)).max(-1)
    assert (off <= 1).mean() > 0.98
    assert len({tuple(colour) for colour in relit.reshape(-1, 3)}) > 500
