"""From a photo on disk to the crop of its largest face with landmarks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nextface.config import OptimConfig
from nextface.errors import ConfigError, NoFaceError
from nextface.landmarks.files import read_landmarks
from nextface.landmarks.points import Landmarks

if TYPE_CHECKING:
    from nextface.photo import Photo, SourcePhoto

logger = logging.getLogger(__name__)


class Detector(Protocol):
    """convention: which points `faces` gives, a key of `points.POINT_COUNTS`."""

    convention: str

    def faces(self, rgb: np.ndarray) -> list[Landmarks]:
        """All faces of an upright sRGB image `[H, W, 3]` uint8, largest first; points in its pixels."""
        ...


def detector(kind: str, model: str = "") -> Detector:
    """The detector of a name ('mediapipe' or 'fan'); model: a face_landmarker.task, empty = the wheel's models."""
    from nextface.landmarks.fan import FanDetector
    from nextface.landmarks.mediapipe_mesh import TaskMesh, wheel_mesh
    from nextface.landmarks.search import MediapipeDetector

    if kind not in ("mediapipe", "fan"):
        raise ConfigError(f"landmarksDetectorType = {kind} is not possible; it takes one of mediapipe, fan")
    finder = MediapipeDetector(TaskMesh(model) if model else wheel_mesh())
    return finder if kind == "mediapipe" else FanDetector(finder)


def detect(source: SourcePhoto, kind: str = "mediapipe", file: Path | None = None, model: str = "") -> list[Landmarks]:
    """Landmarks of every face found, the largest face first, in pixels of the full frame.

    file: landmarks that replace detection. Raises NoFaceError when there is no face.
    """
    if file is not None:
        return [read_landmarks(file)]
    faces = detector(kind, model).faces(source.srgb8())
    if not faces:
        raise NoFaceError(
            f"{source.path}: no face was found; give a photo with a visible face, or its landmarks with --landmarks FILE"
        )
    if len(faces) > 1:
        left, top, right, bottom = faces[0].box
        logger.warning(
            "%s: %d faces; the largest is fitted (%.0f x %.0f pixels at %.0f, %.0f), crop the photo to fit another",
            source.path.name, len(faces), right - left, bottom - top, left, top,
        )  # fmt: skip
    return faces


def read_photo(path: Path | str, config: OptimConfig, landmarks_file: Path | None = None) -> Photo:
    """Read a photo, find its largest face and crop to it at maxResolution."""
    from nextface.photo import crop_to_face, load_image

    source = load_image(path)
    faces = detect(source, config.landmarks_detector_type, landmarks_file, config.landmarks_model)
    return crop_to_face(source, faces[0], config.max_resolution, len(faces))
