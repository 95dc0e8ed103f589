"""Draws a run's embedding in two or three dimensions. The same as `tfgraphreg embed`."""

import sys

from tfgraphreg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("embed"))
