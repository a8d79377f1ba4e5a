"""Numbers about a reconstruction: its camera, how well it explains the photo, what made it."""

from __future__ import annotations

import math
import platform
from importlib import metadata

import torch
from torch import Tensor

from nextface.color import linear_to_srgb
from nextface.export.result import PhotoResult
from nextface.photo import Photo
from nextface.rendering.camera import Camera
from nextface.rendering.render import to_view

CAMERA_CONVENTIONS = {
    "camera_axes": "OpenCV: x right, y down, z forward; millimetres",
    "model_axes": "x to the subject's left, y up, z out of the face; millimetres",
    "pixels": "origin at the upper left corner of the image, pixel centres at .5",
    "intrinsics": "x_px = fx * X / Z + cx, y_px = fy * Y / Z + cy",
    "model_to_camera": "4x4, row by row, column vectors: [X Y Z 1] = M * [x y z 1]",
    "angles_deg": "yaw: nose towards the right of the picture; pitch: nose up; roll: head turned counter-clockwise in the picture",
    "mesh.obj": "camera space with y and z negated: x right, y up, z to the viewer, camera at the origin; millimetres",
}
_PACKAGES = ("torch", "numpy", "scipy", "numba", "mediapipe", "safetensors", "pillow", "h5py", "roma")


def camera(result: PhotoResult, photo: Photo) -> dict[str, object]:
    """Intrinsics of the crop and of the full frame, and the head's pose, with the conventions beside them."""
    scene, crop = result.scene, photo.crop
    focal, principal = float(scene.focal[0]), scene.principal[0]
    focal_full, centre = focal / crop.scale, crop.to_full(principal).tolist()
    view = scene.head_rotation()[0]
    rotation = to_view(view.T).T
    pose = torch.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, scene.translation[0]
    return {
        "photo": photo.name,
        "conventions": CAMERA_CONVENTIONS,
        "crop": {"left": crop.left, "top": crop.top, "scale": crop.scale, "width": crop.width, "height": crop.height},
        "intrinsics_crop": _intrinsics(focal, principal.tolist(), crop.width, crop.height),
        "intrinsics_full_frame": _intrinsics(focal_full, centre, crop.full_width, crop.full_height),
        "head": {
            "model_to_camera": pose.tolist(),
            "rotation_vector_view": scene.rotation[0].tolist(),
            "translation_mm": scene.translation[0].tolist(),
            "angles_deg": head_angles(view),
        },
    }


def _intrinsics(focal: float, principal: list[float], width: int, height: int) -> dict[str, float]:
    return {
        "width": width,
        "height": height,
        "fx": focal,
        "fy": focal,
        "cx": principal[0],
        "cy": principal[1],
        "vertical_field_of_view_deg": math.degrees(2.0 * math.atan2(height / 2.0, focal)),
    }


def head_angles(rotation: Tensor) -> dict[str, float]:
    """Yaw, pitch and roll in degrees of a rotation in the view frame, R = Ry(yaw)·Rx(−pitch)·Rz(roll). [3, 3]"""
    forward = rotation[:, 2]
    return {
        "yaw": math.degrees(math.atan2(forward[0], forward[2])),
        "pitch": math.degrees(math.asin(max(-1.0, min(1.0, float(forward[1]))))),
        "roll": math.degrees(math.atan2(rotation[1, 0], rotation[1, 1])),
    }


def residuals(result: PhotoResult, photo: Photo) -> dict[str, float | None]:
    """How far the reconstruction is from the photo, on covered and valid pixels; sRGB-encoded values in 0..1."""
    mask = result.rendering.mask[0] & photo.valid
    numbers: dict[str, float | None] = {"covered_pixels": int(mask.sum())}
    if mask.any():
        difference = linear_to_srgb(result.rendering.image[0][mask]) - linear_to_srgb(photo.image[mask])
        squared = float(difference.square().mean())
        numbers["mean_absolute_error"] = float(difference.abs().mean())
        numbers["median_absolute_error"] = float(difference.abs().median())
        numbers["psnr_db"] = -10.0 * math.log10(max(squared, 1e-10))
    numbers["landmarks_rms_px"] = _landmark_error(result, photo)
    return numbers


def _landmark_error(result: PhotoResult, photo: Photo) -> float | None:
    """Root mean square distance in crop pixels between detected landmarks and the model's; the nearest candidate counts."""
    embedding = result.model.landmarks.get(photo.landmarks.convention)
    if embedding is None:
        return None
    order = {int(number): row for row, number in enumerate(photo.landmarks.index.tolist())}
    pairs = [(row, order[number]) for row, number in enumerate(embedding.index.tolist()) if number in order]
    if not pairs:
        return None
    ours, theirs = (torch.tensor(column) for column in zip(*pairs, strict=True))
    corners = result.model.triangles[embedding.triangle[ours]]
    points = (result.vertices_camera[corners] * embedding.barycentric[ours][..., None]).sum(2)
    projected = Camera.of(result.scene).project(points.flatten(0, 1)[None])[0].unflatten(0, points.shape[:2])
    distance = (projected - photo.landmarks.points[theirs][:, None]).norm(dim=-1).amin(1)
    return float(distance.square().mean().sqrt())


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the packages that influence the numbers."""
    found = {"nextface": version(), "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def version() -> str:
    """Of this package; a checkout that was never installed has none."""
    try:
        return metadata.version("nextface")
    except metadata.PackageNotFoundError:
        return "unreleased"
