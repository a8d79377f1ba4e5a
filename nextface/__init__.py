"""From one photo of a face to a relightable head."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nextface.config import OptimConfig
    from nextface.photo import Photo
    from nextface.pipeline import reconstruct, reconstruct_many
    from nextface.reconstruction import Reconstruction
    from nextface.scene import Scene

_HOMES = {
    "OptimConfig": "nextface.config",
    "Photo": "nextface.photo",
    "Reconstruction": "nextface.reconstruction",
    "Scene": "nextface.scene",
    "reconstruct": "nextface.pipeline",
    "reconstruct_many": "nextface.pipeline",
}

__all__ = ["OptimConfig", "Photo", "Reconstruction", "Scene", "reconstruct", "reconstruct_many"]


def __getattr__(name: str) -> object:
    """Import on first use, so that `import nextface` and the command line's help are quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nextface' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
