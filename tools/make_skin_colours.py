"""Make nextface/prior/data/skin_colours.npz: diffuse albedo of skin by its melanin and blood, for the prior's training faces.

The optical model and its sources are those of tools/open_head/skin_tone.py.

Usage: python tools/make_skin_colours.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from open_head.skin_tone import skin_colour

TARGET = Path("nextface/prior/data/skin_colours.npz")
MELANIN, BLOOD = (0.001, 4.0), (0.001, 0.2)
ROWS, COLUMNS = 64, 32


def main() -> None:
    melanin, blood = np.geomspace(*MELANIN, ROWS), np.geomspace(*BLOOD, COLUMNS)
    colours = skin_colour(*np.meshgrid(melanin, blood, indexing="ij"))
    np.savez_compressed(
        TARGET,
        colour=np.clip(colours, 0.0, 1.0).astype(np.float32),
        log_melanin=np.log(MELANIN).astype(np.float32),
        log_blood=np.log(BLOOD).astype(np.float32),
    )
    print(f"{TARGET}: {ROWS} x {COLUMNS} colours, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
