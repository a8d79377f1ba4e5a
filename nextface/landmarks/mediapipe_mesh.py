"""MediaPipe behind two questions: where are faces in this window, and where are the mesh points of this one.

Two ways in: the models inside the wheel (`mp.solutions`, up to 0.10.21, offline), or a user's `face_landmarker.task`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nextface.errors import ConfigError, MissingPackageError
from nextface.landmarks.quiet import quiet_stderr

SCORE = 0.5
FULL_RANGE = 1
"""MediaPipe's `model_selection` of the face detector that finds small faces too."""


class MeshBackend(Protocol):
    """smallest: side of the smallest face that `boxes` finds reliably, as a share of the window's side."""

    smallest: float

    def boxes(self, rgb: np.ndarray) -> np.ndarray:
        """Faces of a window `[H, W, 3]` uint8: left, top, right, bottom, pixels. [N, 4]"""
        ...

    def mesh(self, rgb: np.ndarray) -> np.ndarray | None:
        """Mesh points of the face that fills about half of the window, pixels. [478, 2]"""
        ...


class SolutionsMesh:
    """The detector and the mesh network that lie in MediaPipe's wheel."""

    smallest = 0.06

    def __init__(self) -> None:
        solutions = _mediapipe().solutions
        with quiet_stderr():  # the first run too: it loads in threads that log late
            self._finder = solutions.face_detection.FaceDetection(
                model_selection=FULL_RANGE, min_detection_confidence=SCORE
            )
            self._mesher = solutions.face_mesh.FaceMesh(
                static_image_mode=True,
                max_num_faces=1,
                refine_landmarks=True,
                min_detection_confidence=0.3,
                min_tracking_confidence=SCORE,
            )
            blank = np.zeros((192, 192, 3), np.uint8)
            self._finder.process(blank)
            self._mesher.process(blank)

    def boxes(self, rgb: np.ndarray) -> np.ndarray:
        with quiet_stderr():
            found = self._finder.process(rgb).detections or []
        boxes = [detection.location_data.relative_bounding_box for detection in found]
        corners = [(box.xmin, box.ymin, box.xmin + box.width, box.ymin + box.height) for box in boxes]
        return np.array(corners, np.float64).reshape(-1, 4) * np.tile(rgb.shape[1::-1], 2)

    def mesh(self, rgb: np.ndarray) -> np.ndarray | None:
        with quiet_stderr():
            found = self._mesher.process(rgb).multi_face_landmarks
        return _pixels(found[0].landmark, rgb) if found else None


class TaskMesh:
    """A `face_landmarker.task` through the Tasks API, which newer releases of MediaPipe have alone."""

    smallest = 0.2

    def __init__(self, model: Path | str) -> None:
        model = Path(model)
        mediapipe = _mediapipe()
        try:
            data = model.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"landmarksModel = {model} cannot be read ({error.strerror}); give a face_landmarker.task"
            ) from error
        tasks = mediapipe.tasks
        options = tasks.vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_buffer=data),
            num_faces=20,
            min_face_detection_confidence=SCORE,
            min_face_presence_confidence=SCORE,
        )
        try:
            with quiet_stderr():
                self._landmarker = tasks.vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise _wrong_task(model, error) from error
        self._model = model
        self._image = mediapipe.Image
        self._format = mediapipe.ImageFormat.SRGB

    def _all(self, rgb: np.ndarray) -> list[np.ndarray]:
        image = self._image(image_format=self._format, data=np.ascontiguousarray(rgb))
        try:
            with quiet_stderr():
                result = self._landmarker.detect(image)
        except RuntimeError as error:
            raise _wrong_task(self._model, error) from error
        return [_pixels(face, rgb) for face in result.face_landmarks]

    def boxes(self, rgb: np.ndarray) -> np.ndarray:
        corners = [np.concatenate([points.min(0), points.max(0)]) for points in self._all(rgb)]
        return np.array(corners, np.float64).reshape(-1, 4)

    def mesh(self, rgb: np.ndarray) -> np.ndarray | None:
        faces = self._all(rgb)
        return max(faces, key=lambda points: np.ptp(points, 0).max()) if faces else None


def _wrong_task(model: Path, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())[:120]
    return ConfigError(f"landmarksModel = {model} is not a face_landmarker.task that works ({reason})")


def _pixels(points: Any, rgb: np.ndarray) -> np.ndarray:
    height, width = rgb.shape[:2]
    return np.array([(point.x * width, point.y * height) for point in points], np.float64)


@cache
def _mediapipe() -> Any:
    try:
        with quiet_stderr():
            import mediapipe
    except ImportError as error:
        raise MissingPackageError(
            f"landmark detection needs MediaPipe ({error}): pip install mediapipe==0.10.21, or give --landmarks FILE"
        ) from error
    return mediapipe


@cache
def wheel_mesh() -> SolutionsMesh:
    """The shared instance of the wheel's networks; loading them takes a second."""
    if not hasattr(_mediapipe(), "solutions"):
        raise MissingPackageError(
            "this release of MediaPipe carries no models: pip install mediapipe==0.10.21, or set landmarksModel to a "
            "face_landmarker.task"
        )
    return SolutionsMesh()
