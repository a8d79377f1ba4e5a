"""Build hook: copies the data of a checkout into the wheel, where nextface/paths.py finds it.

An editable install reads the checkout's own files and gets no copies.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Single files on purpose: a licensed model that the user dropped into baselMorphableModel/ must never end up in a wheel.
DATA = (
    "baselMorphableModel/open_head.h5",
    "optimConfig.ini",
    "resources/portrait.png",
    "resources/prior.safetensors",
    "resources/README.md",
)


class WheelData(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"].update({name: f"nextface/data/{name}" for name in DATA})
