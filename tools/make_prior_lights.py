"""Make nextface/prior/data/lights.npz: environments that light the faces on which the prior is trained.

Source as in tools/make_light_prior.py; of its environments those that are not held out.

Usage: python tools/make_prior_lights.py pmndrs-assets-1.7.0.tgz
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from make_light_prior import HELD_OUT, SOURCE, project, read_environments

TARGET = Path("nextface/prior/data/lights.npz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="pmndrs-assets-1.7.0.tgz")
    environments = read_environments(parser.parse_args().archive)
    lights = {name: project(radiance) for name, radiance in environments.items() if name not in HELD_OUT}
    np.savez_compressed(
        TARGET,
        light=np.array(list(lights.values()), np.float32),
        name=np.array(list(lights)),
        source=np.array(SOURCE),
        licence=np.array("CC0-1.0"),
    )
    print(f"{TARGET}: {', '.join(lights)}; {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
