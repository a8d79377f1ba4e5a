"""NextFace's command line: python optimizer.py --input PHOTO --output FOLDER."""

import sys

from nextface.cli import main

if __name__ == "__main__":
    sys.exit(main())
