"""Writes a run's embeddings and predictions. The same as `tfgraphreg embeddings`."""

import sys

from tfgraphreg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("embeddings"))
