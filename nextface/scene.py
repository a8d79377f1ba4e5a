"""Every unknown of the problem, batched over images. Nothing else owns parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import roma
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nextface.constants import constant
from nextface.errors import InputError, OutputError
from nextface.morphable.model import MorphableModel
from nextface.textures import MAP_CHANNELS, LaplacianTexture, SkinMaps

FORMAT = "nextface-scene-1"
_TENSORS = (
    "shape",
    "albedo",
    "expression",
    "rotation",
    "translation",
    "focal",
    "principal",
    "light",
    "exposure",
    "white_balance",
)


@dataclass
class Scene:
    """Pose, identity, expression, reflectance, camera and light of B photos.

    Identity rows are B, or 1 when all photos show one person.

    shape:         coefficients, standard deviations. [B|1, Ks]
    albedo:        coefficients of diffuse and specular albedo. [B|1, Ka]
    expression:    [B, Ke]
    rotation:      rotation vector in the view frame (x right, y up, z to the viewer), radians; 0 faces the camera. [B, 3]
    translation:   place of the model's origin in camera space (OpenCV axes), millimetres. [B, 3]
    focal:         pixels of the crop. [B]
    principal:     principal point (x, y), pixels of the crop, often outside it. [B, 2]
    light:         SH coefficients of the environment's radiance in the view frame, before gain. [B, L, 3]
    exposure:      log of the gain common to all channels. [B]
    white_balance: logs of the red and blue gains relative to green. [B, 2]
    height, width: of the crop in pixels, of the largest in each direction where the photos differ
    maps:          skin maps once the maps stage has begun
    sizes:         (height, width) of each photo's own crop, the upper left part of the common frame; () where all fill it
    """

    shape: Tensor
    albedo: Tensor
    expression: Tensor
    rotation: Tensor
    translation: Tensor
    focal: Tensor
    principal: Tensor
    light: Tensor
    exposure: Tensor
    white_balance: Tensor
    height: int
    width: int
    maps: SkinMaps | None = None
    sizes: tuple[tuple[int, int], ...] = ()

    @property
    def batch(self) -> int:
        return self.rotation.shape[0]

    @property
    def bands(self) -> int:
        return round(self.light.shape[1] ** 0.5)

    @property
    def device(self) -> torch.device:
        return self.rotation.device

    def head_rotation(self) -> Tensor:
        """Rotation of the head in the view frame. [B, 3, 3]"""
        return roma.rotvec_to_rotmat(self.rotation)

    def vertices_model(self, model: MorphableModel) -> Tensor:
        """Vertices in model space, mm. [B, V, 3]"""
        return model.vertices(self.shape.expand(self.batch, -1), self.expression)

    def vertices_camera(self, model: MorphableModel) -> Tensor:
        """Vertices in camera space (x right, y down, z forward), mm. [B, V, 3]"""
        return to_camera(self.vertices_model(model), self.head_rotation(), self.translation)

    def gain(self) -> Tensor:
        """Exposure times white balance per channel. [B, 3]"""
        red, blue = self.white_balance.unbind(-1)
        return torch.stack([self.exposure + red, self.exposure, self.exposure + blue], -1).exp()

    def radiance(self) -> Tensor:
        """SH coefficients of the light as the photo's exposure records it. [B, L, 3]"""
        return self.light * self.gain()[:, None, :]

    def to(self, device: torch.device | str) -> Scene:
        moved = {name: getattr(self, name).to(device) for name in _TENSORS}
        return replace(self, **moved, maps=None if self.maps is None else self.maps.to(device))

    def detached(self) -> Scene:
        """A copy whose tensors share nothing with this one and carry no gradient."""
        copied = {name: getattr(self, name).detach().clone() for name in _TENSORS}
        maps = self.maps
        if maps is not None:
            textures = {
                name: LaplacianTexture([level.detach().clone() for level in texture.levels])
                for name, texture in maps.textures().items()
            }
            maps = SkinMaps(**textures, confidence=maps.confidence.detach().clone())
        return replace(self, **copied, maps=maps)

    def finite(self) -> Tensor:
        """Photos all of whose values are finite. [B] bool"""
        rows = [torch.isfinite(tensor).reshape(len(tensor), -1).all(1) for tensor in self._rows().values()]
        return torch.stack([row.expand(self.batch) for row in rows]).all(0)

    def is_finite(self) -> bool:
        return bool(self.finite().all())

    def select(self, index: int) -> Scene:
        """Photo `index` alone, at its own size, sharing nothing with this scene."""
        height, width = self.sizes[index] if self.sizes else (self.height, self.width)
        tensors = {name: _row(getattr(self, name), index) for name in _TENSORS}
        maps = self.maps
        if maps is not None:
            textures = {
                name: LaplacianTexture([_row(level, index) for level in texture.levels])
                for name, texture in maps.textures().items()
            }
            maps = SkinMaps(**textures, confidence=_row(maps.confidence, index))
        return replace(self, **tensors, height=height, width=width, maps=maps, sizes=())

    @classmethod
    def join(cls, scenes: Sequence[Scene]) -> Scene:
        """Several scenes as one batch, crops padded on the right and below; `select` takes it apart again.

        Either all have maps, of one resolution, or none has. Shared identities become a row per photo.
        """

        def joined(tensors: Sequence[Tensor]) -> Tensor:
            rows = zip(tensors, scenes, strict=True)
            return torch.cat([tensor.expand(scene.batch, *tensor.shape[1:]) for tensor, scene in rows])

        first, sizes = scenes[0], [size for scene in scenes for size in scene.own_sizes()]
        maps = None
        given = [scene.maps for scene in scenes if scene.maps is not None]
        if given:
            textures = {}
            for name in MAP_CHANNELS:
                levels = zip(*(each.textures()[name].levels for each in given), strict=True)
                textures[name] = LaplacianTexture([joined(level) for level in levels])
            maps = SkinMaps(**textures, confidence=joined([each.confidence for each in given]))
        height, width = (max(size[side] for size in sizes) for side in (0, 1))
        return replace(
            first,
            **{name: joined([getattr(scene, name) for scene in scenes]) for name in _TENSORS},
            height=height,
            width=width,
            maps=maps,
            sizes=() if set(sizes) == {(height, width)} else tuple(sizes),
        )

    def own_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each photo's own crop."""
        return self.sizes or ((self.height, self.width),) * self.batch

    def state(self) -> dict[str, Tensor]:
        """All tensors by name, the maps' levels as `maps.<name>.<level>`."""
        return {name: tensor.detach().contiguous() for name, tensor in self._rows().items()}

    def _rows(self) -> dict[str, Tensor]:
        tensors = {name: getattr(self, name) for name in _TENSORS}
        if self.maps is not None:
            tensors["maps.confidence"] = self.maps.confidence
            for name, texture in self.maps.textures().items():
                for number, level in enumerate(texture.levels):
                    tensors[f"maps.{name}.{number}"] = level
        return tensors

    def save(self, path: Path | str, **notes: object) -> None:
        """Write a safetensors file; `notes` (JSON values) travel in its header beside size and format."""
        header = {"format": FORMAT, "height": self.height, "width": self.width, "sizes": self.sizes, **notes}
        path = Path(path)
        partial = path.with_suffix(path.suffix + ".part")
        try:
            save_file(
                {name: tensor.cpu() for name, tensor in self.state().items()},
                str(partial),
                metadata={"nextface": json.dumps(header)},
            )
            partial.replace(path)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise OutputError(
                f"{path}: the scene could not be saved ({error}); check the folder and the free space"
            ) from error

    @classmethod
    def load(cls, path: Path | str) -> tuple[Scene, dict[str, object]]:
        """Read a scene and its header. Raises InputError for any file that `save` did not write."""
        path = Path(path)
        try:
            with safe_open(str(path), framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("nextface", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError, ValueError) as error:
            raise InputError(
                f"{path}: not a saved scene ({error}); give a .safetensors file from a result's checkpoints folder"
            ) from error
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            found = header.get("format") if isinstance(header, dict) else header
            raise _unreadable(path, f"format {found!r}, expected {FORMAT!r}")
        missing = [name for name in _TENSORS if name not in tensors]
        missing += [name for name in ("height", "width") if not isinstance(header.get(name), int)]
        sizes = header.get("sizes", [])
        if not (isinstance(sizes, list) and all(_is_size(size) for size in sizes)):
            missing.append("usable sizes")
        if missing:
            raise _unreadable(path, f"lacks {', '.join(missing)}")
        maps = None
        if "maps.confidence" in tensors:
            textures = {}
            for name in MAP_CHANNELS:
                levels: list[Tensor] = []
                while f"maps.{name}.{len(levels)}" in tensors:
                    levels.append(tensors[f"maps.{name}.{len(levels)}"])
                if not levels or levels[-1].shape[1] != tensors["maps.confidence"].shape[1]:
                    raise _unreadable(path, f"lacks levels of maps.{name}")
                textures[name] = LaplacianTexture(levels)
            maps = SkinMaps(**textures, confidence=tensors["maps.confidence"])
        scene = cls(
            **{name: tensors[name] for name in _TENSORS},
            height=header["height"],
            width=header["width"],
            maps=maps,
            sizes=tuple((height, width) for height, width in sizes),
        )
        return scene, header


def _unreadable(path: Path, what: str) -> InputError:
    return InputError(f"{path}: not a scene that this version can read ({what}); run the reconstruction again")


def _is_size(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(side, int) for side in value)


def _row(tensor: Tensor, index: int) -> Tensor:
    """Row `index` of a batched tensor, or the one row that all share, as a batch of one."""
    index = min(index, tensor.shape[0] - 1)
    return tensor[index : index + 1].clone()


def to_camera(vertices: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Model space to camera space.

    vertices: [B, V, 3] mm; rotation: view frame, [B, 3, 3]; translation: camera axes, [B, 3] mm -> [B, V, 3].
    """
    view = vertices @ rotation.mT
    return view * constant((1.0, -1.0, -1.0), view) + translation[:, None, :]
