"""Photos with a known answer, and crops of every domain, of faces that the prior has never seen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import roma
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from benchmarks import metrics
from benchmarks.synthetic import SyntheticPhoto, lights_of, make
from benchmarks.unseen.skin import unseen_maps
from nextface.color import srgb_to_linear
from nextface.morphable.model import MorphableModel
from nextface.prior.crops import alignment, cut_out, model_points, seen_in_crop
from nextface.prior.encoding import Encoding
from nextface.rendering.camera import Camera
from nextface.rendering.render import Rendering, render
from nextface.rendering.transport import COARSE_DIRECTIONS, Transport
from nextface.scene import Scene

PHOTOS = 32
"""Of the test of maps."""
_FIRST = 5000
"""Their numbers begin here, away from the photos of the other benchmarks."""
LIGHTS = 3
"""Under which the same person can be seen."""
SUPERSAMPLING = 4
YAWS = (0.0, 45.0, -45.0)


@dataclass(frozen=True)
class UnseenCrops:
    """One face's crops, linear, `[1, C, S, S]` by domain ("shared" is the picture), and where skin is: 0..1, [1, 1, S, S]"""

    domains: dict[str, Tensor]
    mesh_normal: Tensor
    covered: Tensor
    skin: Tensor


def unseen_photo(
    model: MorphableModel,
    number: int,
    texture: int = 1024,
    scale: float = 1.0,
    light: tuple[str, Tensor] | None = None,
) -> SyntheticPhoto:
    """Photo `number` of an endless series. Same number, same photo. scale: 1 for a head of 440 pixels; light: as in `make`"""
    photo = make(model, _FIRST + number, texture=texture, scale=scale, light=light, skin=unseen_maps)
    assert photo.scene.maps is not None
    drawn = render(photo.scene, model)
    face = drawn.mask[0] & (_skin(photo.scene, model)[0] > 0.9)
    tone = float(metrics.typology_angle(drawn.diffuse[0][face].mean(0)))
    return replace(photo, name=f"unseen_{number:02d}", tone=tone)


def relit_photo(
    model: MorphableModel, number: int, light: int, texture: int = 1024, scale: float = 1.0
) -> SyntheticPhoto:
    """The person of photo `number`, in the same pose before the same camera, under light 0…`LIGHTS` − 1. These are of
    different environments and the same for everybody; the second comes from the side."""
    name, radiance, _ = lights_of(light, np.random.default_rng([21, light]))
    photo = unseen_photo(model, number, texture, scale, (name, radiance))
    return replace(photo, name=f"{photo.name}_light_{light}")


def unseen_photos(model: MorphableModel, count: int = PHOTOS, texture: int = 1024) -> Iterator[SyntheticPhoto]:
    return (unseen_photo(model, number, texture) for number in range(count))


def photo_crop(photo: SyntheticPhoto, model: MorphableModel, encoding: Encoding) -> UnseenCrops:
    """What a photo shows, as the prior would see it: the pixels from the photo, the maps drawn by the truth."""
    points = model_points(model, photo.scene.vertices_camera(model), Camera.of(photo.scene))
    pixels = srgb_to_linear(torch.from_numpy(photo.pixels).float().permute(2, 0, 1)[None] / 255.0)
    picture = cut_out(pixels, alignment(points, encoding.crop, encoding.image_size), encoding.image_size)
    crops = scene_crop(photo.scene, model, encoding)
    return replace(crops, domains={**crops.domains, "shared": picture})


def turned(scene: Scene, yaw: float) -> Scene:
    """The same head and light, but the head turned to `yaw` degrees and held upright before the camera."""
    rotation = roma.euler_to_rotvec("YX", [math.radians(yaw), 0.0])[None].float()
    distance = float(scene.translation[0, 2])
    return replace(
        scene, rotation=rotation, translation=torch.tensor([[0.0, 0.0, distance]]), principal=scene.principal
    )


def scene_crop(scene: Scene, model: MorphableModel, encoding: Encoding) -> UnseenCrops:
    """Crops of a scene, drawn finer and averaged; the picture without background."""
    size = encoding.image_size * SUPERSAMPLING
    points = model_points(model, scene.vertices_camera(model), Camera.of(scene))
    close = seen_in_crop(scene, alignment(points, encoding.crop, size), size)
    drawn = render(close, model, transport=Transport.of_head(close, model, COARSE_DIRECTIONS))
    plain = render(close, model, maps=False)
    covered = drawn.mask[..., None].float()
    skin = _skin(close, model)[..., None]
    share = _shrunk(covered)
    turn = close.head_rotation()

    def mean(values: Tensor) -> Tensor:
        return _shrunk(values * covered) / share.clamp_min(1e-3)

    def unit(rendering: Rendering) -> Tensor:
        """Normals in the head's frame."""
        return normalize(mean(rendering.normal @ turn), dim=1) * (share > 0.5)

    domains = {"shared": mean(drawn.image), "diffuse": mean(drawn.diffuse), "specular": mean(drawn.specular)}
    domains |= {"normal": unit(drawn), "roughness": mean(drawn.roughness)}
    known = (share > 0.5).float()
    domains = {name: values * known for name, values in domains.items()}
    return UnseenCrops(domains, unit(plain), known, _shrunk(skin) * known)


def _skin(scene: Scene, model: MorphableModel) -> Tensor:
    """Share of skin, lips and brows at every pixel. [B, H, W]"""
    weights = sum(model.regions[name] for name in ("skin", "lips", "eyebrows")) * (1.0 - model.regions["eyes"])
    painted = replace(
        model, diffuse_mean=weights[:, None].expand(-1, 3).contiguous(), diffuse_basis=0 * model.diffuse_basis
    )
    return render(scene, painted, maps=False).diffuse[..., 0]


def _shrunk(values: Tensor) -> Tensor:
    """[1, H, W, C] -> [1, C, S, S]"""
    return avg_pool2d(values.permute(0, 3, 1, 2), SUPERSAMPLING)
