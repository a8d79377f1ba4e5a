"""Training crops shared by the tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_data import write_crops


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `write_crops` makes."""
    return write_crops(tmp_path_factory.mktemp("crops"))
