"""Measures the exported model of a run again. The same as `tfgraphreg evaluate`."""

import sys

from tfgraphreg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("evaluate"))
