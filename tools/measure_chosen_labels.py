"""Measures what a network learns from labels of images that `suggest` chose, or chance.

Fills the last table of docs/suggest.md. Each run is what a user types: one command chooses images,
whose true labels are then written down, and one trains on them with the few-labels recipe.

python tools/measure_chosen_labels.py                   10 labels, 10 seeds, both choices: hours
python tools/measure_chosen_labels.py --labels 10 50 --seeds 0 1 2
python tools/measure_chosen_labels.py --page            only the page, from the lines

A finished run is a line of docs/suggest.jsonl and is not run again.
"""

import argparse
import csv
import json
import pathlib
import sys
import tempfile
import time

import numpy as np
from measure_suggest import cell, difference
from run_lines import ROOT, add_line, machine, read_lines, run_python

from tfgraphreg.benchmark.results import commit, fill_measured
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.recipes.versions import versions

LINES, PAGE, MARK = ROOT / "docs" / "suggest.jsonl", ROOT / "docs" / "suggest.md", "trained"
DATASET = "fashion_mnist"
METHODS = ("typical", "random")


def chosen(method: str, count: int, seed: int, folder: pathlib.Path) -> list[str]:
    """Ids of the images that the command chose."""
    command = ["-m", "tfgraphreg", "suggest", "--dataset", DATASET, "--unlabeled"]
    command += ["--n", str(count), "--method", method, "--graph-features", "patches"]
    run_python([*command, "--seed", str(seed), "--out", str(folder / "suggest")])
    with (folder / "suggest" / "suggestions.csv").open(encoding="utf-8", newline="") as file:
        return [row["id"] for row in csv.DictReader(file)]


def measured(method: str, count: int, seed: int, label_of: dict[str, str]) -> dict:
    """The line of one run."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        labels = {item: label_of[item] for item in chosen(method, count, seed, folder)}
        with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("id", "label"), *labels.items()])
        command = [str(ROOT / "scripts" / "train.py"), "--dataset", DATASET, "--seed", str(seed)]
        command += ["--recipe", "few-labels", "--labels", str(folder / "labels.csv")]
        command += ["--run-dir", str(folder / "run"), "--export-dir", str(folder / "model")]
        run_python(command)
        metrics = json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))
    return {
        "method": method,
        "labels": count,
        "seed": seed,
        "classes": len(set(labels.values())),
        "accuracy": metrics["test_accuracy"],
        "seconds": round(time.perf_counter() - started),
        "machine": machine(),
        "commit": commit(),
        "versions": versions(),
    }


def table(found: list[dict]) -> list[str]:
    """A row a number of labels: both choices, and their difference over the seeds of both."""
    lines = ["| labels | seeds | chosen | by chance | chosen, less by chance | classes met |"]
    lines.append("| --: | --: | --: | --: | --: | --: |")
    for count in sorted({line["labels"] for line in found}):
        arms = [
            {line["seed"]: line for line in found if (line["labels"], line["method"]) == (count, m)}
            for m in METHODS
        ]
        seeds = sorted(arms[0].keys() & arms[1].keys())
        if not seeds:
            continue
        scores = [[arm[seed]["accuracy"] for seed in seeds] for arm in arms]
        classes = [np.mean([arm[seed]["classes"] for seed in seeds]) for arm in arms]
        lines.append(
            f"| {count} | {len(seeds)} | {cell(scores[0])} | {cell(scores[1])} | "
            f"{difference(*scores)} | {classes[0]:.1f}, {classes[1]:.1f} |"
        )
    places = sorted({f"{line['machine']}, commit {line['commit']}" for line in found})
    return [
        *lines,
        "",
        "Provenance: Fashion-MNIST, all 60,000 training images, the recipe as it is; "
        "share of the 10,000 test images given their class, in percent, mean ± standard deviation; "
        "differences by seed with 95 % intervals; each run a line of docs/suggest.jsonl; "
        f"{'; '.join(places)}. Made by `python tools/measure_chosen_labels.py`.",
    ]


def main() -> int:
    """Runs what is missing, then fills the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=int, nargs="+", default=[10])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--page", action="store_true", help="only the page, from the lines")
    args = parser.parse_args()
    done = {(line["method"], line["labels"], line["seed"]) for line in read_lines(LINES)}
    runs = [(m, n, s) for n in args.labels for s in args.seeds for m in args.methods]
    missing = [] if args.page else [run for run in runs if run not in done]
    if missing:
        train = load_dataset(DATASET)
        names = np.array(train.class_names)[train.train.labels]
        label_of = dict(zip(train.train.ids.tolist(), names.tolist()))
    for run in missing:
        line = measured(*run, label_of)
        add_line(LINES, line)
        print(*run, f"{line['accuracy']:.4f}, {line['seconds']} s", flush=True)
    fill_measured(PAGE, table(read_lines(LINES)), mark=MARK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
