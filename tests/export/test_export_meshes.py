"""OBJ, GLB and camera file: read back by other readers, upright, in place, and consistent with the photo's camera."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from io import BytesIO

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from nextface.export.glb import whole_tangents
from nextface.rendering.camera import Camera

_SIZES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_DTYPES = {5123: "<u2", 5125: "<u4", 5126: "<f4"}


class Glb:
    """A reader of its own: checks the container and every accessor against its buffer view."""

    def __init__(self, content: bytes) -> None:
        magic, version, length = struct.unpack_from("<4sII", content)
        assert (magic, version, length) == (b"glTF", 2, len(content))
        size, kind = struct.unpack_from("<I4s", content, 12)
        assert kind == b"JSON" and size % 4 == 0
        self.json = json.loads(content[20 : 20 + size])
        binary_size, kind = struct.unpack_from("<I4s", content, 20 + size)
        assert kind == b"BIN\0" and binary_size % 4 == 0 and 28 + size + binary_size == length
        self.binary = content[28 + size :]
        assert self.json["buffers"] == [{"byteLength": len(self.binary)}]
        end = 0
        for view in self.json["bufferViews"]:
            assert view["byteOffset"] % 4 == 0 and view["byteOffset"] >= end
            end = view["byteOffset"] + view["byteLength"]
        assert end <= len(self.binary)

    def view(self, number: int) -> bytes:
        view = self.json["bufferViews"][number]
        return self.binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]

    def accessor(self, number: int) -> np.ndarray:
        accessor = self.json["accessors"][number]
        values = np.frombuffer(self.view(accessor["bufferView"]), _DTYPES[accessor["componentType"]])
        values = values.reshape(accessor["count"], _SIZES[accessor["type"]])
        if "min" in accessor:
            np.testing.assert_array_equal(values.min(0), np.float32(accessor["min"]))
            np.testing.assert_array_equal(values.max(0), np.float32(accessor["max"]))
        return values

    def attribute(self, name: str) -> np.ndarray:
        return self.accessor(self.json["meshes"][0]["primitives"][0]["attributes"][name])

    def texture(self, slot: dict) -> Image.Image:
        image = self.json["images"][self.json["textures"][slot["index"]]["source"]]
        assert image["mimeType"] == "image/png"
        return Image.open(BytesIO(self.view(image["bufferView"])))


@pytest.fixture(scope="module")
def glb(folder) -> Glb:
    return Glb((folder / "mesh0.glb").read_bytes())


def full_frame(reconstruction) -> torch.Tensor:
    """Vertices in pixels of the original frame, by the scene's own camera. [V, 2]"""
    scene = reconstruction.scene
    return reconstruction.photo.crop.to_full(Camera.of(scene).project(scene.vertices_camera(reconstruction.model))[0])


def test_obj_is_the_posed_head_upright_before_the_camera(reconstruction, folder):
    scene, model = reconstruction.scene, reconstruction.model
    mesh = trimesh.load(folder / "mesh0.obj", process=False, maintain_order=True)
    camera_space = scene.vertices_camera(model)[0].numpy()
    lines = (folder / "mesh0.obj").read_text().splitlines()
    written = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    np.testing.assert_allclose(written, camera_space * (1, -1, -1), atol=1e-4)
    crown, chin = model.mean[:, 1].argmax(), model.mean[:, 1].argmin()
    nose = model.mean[:, 2].argmax()
    assert written[crown, 1] > written[chin, 1] + 150 and written[nose, 2] > written[:, 2].mean()
    assert (written[:, 2] < 0).all()
    assert len(mesh.faces) == len(model.triangles)
    outward = ((mesh.triangles_center - written.mean(0)) * mesh.face_normals).sum(1)
    assert (outward > 0).mean() > 0.98


