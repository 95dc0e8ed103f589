"""`python -m tfgraphreg`: the same as the program `tfgraphreg`."""

import sys

from tfgraphreg.cli import main

if __name__ == "__main__":
    sys.exit(main())
