"""A real face: the shipped portrait (Eileen Collins, NASA, public domain)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nextface.landmarks import detector

PORTRAIT = Path(__file__).parent.parent.parent / "resources" / "portrait.png"


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """[512, 512, 3] uint8 sRGB; the face is about 107 pixels high."""
    return np.asarray(Image.open(PORTRAIT).convert("RGB"))


@pytest.fixture(scope="session")
def portrait_points(portrait) -> np.ndarray:
    """MediaPipe's points of the portrait. [478, 2]"""
    return detector("mediapipe").faces(portrait)[0].points.numpy()
