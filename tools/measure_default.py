"""Which backbone should be the default: the main job with each candidate, into docs/.

For each candidate it runs `train.py --dataset fashion_mnist` (60,000 images, packed neighbors,
alpha > 0) with the epochs that are asked for, and a short run that times an epoch: the
second one of 12,000 images, times five, which needs a machine that does nothing else. Writes
docs/default_backbone.md; what is in the runs folder already is not run again.

    python tools/measure_default.py [--candidates mobilenet_025:13,cnn:5] [--runs FOLDER]
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

from tfgraphreg.backbones.catalog import BACKBONES
from tfgraphreg.cli import exit_status

ROOT = pathlib.Path(__file__).resolve().parent.parent
CANDIDATES = "mobilenet_025:13,mobilenet_v2_035:9,mobilenet_v3_small_minimalistic:5,fcnn:5,cnn:5"
TIMED = 12_000
ACCURACY, RECALL, SECONDS = 0.90, 0.89, 360
HEAD = f"""# The default backbone

The main job (all 60,000 training images of Fashion-MNIST, neighbors packed by
`nsl.tools.pack_nbrs`, one neighbor, alpha 0.1, cosine distance, seed 0) must reach a test accuracy
of {ACCURACY:.2f} and a recall@1 of {RECALL} in six minutes on two cores. The default is the network
of Keras Applications that does, if one does. Each network with the image size and the learning
rate of its record, and a number of epochs that fits:

| backbone | library | side | epochs | accuracy | recall@1 | mAP | s an epoch | s in all | enough |
|---|---|---:|---:|---:|---:|---:|---:|---:|---|
"""
TAIL = """
{conclusion}

MobileNets halve the map five times before they pool it, and of 32 pixels, their smallest size, that
leaves one position; at 64 it leaves four. The other families of Keras Applications were not trained
here: their smallest networks run at a fifth of `mobilenet_025`'s speed or slower
([speeds](backbones_table.md)), which leaves them four epochs at most.

Made by `python tools/measure_default.py`, {date}, {cores} cores ({machine}), no GPU, TensorFlow
{tensorflow}, tfgraphreg {tfgraphreg}; one seed each. An epoch was timed on {timed:,} images, and
half a minute is added for graph, packing and evaluation.
"""
BESIDE = 30


def main() -> int:
    """Measures, and writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--candidates", default=CANDIDATES, help="NAME:EPOCHS, by commas")
    parser.add_argument(
        "--runs", default="runs/default", help="folder of the runs; kept ones count"
    )
    args = parser.parse_args()
    for candidate in args.candidates.split(","):
        BACKBONES.get(candidate.partition(":")[0])  # A wrong name is known before an hour of runs.
    rows, about = [], {}
    for candidate in args.candidates.split(","):
        row, about = measure(candidate, pathlib.Path(args.runs))
        rows.append(row)
        print(row.line(), end="", flush=True)
    tail = TAIL.format(
        conclusion=conclusion(rows),
        date=time.strftime("%Y-%m-%d"),
        cores=os.cpu_count(),
        machine=platform.machine(),
        timed=TIMED,
        **about,
    )
    page = ROOT / "docs" / "default_backbone.md"
    page.write_text(HEAD + "".join(row.line() for row in rows) + tail, encoding="utf-8")
    print(f"Written: {page}")
    return 0


@dataclasses.dataclass(frozen=True)
class Row:
    """What one candidate reached."""

    name: str
    library: str
    side: int
    epochs: int
    accuracy: float
    recall: float
    precision: float
    epoch_seconds: float

    @property
    def seconds(self) -> float:
        """The whole command, once installed."""
        return self.epochs * self.epoch_seconds + BESIDE

    @property
    def reaches(self) -> bool:
        """Whether it is good enough in time."""
        good = self.accuracy >= ACCURACY and self.recall >= RECALL
        return good and self.seconds <= SECONDS

    def line(self) -> str:
        """Its line of the table."""
        return (
            f"| {self.name} | {self.library} | {self.side} | {self.epochs} | {self.accuracy:.4f} "
            f"| {self.recall:.4f} | {self.precision:.4f} | {self.epoch_seconds:.0f} "
            f"| {self.seconds:.0f} | {'yes' if self.reaches else 'no'} |\n"
        )


def measure(candidate: str, runs: pathlib.Path) -> tuple[Row, dict]:
    """The row of `NAME:EPOCHS`, and the versions that it was run with."""
    from tfgraphreg.backbones.records import plan_input

    name, _, epochs = candidate.partition(":")
    record = BACKBONES.get(name)
    found = run(name, runs / f"{name}-{epochs}", "--epochs", epochs)
    timed = run(name, runs / f"{name}-timed", "--limit", str(TIMED), "--epochs", "2")
    row = Row(
        name=name,
        library=record.library,
        side=plan_input(record, (28, 28, 1)).height,
        epochs=int(epochs),
        accuracy=found["test_accuracy"],
        recall=found["recall_at_1"],
        precision=found["mean_average_precision"],
        epoch_seconds=timed["epoch_seconds"][1] * found["graph"]["nodes"] / TIMED,
    )
    return row, found["versions"]


def conclusion(rows: list[Row]) -> str:
    """What the table says about the default, in words."""
    from tfgraphreg.config import TrainConfig

    default = f"The default is `{TrainConfig().backbone}`."
    for library in ("keras.applications", "tfgraphreg"):
        reaching = {row.name for row in rows if row.reaches and row.library == library}
        if reaching:
            names = ", ".join(f"`{name}`" for name in sorted(reaching))
            return f"Of {library}, {names} reaches it. {default}"
    return f"None of these reaches it. {default}"


def run(name: str, folder: pathlib.Path, *flags: str) -> dict:
    """The metrics of one run of train.py, which is taken up where it stands."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--dataset", "fashion_mnist"]
    command += ["--backbone", name, "--run-dir", str(folder), "--resume", *flags]
    command += ["--export-dir", str(folder / "model")]
    subprocess.run(command, check=True)
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(exit_status(main, repeated="goes on"))
