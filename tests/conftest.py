"""Shared by all tests. Its place puts `tests/` on the import path: `from toy import toy_model`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_basel import SMALL, write_basel
from toy import toy_model

from nextface import pipeline
from nextface.fitting import driver
from nextface.morphable import load_model
from nextface.morphable.model import MorphableModel
from nextface.paths import default_model_folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Derived data of the tests stays out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("NEXTFACE_CACHE")
    os.environ["NEXTFACE_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["NEXTFACE_CACHE"]
    else:
        os.environ["NEXTFACE_CACHE"] = before


@pytest.fixture(scope="session")
def toy() -> MorphableModel:
    """The tiny head of tests/toy.py."""
    return toy_model()


@pytest.fixture(scope="session")
def basel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two licensed files in their exact layout and size, filled with a face of our own. About 200 MB."""
    return write_basel(tmp_path_factory.mktemp("basel"))


@pytest.fixture(scope="session")
def small_basel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 1,688 vertices and few components. Copy before changing it."""
    return write_basel(tmp_path_factory.mktemp("small_basel"), SMALL, (6, 4, 5))


@pytest.fixture(scope="session")
def head() -> MorphableModel:
    """The open head."""
    return load_model(default_model_folder() / "open_head.h5")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages as they are run; no results are drawn."""
    names: list[str] = []

    def counted(plan: driver.StagePlan) -> driver.StagePlan:
        def stage(*arguments):  # type: ignore[no-untyped-def]
            names.append(plan.name)
            return plan.fit(*arguments)

        return replace(plan, fit=stage)

    monkeypatch.setattr(driver, "STAGES", tuple(counted(plan) for plan in driver.STAGES))
    monkeypatch.setattr(pipeline, "write", lambda *_: [])
    return names
