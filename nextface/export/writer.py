"""Which file holds what: every result of a reconstruction by subset name."""

from __future__ import annotations

import difflib
import logging
import time
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import roma
import torch
from torch import Tensor

from nextface.errors import ConfigError
from nextface.export import frame, measures
from nextface.export.curves import loss_curve
from nextface.export.files import write_bytes, write_json
from nextface.export.glb import GlbCamera, glb, whole_tangents
from nextface.export.images import jpeg, map_pictures, png
from nextface.export.light import light_exr, light_map, light_png
from nextface.export.mesh import mtl, obj
from nextface.export.report import report
from nextface.export.result import PhotoResult, with_maps
from nextface.export.strips import strip
from nextface.export.studio import turntable
from nextface.rendering.render import to_view
from nextface.rendering.tangents import vertex_tangents
from nextface.textures import SkinMaps

if TYPE_CHECKING:
    from nextface.reconstruction import Reconstruction

logger = logging.getLogger(__name__)

TURNTABLE_SIZE = 288
STAGES = ("pose", "statistical", "maps")
OBJ_COMMENT = (
    "nextface: millimetres, x right, y up, z to the viewer, camera at the origin (camera space with y and z negated)\n"
    "model: {model}; licence: {licence}"
)


@torch.no_grad()
def write(reconstruction: Reconstruction, folder: Path | str, only: Collection[str] | None = None) -> list[Path]:
    """Write results into `folder`; returns the files.

    only: names out of `SUBSETS`; None writes `DEFAULT`. A mesh brings the maps that it refers to. Raises ConfigError for
    an unknown name, OutputError for a file that cannot be written; every file is written whole or not at all.
    """
    names = _selected(only)
    export = _Export(reconstruction, Path(folder))
    for name in names:
        started = time.perf_counter()
        export.run(name)
        export.seconds[name] = time.perf_counter() - started
        logger.debug("%s written in %.2f s", name, export.seconds[name])
    return export.written


def _selected(only: Collection[str] | None) -> list[str]:
    """Subset names in writing order."""
    if only is None:
        return list(DEFAULT)
    for name in only:
        if name not in SUBSETS:
            near = difflib.get_close_matches(name, SUBSETS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(SUBSETS)}"
            raise ConfigError(f"unknown result '{name}'; {hint}")
    wanted = set(only) | ({"maps"} if "mesh" in only else set())
    return [name for name in SUBSETS if name in wanted]


