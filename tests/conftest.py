"""Shared by all tests. Its place puts `tests/` on the import path: `from toy import toy_model`."""

from __future__ import annotations

import pytest
from toy import toy_model

from nextface.morphable.model import MorphableModel


@pytest.fixture(scope="session")
def toy() -> MorphableModel:
    """The tiny head of tests/toy.py."""
    return toy_model()
