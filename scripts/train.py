"""Trains, evaluates and exports a graph-regularized classifier. The same as `tfgraphreg train`."""

import sys

from tfgraphreg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("train"))
