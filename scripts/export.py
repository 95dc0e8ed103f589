"""Writes a run's model as TFLite or ONNX. The same as `tfgraphreg export`."""

import sys

from tfgraphreg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("export"))
