"""Crops that the prior's networks are measured on, as the truth has them and as a fit would leave them.

Generator A draws people, heads and light with another seed than the training; generator B is `benchmarks.unseen`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks import metrics
from benchmarks.unseen.faces import turned, unseen_photo
from benchmarks.unseen.traces import Lit, left_by_a_fit
from nextface.morphable.model import MorphableModel
from nextface.prior.answers import SKIN
from nextface.prior.checkpoint import read_weights, save_tensors
from nextface.prior.crops import DISTANCE_MM, YAWS, alignment, masked, model_points, seen_in_crop
from nextface.prior.data.heads import BANDS
from nextface.prior.data.lights import draw_lights
from nextface.prior.data.mending import Chances, corrupted, photographed
from nextface.prior.data.source import FacesSettings, GeneratedFaces
from nextface.prior.encoding import Encoding, slopes
from nextface.prior.fusion import DOMAINS
from nextface.prior.views import CropViews
from nextface.rendering.camera import Camera
from nextface.rendering.render import render
from nextface.rendering.tangents import PixelFrames
from nextface.rendering.transport import COARSE_DIRECTIONS, Transport
from nextface.scene import Scene
from nextface.textures import MAP_CHANNELS, resized

MAPS = DOMAINS[1:]
HELD_OUT_SEED = 7919
"""Of generator A's people, heads, noise and lights; the training's is 0."""
A_SUBJECTS = 24
B_TEST, B_VALIDATION = range(32), range(100, 124)
"""Numbers of the unseen photos. What is chosen is chosen on the latter."""
_EXPOSURE_SPREAD = 0.22
_RAYS = 3
"""Along each side of a pixel of B's pictures."""
_TRACES_SEED = 31


