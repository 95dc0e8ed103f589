"""Chooses images that are worth a label. The same as `tfgraphreg suggest`."""

import sys

from tfgraphreg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("suggest"))
