"""Builds a similarity graph and a page about it. The same as `tfgraphreg build-graph`."""

import sys

from tfgraphreg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("build-graph"))
