"""`python -m nextface`: the command line."""

import sys

from nextface.cli import main

if __name__ == "__main__":
    sys.exit(main())
