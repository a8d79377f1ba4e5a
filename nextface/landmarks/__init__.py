"""Landmark detectors behind one protocol: MediaPipe, face-alignment, or the user's file."""

from nextface.landmarks.detect import Detector, detect, detector, read_photo
from nextface.landmarks.points import Landmarks

__all__ = ["Detector", "Landmarks", "detect", "detector", "read_photo"]
