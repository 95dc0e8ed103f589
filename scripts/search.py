"""Finds the images nearest to image files. The same as `tfgraphreg search`."""

import sys

from tfgraphreg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("search"))
