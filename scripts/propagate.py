"""Labels unlabeled images along a graph. The same as `tfgraphreg propagate`."""

import sys

from tfgraphreg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("propagate"))
