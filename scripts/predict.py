"""Classifies image files with an exported model. The same as `tfgraphreg predict`."""

import sys

from tfgraphreg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("predict"))
