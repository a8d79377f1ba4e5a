"""Morphable heads: `load_model` picks the reader by what a folder holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextface.morphable.model import REGIONS, LandmarkEmbedding, MorphableModel

if TYPE_CHECKING:
    from nextface.morphable.folder import load_model

__all__ = ["REGIONS", "LandmarkEmbedding", "MorphableModel", "load_model"]


def __getattr__(name: str) -> object:
    """The readers, which bring h5py and scipy, are imported when they are first asked for."""
    if name == "load_model":
        from nextface.morphable.folder import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
