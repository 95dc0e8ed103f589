"""Which backbone should be the default: the main job with each candidate, into docs/.

Runs `train.py --dataset fashion_mnist` (60,000 images, packed neighbors, alpha > 0) for each
candidate with so many epochs as it may have in six minutes on two cores, and writes
docs/default_backbone.md. Seconds are those of the processor divided by the number of cores: a
lower bound of the time on a clock, which other work on the machine does not stretch.

    python scripts/measure_default.py [--candidates mobilenet_025:5,cnn:5] [--runs FOLDER]
"""

import argparse
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
CANDIDATES = "mobilenet_025:5,mobilenet_v3_small_minimalistic:3,mobilenet_v2_035:3,fcnn:5,cnn:5"
HEAD = """# The default backbone

The main job (all 60,000 training images of Fashion-MNIST, neighbors packed by
`nsl.tools.pack_nbrs`, one neighbor, alpha 0.1, cosine distance, seed 0) must reach a test accuracy
of 0.90 and a recall@1 of 0.89 in six minutes on two cores. The fastest networks of Keras
Applications at 32 x 32 pixels, and the two small networks of this package:

| backbone | epochs | test accuracy | recall@1 | mAP | processor seconds / cores, whole run |
|---|---:|---:|---:|---:|---:|
"""


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
    lines, about = [], {}
    for candidate in args.candidates.split(","):
        name, _, epochs = candidate.partition(":")
        run = pathlib.Path(args.runs) / name
        if not (run / "seconds.json").exists():
            measure(name, epochs, run)
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        seconds = json.loads((run / "seconds.json").read_text(encoding="utf-8"))
        about = metrics["versions"]
        lines.append(
            f"| {name} | {epochs} | {metrics['test_accuracy']:.4f} | {metrics['recall_at_1']:.4f} "
            f"| {metrics['mean_average_precision']:.4f} | {seconds:.0f} |"
        )
        print(lines[-1], flush=True)
    where = (
        f"\nMade by `python scripts/measure_default.py` on {time.strftime('%Y-%m-%d')}, "
        f"{os.cpu_count()} cores ({platform.machine()}), no GPU, TensorFlow {about['tensorflow']}, "
        f"tfgraphreg {about['tfgraphreg']}; one seed each.\n"
    )
    page = HERE.parent / "docs" / "default_backbone.md"
    page.write_text(HEAD + "\n".join(lines) + "\n" + where, encoding="utf-8")
    print(f"Written: {page}")
    return 0


def measure(name: str, epochs: str, run: pathlib.Path) -> None:
    """One run of train.py, and what it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(HERE / "train.py"), "--dataset", "fashion_mnist"]
    command += ["--backbone", name, "--epochs", epochs, "--run-dir", str(run), "--resume"]
    command += ["--export-dir", str(run / "model")]
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    (run / "seconds.json").write_text(json.dumps(used / os.cpu_count()), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
