"""The meshes as Blender imports them: upright, facing the front view, with their maps. Runs where Blender is installed."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

SCRIPT = """
import bpy, json, sys
source = sys.argv[-1]
bpy.ops.wm.read_factory_settings(use_empty=True)
if source.endswith(".glb"):
    bpy.ops.import_scene.gltf(filepath=source)
else:
    bpy.ops.wm.obj_import(filepath=source)
head = next(item for item in bpy.data.objects if item.type == "MESH")
nodes = head.active_material.node_tree
skin = next(node for node in nodes.nodes if node.type == "BSDF_PRINCIPLED")
def feeding(socket):
    while socket.links:
        node = socket.links[0].from_node
        if node.type == "TEX_IMAGE":
            return [*node.image.size, node.image.colorspace_settings.name]
        socket = next(item for item in node.inputs if item.links)
    return None
print("FOUND" + json.dumps({
    "points": [list(head.matrix_world @ vertex.co) for vertex in head.data.vertices],
    "triangles": len(head.data.polygons),
    "maps": {name: feeding(skin.inputs[name]) for name in ("Base Color", "Roughness", "Normal")},
    "cameras": sum(item.type == "CAMERA" for item in bpy.data.objects),
}))
"""


def opened(path) -> dict:
    blender = shutil.which("blender")
    if blender is None:
        pytest.skip("blender is not installed")
    done = subprocess.run(
        [blender, "-b", "--factory-startup", "--python-use-system-env", "--python-expr", SCRIPT, "--", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if path.suffix == ".glb" and "numpy" in done.stderr + done.stdout and "FOUND" not in done.stdout:
        pytest.skip("this Blender's own Python has no numpy that its glTF importer can use")
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    assert lines, done.stdout + done.stderr
    return json.loads(lines[0].removeprefix("FOUND"))


def test_obj_in_blender(reconstruction, folder):
    """Blender's z is up and its front view looks along +y."""
    found, model = opened(folder / "mesh0.obj"), reconstruction.model
    x, y, z = np.array(found["points"]).T
    mean = model.mean.numpy()
    assert len(x) == len(mean) and found["triangles"] == len(model.triangles)
    assert z[mean[:, 1].argmax()] > z[mean[:, 1].argmin()] + 150
    assert y[mean[:, 2].argmax()] < y.mean() < y[mean[:, 2].argmin()]
    assert x[mean[:, 0].argmax()] > x[mean[:, 0].argmin()] + 100
    assert found["maps"]["Base Color"] == [256, 256, "sRGB"]


def test_glb_in_blender(reconstruction, folder):
    found, model = opened(folder / "mesh0.glb"), reconstruction.model
    points = np.array(found["points"])
    expected = reconstruction.scene.vertices_model(model)[0].numpy() / 1000.0
    np.testing.assert_allclose(points.min(0), (expected * (1, 1, -1)).min(0)[[0, 2, 1]], atol=1e-5)
    np.testing.assert_allclose(points.max(0), (expected * (1, 1, -1)).max(0)[[0, 2, 1]], atol=1e-5)
    assert found["triangles"] == len(model.triangles) and found["cameras"] == 1
    assert found["maps"]["Base Color"] == [256, 256, "sRGB"]
    assert found["maps"]["Roughness"] == found["maps"]["Normal"] == [256, 256, "Non-Color"]
