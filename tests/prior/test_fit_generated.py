"""The fits that the denoiser learns from: made end to end for one generated person, and read as training rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("tools.fit_generated", reason="needs a checkout")

from nextface.config import OptimConfig
from nextface.morphable.model import MorphableModel
from nextface.prior.data.source import FacesSettings, draw_population
from nextface.prior.encoding import Encoding
from nextface.prior.train.fits import FitSource
from tools.fit_generated import fit


def test_a_generated_person_is_fitted(head: MorphableModel, tmp_path: Path):
    encoding = Encoding(image_size=64)
    population = draw_population(head, FacesSettings(people=3), torch.Generator().manual_seed(0))
    config = replace(
        OptimConfig(
            device="cpu", max_resolution=160, texture_resolution=256, iter_step1=30, iter_step2=20, iter_step3=20
        ),
        prior_tint=0.0,
        **{f"weight_prior_{name}": 0.0 for name in ("diffuse", "specular", "roughness", "normal")},
    )
    fit(5, tmp_path / "0005.safetensors", population, head, config, encoding)
    batch = next(FitSource.of(tmp_path, encoding, 32, seed=0))
    known, albedo = batch.mask > 0.5, batch.domain == 1
    assert 0.1 < float(known.float().mean()) < 0.9
    error = (batch.corrupted - batch.image).abs()
    assert 0.01 < float(error[albedo].mean()) < 0.3, "a fit is near the truth, and not the truth"
    both = torch.stack([each[albedo].flatten() for each in (batch.image, batch.corrupted)])
    assert float(torch.corrcoef(both)[0, 1]) > 0.8
