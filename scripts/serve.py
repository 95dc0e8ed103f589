"""Serves a run's model on this machine. The same as `tfgraphreg serve`."""

import sys

from tfgraphreg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("serve"))