class _Export:
    """One run of the exporter: what is written, and what several files share."""

    def __init__(self, reconstruction: Reconstruction, folder: Path) -> None:
        self.reconstruction = reconstruction
        self.folder = folder
        self.written: list[Path] = []
        self.seconds: dict[str, float] = {}
        self.gif: bytes | None = None
        config, model = reconstruction.config, reconstruction.model.to("cpu")
        self.scene = with_maps(reconstruction.scene.select(0).to("cpu"), model, config.texture_resolution)
        self.result = PhotoResult(0, self.scene, model, config.self_shadowing)

    def run(self, name: str) -> None:
        SUBSETS[name](self)

    def put(self, name: str, content: bytes) -> None:
        self.written.append(write_bytes(self.folder / name, content))

    def put_json(self, name: str, content: object) -> None:
        self.written.append(write_json(self.folder / name, content))

    @property
    def maps(self) -> SkinMaps:
        assert self.scene.maps is not None
        return self.scene.maps

    @cached_property
    def map_pictures(self) -> list[dict[str, np.ndarray]]:
        """Per identity."""
        return [map_pictures(self.maps, k) for k in range(len(self.maps.confidence))]

    @cached_property
    def map_pngs(self) -> list[dict[str, bytes]]:
        """The same as PNG bytes."""
        return [{name: png(picture) for name, picture in pictures.items()} for pictures in self.map_pictures]

    @cached_property
    def residuals(self) -> dict[str, float | None]:
        return measures.residuals(self.result, self.reconstruction.photo)

    @cached_property
    def landmarks(self) -> np.ndarray:
        return np.asarray(frame.landmarks(self.reconstruction.photo))

    def map_index(self) -> int:
        return min(self.result.index, len(self.map_pictures) - 1)

    def write_maps(self) -> None:
        for k, pngs in enumerate(self.map_pngs):
            for name, content in pngs.items():
                self.put(f"{name}Map_{k}.png", content)

    def write_mesh(self) -> None:
        i, result, model = self.result.index, self.result, self.result.model
        content = obj(
            to_view(result.vertices_camera).numpy(),
            to_view(result.normals_camera).numpy(),
            model.uv.numpy(),
            model.triangles.numpy(),
            model.uv_triangles.numpy(),
            f"material{i}.mtl",
            OBJ_COMMENT.format(model=model.name, licence=model.licence),
        )
        self.put(f"material{i}.mtl", mtl(f"diffuseMap_{self.map_index()}.png"))
        self.put(f"mesh{i}.obj", content)

    def write_glb(self) -> None:
        result, model = self.result, self.result.model
        vertices, normals = result.vertices_model, result.normals_model
        tangents = vertex_tangents(vertices[None], normals[None], model)[0]
        pngs, pictures = self.map_pngs[self.map_index()], self.map_pictures[self.map_index()]
        images = {
            "diffuse": pngs["diffuse"],
            "normal": pngs["normal"],
            "roughness": png(_metallic_roughness(pictures["roughness"])),
            "specular": png(_specular_alpha(pictures["specular"])),
        }
        content = glb(
            (vertices[model.uv_to_vertex] / 1000.0).numpy(),
            normals[model.uv_to_vertex].numpy(),
            whole_tangents(tangents.numpy(), normals[model.uv_to_vertex].numpy()),
            model.uv.numpy(),
            model.uv_triangles.numpy(),
            images,
            f"nextface {measures.version()}",
            f"{model.name}: {model.licence}",
            self._glb_camera(),
        )
        self.put(f"mesh{result.index}.glb", content)

    def _glb_camera(self) -> GlbCamera:
        """The photo's camera around the upright head. A view point is v = R p + t, so p = Rᵀ(v − t)."""
        scene, crop = self.result.scene, self.reconstruction.photo.crop
        rotation = scene.head_rotation()[0]
        position = -(rotation.T @ to_view(scene.translation[0])) / 1000.0
        angle = 2.0 * float(torch.atan(crop.full_height * crop.scale / 2.0 / scene.focal[0]))
        return GlbCamera(
            position.numpy(), roma.rotmat_to_unitquat(rotation.T).numpy(), angle, crop.full_width / crop.full_height
        )

    def write_camera(self) -> None:
        self.put_json(f"camera_{self.result.index}.json", measures.camera(self.result, self.reconstruction.photo))

    def write_envmap(self) -> None:
        config, i = self.reconstruction.config, self.result.index
        environment = light_map(self.result.scene.radiance()[0], config.env_map_res, config.smooth_sh)
        if config.save_exr:
            self.put(f"envMap_{i}.exr", light_exr(environment))
        else:
            self.put(f"envMap_{i}.png", light_png(environment))

    def write_strip(self) -> None:
        self.put(f"render_{self.result.index}.png", png(strip(self.reconstruction.photo.image, self.result.rendering)))

    def write_landmarks(self) -> None:
        self.put(f"landmarks{self.result.index}.png", png(self.landmarks))

    def write_overlay(self) -> None:
        self.put(f"overlay_{self.result.index}.jpg", frame.overlay(self.result, self.reconstruction.photo))

    def write_curves(self) -> None:
        for number, stage in enumerate(STAGES, start=1):
            losses = self.reconstruction.losses.get(stage)
            if losses:
                self.put(f"checkpoints/stage{number}_loss.png", png(loss_curve(losses, f"{stage} stage")))

    def write_turntable(self) -> None:
        self.gif = turntable(self.result, TURNTABLE_SIZE)
        self.put(f"turntable_{self.result.index}.gif", self.gif)

    def write_photo_texture(self) -> None:
        resolution = self.reconstruction.config.texture_resolution
        texture = frame.photo_texture(self.result, self.reconstruction.photo, resolution)
        self.put(f"photoTexture_{self.result.index}.png", png(texture))

    def write_report(self) -> None:
        pictures = self.map_pictures[self.map_index()]
        content = report(self.result, self.reconstruction, self.residuals, pictures, self.gif, jpeg(self.landmarks))
        self.put("report.html", content)

    def write_metrics(self) -> None:
        run, model = self.reconstruction, self.result.model
        numbers: dict[str, object] = {
            **run.report,
            "format": "nextface-metrics-1",
            "photo": run.photo.name,
            "faces_found": run.photo.faces,
            "model": {
                "name": model.name,
                "licence": model.licence,
                "vertices": len(model.mean),
                "triangles": len(model.triangles),
            },
            "seed": run.config.seed,
            "residuals": self.residuals,
            "losses": {
                stage: {"iterations": len(values), "first": values[0], "last": values[-1]}
                for stage, values in run.losses.items()
                if values
            },
            "light": _light_numbers(self.result.scene.radiance()[0]),
            "timings_seconds": {**run.timings, "export": dict(self.seconds)},
            "versions": measures.versions(),
            "settings": run.config.as_keys(),
        }
        self.put_json("metrics.json", numbers)


def _light_numbers(radiance: Tensor) -> dict[str, object]:
    """What an environment map in 8 bits cannot say: its mean and its peak, which may be above 1."""
    environment = light_map(radiance, 64, smooth=False)
    return {
        "mean_radiance": (radiance[0] / np.sqrt(4.0 * np.pi)).tolist(),
        "peak_radiance": environment.amax((0, 1)).tolist(),
    }


def _metallic_roughness(roughness: np.ndarray) -> np.ndarray:
    """glTF's packing: G = roughness, B = metallic = 0; R is unused. uint8 [T, T, 1] -> [T, T, 3]"""
    return np.pad(roughness, ((0, 0), (0, 0), (1, 1)))


def _specular_alpha(specular: np.ndarray) -> np.ndarray:
    """glTF's packing: A = Fresnel weight, over white. uint8 [T, T, 1] -> [T, T, 4]"""
    return np.pad(specular, ((0, 0), (0, 0), (3, 0)), constant_values=255)


SUBSETS: dict[str, Callable[[_Export], None]] = {
    "maps": _Export.write_maps,
    "mesh": _Export.write_mesh,
    "glb": _Export.write_glb,
    "camera": _Export.write_camera,
    "envmap": _Export.write_envmap,
    "strip": _Export.write_strip,
    "landmarks": _Export.write_landmarks,
    "overlay": _Export.write_overlay,
    "photo_texture": _Export.write_photo_texture,
    "curves": _Export.write_curves,
    "turntable": _Export.write_turntable,
    "report": _Export.write_report,
    "metrics": _Export.write_metrics,
}
"""Results by subset name, in writing order."""

DEFAULT = tuple(name for name in SUBSETS if name != "photo_texture")