def test_obj_has_uvs_normals_and_the_diffuse_map(reconstruction, folder):
    model = reconstruction.model
    lines = (folder / "mesh0.obj").read_text().splitlines()
    uv = np.array([line.split()[1:] for line in lines if line.startswith("vt ")], float)
    np.testing.assert_allclose(uv, model.uv.numpy(), atol=1e-6)
    normals = np.array([line.split()[1:] for line in lines if line.startswith("vn ")], float)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-3)
    corners = np.array(
        [[corner.split("/") for corner in line.split()[1:]] for line in lines if line.startswith("f ")], int
    )
    np.testing.assert_array_equal(corners[..., 0] - 1, model.triangles.numpy())
    np.testing.assert_array_equal(corners[..., 1] - 1, model.uv_triangles.numpy())
    np.testing.assert_array_equal(corners[..., 2], corners[..., 0])
    assert "mtllib material0.mtl" in lines
    material = (folder / "material0.mtl").read_text()
    assert "newmtl skin" in material and "usemtl skin" in lines
    named = [line.split()[1] for line in material.splitlines() if line.startswith("map_Kd")]
    assert named == ["diffuseMap_0.png"] and (folder / named[0]).is_file()


def test_glb_holds_the_mesh_in_metres_with_flipped_v(reconstruction, glb):
    scene, model = reconstruction.scene, reconstruction.model
    positions, uv = glb.attribute("POSITION"), glb.attribute("TEXCOORD_0")
    expected = scene.vertices_model(model)[0][model.uv_to_vertex].numpy() / 1000.0
    np.testing.assert_allclose(positions, expected, atol=1e-6)
    np.testing.assert_allclose(uv, model.uv.numpy() * (1, -1) + (0, 1), atol=1e-6)
    triangles = glb.accessor(glb.json["meshes"][0]["primitives"][0]["indices"]).reshape(-1, 3)
    np.testing.assert_array_equal(triangles, model.uv_triangles.numpy())
    normals, tangents = glb.attribute("NORMAL"), glb.attribute("TANGENT")
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(tangents[:, :3], axis=1), 1.0, atol=1e-4)
    assert set(np.unique(tangents[:, 3])) <= {-1.0, 1.0}


def test_glb_tangents_follow_the_unwrap(glb):
    """Tangents point where u grows on the surface, bitangents where v grows (both up in the picture: green up)."""
    positions, uv = glb.attribute("POSITION"), glb.attribute("TEXCOORD_0") * (1, -1)
    tangents, normals = glb.attribute("TANGENT"), glb.attribute("NORMAL")
    bitangents = np.cross(normals, tangents[:, :3]) * tangents[:, 3:]
    triangles = glb.accessor(glb.json["meshes"][0]["primitives"][0]["indices"]).reshape(-1, 3)
    a, b, c = triangles.T
    edges = np.stack([positions[b] - positions[a], positions[c] - positions[a]], 1)
    changes = np.stack([uv[b] - uv[a], uv[c] - uv[a]], 1)
    along_u, along_v = np.moveaxis(np.linalg.solve(changes, edges), 1, 0)
    assert ((along_u * tangents[a, :3]).sum(1) > 0).mean() > 0.99
    square = np.abs((along_u * along_v).sum(1)) < 0.5 * np.linalg.norm(along_u, axis=1) * np.linalg.norm(
        along_v, axis=1
    )
    assert square.mean() > 0.3
    assert ((along_v * bitangents[a]).sum(1) > 0)[square].mean() > 0.99


def test_glb_material_carries_every_map(reconstruction, glb, folder):
    assert set(glb.json["extensionsUsed"]) == {"KHR_materials_ior", "KHR_materials_specular"}
    (material,) = glb.json["materials"]
    metallic = material["pbrMetallicRoughness"]
    diffuse = np.asarray(glb.texture(metallic["baseColorTexture"]))
    np.testing.assert_array_equal(diffuse, np.asarray(Image.open(folder / "diffuseMap_0.png")))
    packed = np.asarray(glb.texture(metallic["metallicRoughnessTexture"]))
    np.testing.assert_array_equal(packed[..., 1], np.asarray(Image.open(folder / "roughnessMap_0.png")))
    assert metallic["metallicFactor"] == 0.0 and not packed[..., 2].any()
    normal = np.asarray(glb.texture(material["normalTexture"]))
    np.testing.assert_array_equal(normal, np.asarray(Image.open(folder / "normalMap_0.png")))
    extensions = material["extensions"]
    assert extensions["KHR_materials_ior"] == {"ior": 1.4}
    specular = np.asarray(glb.texture(extensions["KHR_materials_specular"]["specularTexture"]))
    np.testing.assert_array_equal(specular[..., 3], np.asarray(Image.open(folder / "specularMap_0.png")))


