"""Known answers: synthetic photos are fitted without knowing them. docs/fidelity.md has the whole benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

import nextface
from benchmarks import fidelity, synthetic
from nextface import paths
from nextface.config import OptimConfig
from nextface.morphable import load_model

PHOTOS = (1, 3, 15)


@pytest.mark.slow
def test_known_answers_are_recovered(tmp_path: Path) -> None:
    config = replace(OptimConfig(), device="cpu", max_resolution=160, texture_resolution=256)
    model = load_model(paths.model_folder(config.path))
    rows = []
    for number in PHOTOS:
        truth = synthetic.make(model, number, texture=256, scale=0.6)
        photo, landmarks = fidelity.photo_of(truth, model, config, tmp_path)
        assert landmarks == "detected"
        found = nextface.reconstruct(photo, config, model=model)
        rows.append(fidelity.score(truth, found, landmarks, 0.0)[0])
    summary = "\n" + fidelity.table(rows)
    print(summary)
    assert median(row.vertex for row in rows) < 1.5, summary
    assert median(row.rotation for row in rows) < 3.5, summary
    assert min(row.albedo for row in rows) > 28.0, summary
    assert min(row.relit for row in rows) > 24.0, summary
    assert max(abs(row.typology_error) for row in rows) < 20.0, summary
