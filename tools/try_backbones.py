"""Trains one network of every family on scikit-learn's digits, one epoch each, by train.py.

    python tools/try_backbones.py --out runs/backbones          # goes on after a stop
    python tools/try_backbones.py --only rexnet dla             # some families or networks
    python tools/try_backbones.py --limit 256                   # on fewer training images

Writes results.json and results.md into --out as it goes. A network whose line is there already
is not trained again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import version

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tfgraphreg.backbones.catalog import BACKBONES, smallest_networks  # noqa: E402
from tfgraphreg.benchmark.results import commit  # noqa: E402
from tfgraphreg.cli import exit_status  # noqa: E402
from tfgraphreg.storage import write_json, write_text  # noqa: E402


def train(name: str, folder: pathlib.Path, limit: int | None) -> dict[str, object]:
    """Runs train.py in a process of its own; the figures of its metrics.json, or its error."""
    words = ["--dataset", "digits", "--backbone", name, "--epochs", "1"]
    words += [] if limit is None else ["--limit", str(limit)]
    places = ["--run-dir", str(folder / name), "--export-dir", str(folder / f"{name}.model")]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *words, *places],
        capture_output=True,
        text=True,
    )
    found: dict[str, object] = {"family": BACKBONES.get(name).family, "exit": done.returncode}
    found["seconds"] = round(time.perf_counter() - start, 1)
    found["commit"] = commit() or "unknown"
    if done.returncode:
        found["error"] = (done.stderr.strip().splitlines() or ["no message"])[-1]
    else:
        metrics = json.loads((folder / name / "metrics.json").read_text())
        for key in ("test_accuracy", "recall_at_1", "train_seconds"):
            found[key] = round(metrics[key], 4)
    for rest in (folder / name, folder / f"{name}.model"):
        shutil.rmtree(rest, ignore_errors=True)
    return found


def page(results: dict[str, dict], about: dict[str, object]) -> str:
    limited = "" if about["limit"] is None else f" --limit {about['limit']}"
    lines = [
        "# Every family on digits, one epoch",
        "",
        f"`python scripts/train.py --dataset digits --backbone NAME --epochs 1{limited}` for the",
        "smallest network of each family, from random weights, with the graph term at its",
        "defaults. It shows that each trains, exports and is measured; one epoch on so few images",
        "of 8x8 pixels says nothing about which is best. Seconds are of the whole command.",
        "",
        "Made by `python tools/try_backbones.py`: "
        + ", ".join(f"{key} {value}" for key, value in about.items() if value is not None)
        + ".",
        "",
        "| family | network | test accuracy | recall@1 | seconds in training | seconds in all "
        "| commit |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for name, row in sorted(results.items(), key=lambda item: item[1]["family"]):
        if row["exit"]:
            figures = f"{row['error']} | | | {row['seconds']:.0f}"
        else:
            figures = f"{row['test_accuracy']:.3f} | {row['recall_at_1']:.3f} "
            figures += f"| {row['train_seconds']:.0f} | {row['seconds']:.0f}"
        lines.append(f"| {row['family']} | `{name}` | {figures} | {row['commit']} |")
    return "\n".join([*lines, ""])


def provenance(limit: int | None) -> dict[str, object]:
    return {
        "date": str(datetime.date.today()),
        "TensorFlow": version("tensorflow"),
        "Python": platform.python_version(),
        "CPU cores": os.cpu_count(),
        "limit": limit,
        "seed": 0,
        "runs of each network": 1,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/backbones"))
    parser.add_argument("--limit", type=int, help="training images; default: all 1,437 or so")
    parser.add_argument("--only", nargs="*", help="names of families or networks; default: all")
    args = parser.parse_args()
    chosen = args.only or smallest_networks().values()
    names = [BACKBONES.get(name).name for name in chosen]
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    about = provenance(args.limit)
    for name in names:
        if results.get(name, {"exit": 1})["exit"]:
            results[name] = train(name, args.out, args.limit)
        print(name, results[name], flush=True)
        write_json(path, {"about": about, "results": results})
        write_text(args.out / "results.md", page(results, about))
    return 2 if any(results[name]["exit"] for name in names) else 0


if __name__ == "__main__":
    sys.exit(exit_status(main, repeated="goes on"))
