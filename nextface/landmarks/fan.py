"""The 68 points of the package face-alignment (FAN, projected 3D landmarks). Its library downloads its weights itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nextface.errors import InputError, MissingPackageError
from nextface.landmarks.points import Landmarks
from nextface.landmarks.search import MediapipeDetector

INSTALL = "pip install scikit-image==0.25.2, then pip install --no-deps face-alignment==1.5.0"
"""Without its dependencies: they hold opencv-python, a second `cv2` that overwrites MediaPipe's."""


class FanDetector:
    """FAN's points within the faces that MediaPipe finds: its own face detector takes minutes on a large photo."""

    convention = "fan"

    def __init__(self, finder: MediapipeDetector) -> None:
        self.finder = finder
        self._network = _network()

    def faces(self, rgb: np.ndarray) -> list[Landmarks]:
        """All faces found in an upright sRGB image `[H, W, 3]` uint8; points in its pixels."""
        found = self.finder.faces(rgb)
        if not found:
            return []
        boxes = [np.array([*face.box, 1.0]) for face in found]
        meshes = self._network.get_landmarks_from_image(rgb, detected_faces=boxes) or []
        faces = [
            Landmarks(
                convention=self.convention,
                index=torch.arange(68),
                points=torch.from_numpy(np.asarray(points, np.float32)[:, :2] + 0.5),
                confidence=torch.ones(68),
            )
            for points in meshes
        ]
        return sorted(faces, key=lambda face: -face.size)


def _network() -> Any:
    try:
        import face_alignment
    except ImportError as error:
        raise MissingPackageError(
            f"landmarksDetectorType = fan needs the package face-alignment ({error}): {INSTALL}; or set it to mediapipe"
        ) from error
    types = face_alignment.LandmarksType
    kind = types.THREE_D if hasattr(types, "THREE_D") else types._3D
    try:
        return face_alignment.FaceAlignment(kind, device="cpu", flip_input=False)
    except OSError as error:  # includes urllib's URLError
        raise InputError(
            f"face-alignment could not fetch its weights ({error}); connect once, or set landmarksDetectorType to mediapipe"
        ) from error
