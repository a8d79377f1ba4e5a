"""face-alignment and MediaPipe's Tasks API, as far as they go without their downloaded weights."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nextface.errors import ConfigError, InputError, MissingPackageError
from nextface.landmarks import detector
from nextface.landmarks.mediapipe_mesh import SolutionsMesh, TaskMesh, wheel_mesh
from nextface.landmarks.search import MediapipeDetector


def fake_face_alignment(monkeypatch, fail=None, old=False):
    """A stand-in with the library's interface that puts 68 points into the given box."""

    class FaceAlignment:
        def __init__(self, kind, device, flip_input):
            assert (kind, device) == (3, "cpu")
            if fail is not None:
                raise fail

        def get_landmarks_from_image(self, image, detected_faces):
            assert image.dtype == np.uint8
            return [
                np.stack([np.linspace(box[0], box[2], 68), np.linspace(box[1], box[3], 68), np.zeros(68)], -1)
                for box in detected_faces
            ]

    types = SimpleNamespace(_3D=3) if old else SimpleNamespace(THREE_D=3)
    module = SimpleNamespace(FaceAlignment=FaceAlignment, LandmarksType=types)
    monkeypatch.setitem(sys.modules, "face_alignment", module)


@pytest.mark.parametrize("old", [False, True])
def test_fan_points_lie_in_the_found_face(monkeypatch, portrait, portrait_points, old):
    fake_face_alignment(monkeypatch, old=old)
    (face,) = detector("fan").faces(portrait)
    assert face.convention == "fan" and face.points.shape == (68, 2)
    np.testing.assert_allclose(face.box[:2], portrait_points.min(0) + 0.5, atol=1.0)
    assert detector("fan").faces(np.zeros((64, 64, 3), np.uint8)) == []


def test_fan_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    with pytest.raises(MissingPackageError, match="pip install --no-deps face-alignment==") as caught:
        detector("fan")
    assert caught.value.exit_code == 5


def test_fan_without_network(monkeypatch):
    fake_face_alignment(monkeypatch, fail=OSError("no route"))
    with pytest.raises(InputError, match="could not fetch its weights"):
        detector("fan")


def test_mediapipe_is_not_installed(monkeypatch):
    from nextface.landmarks import mediapipe_mesh

    mediapipe_mesh._mediapipe.cache_clear()
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingPackageError, match="pip install mediapipe==0.10.21"):
        mediapipe_mesh._mediapipe()


def test_release_without_models(monkeypatch):
    from nextface.landmarks import mediapipe_mesh

    monkeypatch.setattr(mediapipe_mesh, "_mediapipe", lambda: SimpleNamespace())
    wheel_mesh.cache_clear()
    with pytest.raises(MissingPackageError, match="face_landmarker.task"):
        wheel_mesh()


def test_task_file_missing_or_wrong(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        TaskMesh(tmp_path / "none.task")
    (tmp_path / "bad.task").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="is not a face_landmarker.task"):
        TaskMesh(tmp_path / "bad.task")


def bundle(path, mesh):
    """A task file made of the wheel's own face detector and one of its mesh networks."""
    import zipfile

    import mediapipe

    modules = Path(mediapipe.__file__).parent / "modules"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(modules / "face_detection" / "face_detection_short_range.tflite", "face_detector.tflite")
        archive.write(modules / "face_landmark" / mesh, "face_landmarks_detector.tflite")
    return path


def test_real_task_file_without_a_face(tmp_path):
    task = TaskMesh(bundle(tmp_path / "a.task", "face_landmark.tflite"))
    blank = np.full((300, 400, 3), 90, np.uint8)
    assert task.boxes(blank).shape == (0, 4) and task.mesh(blank) is None
    assert MediapipeDetector(task).faces(blank) == []


def test_task_of_another_network(tmp_path, portrait):
    task = TaskMesh(bundle(tmp_path / "a.task", "face_landmark_with_attention.tflite"))
    with pytest.raises(ConfigError, match=r"a\.task is not a face_landmarker\.task that works"):
        task.boxes(portrait)


class FakeLandmarker:
    """The Tasks API's result objects around the wheel's mesh network."""

    def __init__(self):
        self.wheel = SolutionsMesh()

    def detect(self, image):
        rgb = image.numpy_view()
        points = self.wheel.mesh(rgb)
        if points is None:
            return SimpleNamespace(face_landmarks=[])
        height, width = rgb.shape[:2]
        return SimpleNamespace(face_landmarks=[[SimpleNamespace(x=x / width, y=y / height, z=0.0) for x, y in points]])


def test_task_protocol(monkeypatch, tmp_path, portrait, portrait_points):
    import mediapipe

    (tmp_path / "face_landmarker.task").write_bytes(b"weights")
    landmarker = mediapipe.tasks.vision.FaceLandmarker
    given = {}

    def create(options):
        given["options"] = options
        return FakeLandmarker()

    monkeypatch.setattr(landmarker, "create_from_options", create)
    found = MediapipeDetector(TaskMesh(tmp_path / "face_landmarker.task")).faces(portrait)
    assert given["options"].base_options.model_asset_buffer == b"weights"
    assert np.abs(found[0].points.numpy() - portrait_points).mean() < 1.0
