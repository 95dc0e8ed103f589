"""Measures training on masks and on boxes, and proposals of boxes; fills docs/local.md.

python tools/measure_local.py                            3 seeds, with and without a graph term
python tools/measure_local.py --tasks segment --seeds 0 --alphas 0 --threads 2
python tools/measure_local.py --tasks proposals --seeds 0 --alphas 0
taskset -c 0 python tools/measure_local.py --seeds 1 --threads 1   beside one on core 1

A finished run is a line of docs/local.jsonl and is not run again. Each run is a process of its own,
the command that docs/local.md names; its seconds are those of the whole command, and are not shown
where it had not all cores.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time

import numpy as np
from run_lines import ROOT, add_line, machine, read_lines, run_python

from tfgraphreg.benchmark.results import commit, fill_measured
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.evaluation.average_precision import average_best_overlap, recall_by_count
from tfgraphreg.features.proposals import anchor_grid, selective_search
from tfgraphreg.recipes.versions import versions

LINES, PAGE = ROOT / "docs" / "local.jsonl", ROOT / "docs" / "local.md"
# The numbers of each task that the table shows.
SHOWN = {
    "segment": (
        "test_mean_iou",
        "test_mean_dice",
        "test_mean_pixel_accuracy",
        "test_pixel_accuracy",
    ),
    "detect": ("test_ap50", "test_ap"),
}
PROPOSALS, COUNTS, SCENES = "proposals", (100, 200, 500), 100
# At the cost of plain training; regions find their neighbors in a bank without being asked to.
MODE = {"segment": ("--neighbors", "paired"), "detect": ()}


def measured(task, alpha, seed, dataset, threads):
    """The line of one run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(ROOT / "scripts" / "train.py"), "--dataset", dataset]
        command += ["--task", task, "--alpha", str(alpha), "--seed", str(seed)]
        command += MODE[task] if alpha else ()
        command += ["--run-dir", f"{folder}/run", "--export-dir", f"{folder}/model"]
        begun = time.perf_counter()
        run_python(command, OMP_NUM_THREADS=str(threads))
        seconds = time.perf_counter() - begun
        metrics = json.loads(pathlib.Path(folder, "run", "metrics.json").read_text())
    numbers = {name: metrics[name] for name in SHOWN[task]}
    about = {"task": task, "alpha": alpha, "seed": seed, "dataset": dataset}
    return {
        **about,
        **numbers,
        "seconds": round(seconds),
        "cores": len(os.sched_getaffinity(0)),
        "precision": metrics["precision"],
        "parameters": metrics["parameters"],
        "versions": metrics["versions"],
        "machine": machine(),
        "commit": commit(),
    }


def measured_proposals(dataset):
    """The line of both kinds of proposals on the first test scenes; nothing is trained."""
    data = load_dataset(dataset)
    truth, images = data.test.objects[:SCENES], data.test.images[:SCENES]
    begun = time.process_time()
    searched = [selective_search(image) for image in images]
    seconds = (time.process_time() - begun) / len(images)
    grid = anchor_grid(images.shape[1:3], stride=12, sides=(24, 34, 48), ratios=(0.5, 1, 2))
    recall = recall_by_count(truth, searched, list(COUNTS))
    of_grid = recall_by_count(truth, [grid] * len(truth), [len(grid)])[len(grid)]
    return {
        "task": PROPOSALS,
        "alpha": 0.0,
        "seed": 0,
        "dataset": dataset,
        "scenes": len(images),
        "recall": [recall[count] for count in COUNTS],
        "mabo": average_best_overlap(truth, searched, data.class_names)["mabo"],
        "seconds": round(seconds, 3),
        "anchors": len(grid),
        "anchors_recall": of_grid,
        "versions": versions(),
        "machine": machine(),
        "commit": commit(),
    }


def proposals_table(line):
    """The rows of the page about proposals."""
    names = [f"recall, {count} boxes" for count in COUNTS]
    values = [f"{value:.3f}" for value in line["recall"]]
    return [
        f"Proposals on {line['scenes']} test scenes of `{line['dataset']}`, recall at IoU 0.5",
        "",
        "| proposals | " + " | ".join([*names, "MABO", "processor seconds an image"]) + " |",
        "| --- |" + " ---: |" * (len(names) + 2),
        f"| selective search | {' | '.join(values)} | {line['mabo']:.3f} | {line['seconds']:.2f} |",
        "",
        f"All {line['anchors']} anchors (stride 12, three sides, three ratios) have a recall of "
        f"{line['anchors_recall']:.3f}.",
        "",
        f"Measured by `tools/measure_local.py` on {line['machine']}, commit {line['commit']}.",
        "",
    ]


def table(lines):
    """The rows of the page: means over seeds, with the standard deviation."""
    rows = [row for line in lines if line["task"] == PROPOSALS for row in proposals_table(line)]
    for task, names in SHOWN.items():
        mine = [line for line in lines if line["task"] == task]
        if not mine:
            continue
        rows += [f"`--task {task}`", ""]
        titles = [name.removeprefix("test_").replace("_", " ") for name in names]
        rows.append("| data | alpha | seeds | " + " | ".join([*titles, "seconds"]) + " |")
        rows.append("| --- |" + " ---: |" * (len(titles) + 3))
        for key in sorted({(line["dataset"], line["alpha"]) for line in mine}):
            group = [line for line in mine if (line["dataset"], line["alpha"]) == key]
            cells = [f"{spread([line[name] for line in group], 4)}" for name in names]
            timed = [
                line["seconds"]
                for line in group
                if line["machine"].startswith(f"{line['cores']} cores")
            ]
            seconds = spread(timed, 0) if timed else ""
            rows.append(
                f"| `{key[0]}` | {key[1]:g} | {len(group)} | {' | '.join(cells)} | {seconds} |"
            )
        places = sorted({f"{line['machine']}, commit {line['commit']}" for line in mine})
        formats = ", ".join(sorted({line["precision"] for line in mine}))
        rows += [
            "",
            f"Trained in {formats}. Measured by `tools/measure_local.py` on {'; '.join(places)}. "
            "Seconds are those of runs that had all cores.",
            "",
        ]
    return rows


def spread(values, digits):
    """Mean and standard deviation; the value alone if there is one."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--tasks", nargs="+", choices=[*SHOWN, PROPOSALS], default=[*SHOWN, PROPOSALS]
    )
    parser.add_argument("--alphas", nargs="+", type=float, default=[0.0, 0.1])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--dataset", default="scenes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--page", action="store_true", help="only fill the page from the lines")
    args = parser.parse_args()
    lines = read_lines(LINES)
    wanted = [(t, a, s) for t in args.tasks for s in args.seeds for a in args.alphas]
    for task, alpha, seed in [] if args.page else wanted:
        key = (task, alpha, seed, args.dataset)
        if key in {(line["task"], line["alpha"], line["seed"], line["dataset"]) for line in lines}:
            continue
        if task == PROPOSALS and (alpha, seed) != (0.0, 0):
            continue  # Neither changes them.
        lines.append(
            measured_proposals(args.dataset)
            if task == PROPOSALS
            else measured(task, alpha, seed, args.dataset, args.threads)
        )
        add_line(LINES, lines[-1])
        print(lines[-1], flush=True)
    fill_measured(PAGE, table(lines))


if __name__ == "__main__":
    main()
