"""Binary glTF 2.0 with the whole skin material.

trimesh writes base colour and roughness but neither KHR_materials_specular nor KHR_materials_ior nor a camera, so the
container is written here: a JSON chunk and one binary chunk (Khronos glTF 2.0 specification, section 4).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

import numpy as np

_FLOAT, _USHORT, _UINT = 5126, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_BUFFER = 34962, 34963
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
REFRACTIVE_INDEX = 1.4


@dataclass(frozen=True)
class GlbCamera:
    """The photo's camera beside the head: glTF looks along -z with y up.

    position: metres, model axes. [3]; rotation: unit quaternion (x, y, z, w), camera to model. [4]
    vertical_angle: radians over the full frame's height; aspect: width / height of the full frame
    """

    position: np.ndarray
    rotation: np.ndarray
    vertical_angle: float
    aspect: float


class _Binary:
    """The binary chunk with its views and accessors."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, object]] = []

    def view(self, content: bytes, target: int | None = None) -> int:
        self.content.extend(b"\0" * (-len(self.content) % 4))
        entry = {"buffer": 0, "byteOffset": len(self.content), "byteLength": len(content)}
        if target is not None:
            entry["target"] = target
        self.content.extend(content)
        self.views.append(entry)
        return len(self.views) - 1

    def attribute(self, values: np.ndarray, bounds: bool = False) -> int:
        values = np.ascontiguousarray(values, dtype="<f4")
        accessor: dict[str, object] = {
            "bufferView": self.view(values.tobytes(), _ARRAY_BUFFER),
            "componentType": _FLOAT,
            "count": len(values),
            "type": _TYPES[values.shape[1]],
        }
        if bounds:
            accessor["min"] = values.min(0).tolist()
            accessor["max"] = values.max(0).tolist()
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def indices(self, triangles: np.ndarray, count: int) -> int:
        small = count < 65535
        flat = np.ascontiguousarray(triangles.reshape(-1), dtype="<u2" if small else "<u4")
        self.accessors.append(
            {
                "bufferView": self.view(flat.tobytes(), _ELEMENT_BUFFER),
                "componentType": _USHORT if small else _UINT,
                "count": len(flat),
                "type": "SCALAR",
            }
        )
        return len(self.accessors) - 1


def glb(
    vertices: np.ndarray,
    normals: np.ndarray,
    tangents: np.ndarray,
    uv: np.ndarray,
    triangles: np.ndarray,
    images: dict[str, bytes],
    generator: str,
    notice: str,
    camera: GlbCamera | None = None,
) -> bytes:
    """GLB bytes.

    vertices: metres, y up, the face looks along +z, one per uv vertex. [U, 3]; normals: unit. [U, 3]
    tangents: unit vectors along +u with the sign of the frame's handedness: (normal × tangent)·sign points along +v. [U, 4]
    uv: lower-left origin; v is flipped here, glTF's origin being the upper left. [U, 2]
    triangles: into the uv vertices, counter-clockwise from outside. [T, 3]
    images: PNG bytes: "diffuse" (sRGB), "roughness" (linear, G = roughness, B = metallic = 0), "normal" (linear, green up),
        "specular" (linear, A = Fresnel weight w)
    notice: licence of the model the mesh comes from.
    """
    binary = _Binary()
    attributes = {
        "POSITION": binary.attribute(vertices, bounds=True),
        "NORMAL": binary.attribute(normals),
        "TANGENT": binary.attribute(tangents),
        "TEXCOORD_0": binary.attribute(np.stack([uv[:, 0], 1.0 - uv[:, 1]], 1)),
    }
    indices = binary.indices(triangles, len(vertices))
    slots = {name: number for number, name in enumerate(images)}
    nodes: list[dict[str, object]] = [{"name": "head", "mesh": 0}]
    document: dict[str, object] = {
        "asset": {"version": "2.0", "generator": generator, "copyright": notice},
        "scene": 0,
        "scenes": [{"name": "reconstruction", "nodes": [0]}],
        "nodes": nodes,
        "meshes": [
            {
                "name": "head",
                "primitives": [{"attributes": attributes, "indices": indices, "material": 0, "mode": 4}],
            }
        ],
        "materials": [_skin(slots)],
        "textures": [{"sampler": 0, "source": number} for number in slots.values()],
        "images": [
            {"name": name, "mimeType": "image/png", "bufferView": binary.view(content)}
            for name, content in images.items()
        ],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "extensionsUsed": ["KHR_materials_ior", "KHR_materials_specular"],
    }
    if camera is not None:
        document["cameras"] = [
            {
                "name": "photo",
                "type": "perspective",
                "perspective": {"yfov": camera.vertical_angle, "aspectRatio": camera.aspect, "znear": 0.01},
            }
        ]
        nodes.append(
            {
                "name": "photo camera",
                "camera": 0,
                "translation": camera.position.tolist(),
                "rotation": camera.rotation.tolist(),
            }
        )
        document["scenes"] = [{"name": "reconstruction", "nodes": [0, 1]}]
    document["bufferViews"] = binary.views
    document["accessors"] = binary.accessors
    binary.content.extend(b"\0" * (-len(binary.content) % 4))
    document["buffers"] = [{"byteLength": len(binary.content)}]
    return _container(document, bytes(binary.content))


def whole_tangents(tangents: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Tangents with those of zero length, which glTF forbids, replaced by one across the normal. [U, 4]; normals: [U, 3]"""
    missing = np.linalg.norm(tangents[:, :3], axis=1) < 0.5
    across = np.cross([0.0, 1.0, 0.0], normals[missing])
    across[np.linalg.norm(across, axis=1) < 1e-3] = [1.0, 0.0, 0.0]
    tangents = tangents.copy()
    tangents[missing, :3] = across / np.linalg.norm(across, axis=1, keepdims=True)
    return tangents


def _skin(slots: dict[str, int]) -> dict[str, object]:
    """The material: dielectric of index 1.4 whose Fresnel weight is the specular map."""
    return {
        "name": "skin",
        "doubleSided": True,
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": slots["diffuse"]},
            "metallicRoughnessTexture": {"index": slots["roughness"]},
            "metallicFactor": 0.0,
            "roughnessFactor": 1.0,
        },
        "normalTexture": {"index": slots["normal"]},
        "extensions": {
            "KHR_materials_ior": {"ior": REFRACTIVE_INDEX},
            "KHR_materials_specular": {"specularFactor": 1.0, "specularTexture": {"index": slots["specular"]}},
        },
    }


def _container(document: dict[str, object], binary: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks
