"""Measures speed beside NSL and beside plain training. The same as `tfgraphreg benchmark`."""

import sys

from tfgraphreg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("benchmark"))