def test_glb_camera_sees_the_photo(reconstruction, glb):
    node = next(node for node in glb.json["nodes"] if "camera" in node)
    lens = glb.json["cameras"][node["camera"]]["perspective"]
    x, y, z, w = node["rotation"]
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    seen = (glb.attribute("POSITION") - node["translation"]) @ rotation
    crop = reconstruction.photo.crop
    scale = crop.full_height / 2 / np.tan(lens["yfov"] / 2)
    pixels = seen[:, :2] * (1, -1) / -seen[:, 2:] * scale + (crop.full_width / 2, crop.full_height / 2)
    expected = full_frame(reconstruction)[reconstruction.model.uv_to_vertex].numpy()
    np.testing.assert_allclose(pixels, expected, atol=0.05)
    assert lens["aspectRatio"] == pytest.approx(crop.full_width / crop.full_height)


def test_glb_opens_in_trimesh(reconstruction, folder):
    scene = trimesh.load(folder / "mesh0.glb")
    (mesh,) = scene.geometry.values()
    assert len(mesh.faces) == len(reconstruction.model.triangles)
    assert mesh.visual.material.baseColorTexture.size == (256, 256)


def test_glb_passes_the_khronos_validator(folder):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    program = (
        "const validator = require('gltf-validator'), fs = require('fs');"
        "validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))"
        ".then(report => console.log(JSON.stringify(report.issues)))"
    )
    if subprocess.run([node, "-e", "require.resolve('gltf-validator')"], capture_output=True).returncode:
        pytest.skip("the node package gltf-validator is not installed (npm install gltf-validator, or set NODE_PATH)")
    done = subprocess.run([node, "-e", program, str(folder / "mesh0.glb")], capture_output=True, text=True, check=True)
    issues = json.loads(done.stdout)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


def test_missing_tangents_are_replaced_by_unit_ones():
    tangents = np.array([[0, 0, 0, 1], [0, 0, 0, -1], [1, 0, 0, 1]], np.float32)
    normals = np.array([[0, 0, 1], [0, 1, 0], [0, 0, 1]], np.float32)
    whole = whole_tangents(tangents, normals)
    np.testing.assert_allclose(np.linalg.norm(whole[:, :3], axis=1), 1.0)
    np.testing.assert_allclose((whole[:, :3] * normals).sum(1), 0.0, atol=1e-6)
    np.testing.assert_array_equal(whole[:, 3], tangents[:, 3])


def test_camera_file_alone_places_the_head_in_the_frame(reconstruction, folder):
    camera = json.loads((folder / "camera_0.json").read_text())
    pose = np.array(camera["head"]["model_to_camera"])
    points = reconstruction.scene.vertices_model(reconstruction.model)[0].numpy() @ pose[:3, :3].T + pose[:3, 3]
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0, abs=1e-5)
    for name, expected in (
        ("intrinsics_full_frame", full_frame(reconstruction)),
        ("intrinsics_crop", reconstruction.photo.crop.to_crop(full_frame(reconstruction))),
    ):
        lens = camera[name]
        pixels = points[:, :2] / points[:, 2:] * (lens["fx"], lens["fy"]) + (lens["cx"], lens["cy"])
        np.testing.assert_allclose(pixels, expected.numpy(), atol=0.02)


@pytest.mark.parametrize(
    ("axis", "angle"), [("yaw", (0.0, 0.3, 0.0)), ("pitch", (-0.3, 0.0, 0.0)), ("roll", (0.0, 0.0, 0.3))]
)
def test_head_angles_have_the_documented_signs(axis, angle):
    import roma

    from nextface.export.measures import head_angles

    angles = head_angles(roma.rotvec_to_rotmat(torch.tensor(angle)))
    assert angles[axis] == pytest.approx(np.degrees(0.3), abs=1e-3)
    assert all(abs(value) < 1e-3 for name, value in angles.items() if name != axis)
