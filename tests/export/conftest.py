"""A finished reconstruction of a made-up photo: the toy head, turned, lit from its right, drawn into a larger frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from toy import toy_model

from nextface.config import OptimConfig
from nextface.export.images import encode_srgb
from nextface.export.lights import Lamp, lamp_radiance
from nextface.export.result import with_maps
from nextface.landmarks.points import Landmarks
from nextface.photo import crop_to_face, load_image
from nextface.reconstruction import Reconstruction
from nextface.rendering.camera import Camera
from nextface.rendering.render import render
from nextface.scene import Scene
from nextface.textures import LaplacianTexture

FULL = (320, 440)
TEXTURE = 256


@pytest.fixture(scope="session")
def reconstruction(tmp_path_factory: pytest.TempPathFactory) -> Reconstruction:
    model = toy_model()
    light = torch.zeros(1, 81, 3)
    light[0] += lamp_radiance(Lamp((-0.7, 0.4, 0.6), (0.9, 0.8, 0.7), 4.0), 9)
    light[0, 0] += 0.6
    full = Scene(
        shape=torch.tensor([[0.5, -0.3, 0.2, 0.4, 0.0]]),
        albedo=torch.zeros(1, 3),
        expression=torch.tensor([[0.2, 0.0, 0.0]]),
        rotation=torch.tensor([[0.12, 0.35, 0.1]]),
        translation=torch.tensor([[60.0, -15.0, 800.0]]),
        focal=torch.tensor([900.0]),
        principal=torch.tensor([[FULL[1] / 2, FULL[0] / 2]]),
        light=light,
        exposure=torch.tensor([0.1]),
        white_balance=torch.tensor([[0.05, -0.05]]),
        height=FULL[0],
        width=FULL[1],
    )
    drawn = render(full, model)
    noise = torch.rand(*FULL, 3, generator=torch.Generator().manual_seed(1))
    path = tmp_path_factory.mktemp("photo") / "someone & co.png"
    Image.fromarray(encode_srgb(torch.where(drawn.mask[0, ..., None], drawn.image[0], 0.2 + 0.02 * noise))).save(path)
    photo = crop_to_face(load_image(path), _landmarks(full), 128)
    crop = photo.crop
    scene = replace(
        full,
        focal=full.focal * crop.scale,
        principal=torch.tensor([photo.principal]),
        height=crop.height,
        width=crop.width,
    )
    scene = with_maps(scene, model, TEXTURE)
    assert scene.maps is not None
    slopes = 0.2 * torch.rand(1, TEXTURE, TEXTURE, 2, generator=torch.Generator().manual_seed(2)) - 0.1
    maps = replace(
        scene.maps, normal=LaplacianTexture.from_image(slopes), confidence=torch.full((1, TEXTURE, TEXTURE, 1), 0.5)
    )
    return Reconstruction(
        photo,
        replace(scene, maps=maps),
        model,
        OptimConfig(texture_resolution=256, max_resolution=128, seed=7),
        losses={"pose": [9.0, 3.0, 1.0], "maps": [2.0, 1.5]},
        timings={"pose": 0.25, "maps": 1.5},
        report={"accepted_pixels": 123},
    )


def _landmarks(scene: Scene) -> Landmarks:
    """The model's fixed landmarks as a perfect detector sees them in the full frame."""
    model = toy_model()
    embedding = model.landmarks["mediapipe"]
    fixed = embedding.count == 1
    corners = scene.vertices_camera(model)[0][model.triangles[embedding.triangle[fixed, 0]]]
    points = (corners * embedding.barycentric[fixed, 0][..., None]).sum(1)
    return Landmarks(
        "mediapipe", embedding.index[fixed], Camera.of(scene).project(points[None])[0], torch.ones(int(fixed.sum()))
    )


@pytest.fixture(scope="session")
def folder(reconstruction: Reconstruction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder with everything in it."""
    from nextface import export

    target = tmp_path_factory.mktemp("result") / "someone"
    export.write(reconstruction, target, only=set(export.SUBSETS))
    return target