@dataclass(frozen=True)
class Subject:
    """One person's crops in N views: linear, 0 off the head (A's photos have a background), normals unit in model axes.

    shared, diffuse, specular, normal, roughness: `[N, C, S, S]`, the first the photos
    spoilt_…: the maps as a fit would leave them
    tangent, bitangent, mesh_normal: the mesh's frames at the pixels, 0 off the head, `[N, 3, S, S]`
    covered, skin: 1 on the head; 1 on skin, lips and brows. `[N, 1, S, S]`
    """

    shared: Tensor
    diffuse: Tensor
    specular: Tensor
    normal: Tensor
    roughness: Tensor
    spoilt_diffuse: Tensor
    spoilt_specular: Tensor
    spoilt_normal: Tensor
    spoilt_roughness: Tensor
    tangent: Tensor
    bitangent: Tensor
    mesh_normal: Tensor
    covered: Tensor
    skin: Tensor

    @property
    def tone(self) -> float:
        """Typology angle of the mean skin, degrees."""
        return float(metrics.typology_angle((self.diffuse * self.skin).sum((0, 2, 3)) / self.skin.sum()))

    def clean(self, domain: str) -> Tensor:
        return getattr(self, domain)

    def spoilt(self, domain: str) -> Tensor:
        return getattr(self, f"spoilt_{domain}")

    def known(self, domain: str) -> Tensor:
        """1 where the network is shown the crop: all of a photo with a background, of others the head."""
        everywhere = domain == "shared" and bool((self.shared * (1.0 - self.covered)).any())
        return torch.ones_like(self.covered) if everywhere else self.covered

    def encoded(self, encoding: Encoding, domain: str, values: Tensor) -> Tensor:
        """Crops as the networks see them, mid-grey where unknown. [N, 3, S, S]"""
        return masked(encoding.encode(domain, values), self.known(domain))

    def compared(self, domain: str, values: Tensor) -> Tensor:
        """Linear crops as they are compared: normals as unit vectors in the mesh's tangent frames. [N, C, S, S]"""
        if domain != "normal":
            return values
        flat, (tangent, bitangent, mesh) = self._rows(values), self._frames()
        on = mesh.square().sum(1) > 0.5
        bends = slopes(flat[on], PixelFrames(tangent[on], bitangent[on], mesh[on]))
        relief = torch.zeros_like(flat)
        relief[on] = normalize(torch.cat([bends, torch.ones_like(bends[:, :1])], 1), dim=1)
        return relief.unflatten(0, (len(values), *values.shape[2:])).movedim(-1, 1)

    def _frames(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._rows(self.tangent), self._rows(self.bitangent), self._rows(self.mesh_normal)

    @staticmethod
    def _rows(crops: Tensor) -> Tensor:
        """[N, C, S, S] -> [N·S², C]"""
        return crops.movedim(1, -1).flatten(0, 2)


def trained_faces(
    model: MorphableModel, encoding: Encoding, count: int = A_SUBJECTS, seed: int = HELD_OUT_SEED
) -> list[Subject]:
    """People of generator A, each with a head, the three views of it and a light in each. Other seeds, other people."""
    source = GeneratedFaces(model, FacesSettings(people=count, identities=count, expressions=1, seed=seed), encoding)
    generator = torch.Generator().manual_seed(seed + 1)
    views, drawer = len(YAWS), source.drawer
    subjects = []
    for person in range(count):
        rows = torch.arange(person * views, (person + 1) * views)
        exposure = _EXPOSURE_SPREAD * torch.randn(views, generator=generator)
        faces = drawer.draw(
            rows,
            source.people.rows(torch.full((views,), person)),
            draw_lights(views, BANDS, generator),
            exposure,
            torch.zeros(views, 2),
        )
        chances = Chances.draw(views, generator)
        frames = drawer.heads.views.rows(rows)
        square = (views, encoding.image_size, encoding.image_size, 3)
        tangent, bitangent, mesh_normal = (
            part.float().view(square).movedim(-1, 1) * faces.covered
            for part in (frames.tangent, frames.bitangent, frames.normal)
        )
        subjects.append(
            Subject(
                shared=photographed(faces, chances, drawer.noise.grain),
                **{name: getattr(faces, name) for name in MAPS},
                **{f"spoilt_{name}": corrupted(name, faces, chances) for name in MAPS},
                tangent=tangent,
                bitangent=bitangent,
                mesh_normal=normalize(mesh_normal, dim=1),
                covered=faces.covered,
                skin=(faces.skin > 0.5).float(),
            )
        )
    return subjects


def unseen_face(model: MorphableModel, encoding: Encoding, number: int) -> Subject:
    """Person `number` of generator B: the true maps of photo `number` through the prior's views, lit as that photo is."""
    scene = unseen_photo(model, number, scale=0.3).scene
    assert scene.maps is not None
    views = CropViews.of(scene, model, encoding.crop, encoding.image_size)
    textures = [texture.full() for texture in scene.maps.textures().values()]
    stacked = views.crops(resized(torch.cat(textures, -1), views.resolution)[0])
    clean = dict(zip(MAP_CHANNELS, stacked.split(list(MAP_CHANNELS.values()), 1), strict=True))
    clean["normal"] = views.normals(clean["normal"])
    on = views.covered
    regions = torch.stack([model.regions[name] for name in SKIN], 1).sum(1) * (1.0 - model.regions["eyes"])
    skin = (views.draw(regions[:, None]) > 0.5).float()
    clean = {name: clean[name] * on for name in MAPS}
    photos, lit = _lit(scene, model, encoding, on, skin)
    spoilt = left_by_a_fit(clean, on, lit, np.random.default_rng([_TRACES_SEED, number]))
    frames = views.frames

    def dense(values: Tensor) -> Tensor:
        return views.pixels.pixels.unpack(values).movedim(-1, 1)

    return Subject(
        shared=photos,
        **clean,
        **{f"spoilt_{name}": values for name, values in spoilt.items()},
        tangent=dense(frames.tangent),
        bitangent=dense(frames.bitangent),
        mesh_normal=dense(frames.normal),
        covered=on,
        skin=skin,
    )


def unseen_faces(
    model: MorphableModel, encoding: Encoding, numbers: range, folder: Path | None = None
) -> Iterator[Subject]:
    """People of generator B, kept in a folder (half floats, some 5 MB each) where one is given."""
    for number in numbers:
        name = f"unseen_{number}_{encoding.crop}_{encoding.image_size}.safetensors"
        yield _kept(
            None if folder is None else folder / name, lambda number=number: unseen_face(model, encoding, number)
        )


def upright(scene: Scene, model: MorphableModel, encoding: Encoding, yaw: float, finer: int = 1) -> Scene:
    """A scene as the prior's view at `yaw` degrees sees it, `finer` pixels along each of the crop's. The light stays."""
    place = scene.translation.new_tensor([[0.0, 0.0, DISTANCE_MM]])
    straight = replace(turned(scene, yaw), translation=place, focal=place[:, 2], principal=0.0 * place[:, :2])
    size = encoding.image_size * finer
    points = model_points(model, straight.vertices_camera(model), Camera.of(straight))
    return seen_in_crop(straight, alignment(points, encoding.crop, size), size)


def _lit(scene: Scene, model: MorphableModel, encoding: Encoding, covered: Tensor, skin: Tensor) -> tuple[Tensor, Lit]:
    """Pictures of the views, and their light. [N, 3, S, S]"""
    transport = Transport.of_head(scene, model, COARSE_DIRECTIONS)
    parts: dict[str, list[Tensor]] = {"picture": [], "shadowed": [], "open": [], "highlight": []}
    for yaw in YAWS:
        close = upright(scene, model, encoding, yaw, _RAYS)
        drawn, unshadowed = render(close, model, transport=transport), render(close, model)
        parts["picture"].append(drawn.image)
        parts["shadowed"].append(drawn.illumination)
        parts["open"].append(unshadowed.illumination)
        parts["highlight"].append((drawn.image - drawn.diffuse * drawn.illumination).clamp_min(0.0))
    crops = {
        name: torch.nn.functional.avg_pool2d(torch.cat(images).movedim(-1, 1), _RAYS) * covered
        for name, images in parts.items()
    }
    picture = crops.pop("picture").clamp(0.0, 1.0)
    return picture, Lit(**crops, skin=skin)


def _kept(path: Path | None, make: Callable[[], Subject]) -> Subject:
    if path is not None and path.is_file():
        return Subject(**{name: each.float() for name, each in read_weights(path).items()})
    subject = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors({item.name: getattr(subject, item.name).half() for item in fields(Subject)}, path, {})
    return subject
