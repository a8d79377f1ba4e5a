"""Morphable heads: `load_model` picks the reader by what a folder holds."""

from __future__ import annotations

from nextface.morphable.folder import load_model
from nextface.morphable.model import REGIONS, LandmarkEmbedding, MorphableModel

__all__ = ["REGIONS", "LandmarkEmbedding", "MorphableModel", "load_model"]
