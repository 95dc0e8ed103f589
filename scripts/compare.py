"""Runs a sweep, and puts runs into one table and one page. The same as `tfgraphreg compare`."""

import sys

from tfgraphreg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("compare"))
