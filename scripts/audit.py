"""Finds wrong labels, copies and odd images. The same as `tfgraphreg audit`."""

import sys

from tfgraphreg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("audit"))
