"""Measures how far labels get along the graph from images that `suggest` chose, or chance.

Fills the table in docs/suggest.md. Nothing is trained.

python tools/measure_suggest.py                              seeds 0 to 9, 60,000 images
python tools/measure_suggest.py --seeds 100 101 102 --page none   for choices
python tools/measure_suggest.py --limit 10000 --features pca    in minutes
"""

import argparse
import os
import pathlib
import platform
import sys
import time

import numpy as np
from scipy import stats

from tfgraphreg.benchmark.results import commit, fill_measured
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.features import extract_features
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.propagation import propagate
from tfgraphreg.storage import cache_folder
from tfgraphreg.suggestion import suggest

BUDGETS = (10, 20, 50, 100)
STRATEGIES = ("typical", "typical, in steps", "typical, then margin", "random", "balanced")


def labeled(strategy, vectors, graph, truth, seed):
    """Yields budget and labels `[N]`, -1 where none was asked for."""
    labels = np.full(len(truth), -1)
    for budget in BUDGETS:
        method = strategy.split(",")[0]
        if strategy == "typical":
            # All at once, as for one `suggest --n`.
            labels = np.full(len(truth), -1)
        elif strategy.endswith("margin") and (labels >= 0).any():
            method = "margin"
        wanted = budget - int((labels >= 0).sum())
        found = suggest(
            vectors,
            wanted,
            labels=labels,
            num_classes=10,
            graph=graph,
            truth=truth,
            method=method,
            seed=seed,
        )
        labels[found.items] = truth[found.items]
        yield budget, labels.copy()


def accuracy(graph, labels, truth):
    """Share of the unlabeled images given their class by label spreading."""
    found = propagate(graph, labels, 10, tolerance=1e-4)
    free = labels < 0
    return float((found.labels == truth)[free].mean())


def cell(values):
    values = 100 * np.array(values)
    return (
        f"{values.mean():.1f} ± {values.std(ddof=1):.1f}" if len(values) > 1 else f"{values[0]:.1f}"
    )


def difference(ours, base):
    """Mean paired difference in points, with its 95 % interval."""
    values = 100 * (np.array(ours) - np.array(base))
    if len(values) < 2:
        return f"{values[0]:+.1f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.1f} [{values.mean() - half:+.1f}, {values.mean() + half:+.1f}]"


def table(found, seeds):
    lines = ["| labels | " + " | ".join(map(str, BUDGETS)) + " |", "|---|" + "--:|" * len(BUDGETS)]

    def values(strategy, budget):
        return [found[strategy, budget, seed] for seed in seeds]

    strategies = list(dict.fromkeys(strategy for strategy, _, _ in found))
    for s in strategies:
        lines.append(f"| {s} | " + " | ".join(cell(values(s, b)) for b in BUDGETS) + " |")
    for s in [s for s in strategies if s not in ("random", "balanced") and "random" in strategies]:
        cells = (difference(values(s, b), values("random", b)) for b in BUDGETS)
        lines.append(f"| {s}, less random | " + " | ".join(cells) + " |")
    return [*lines, ""]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, help="use only the first N training images")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--features", default="patches")
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/suggest.md"))
    options = parser.parse_args()
    data = load_dataset("fashion_mnist", limit=options.limit)
    train = data.train
    vectors = extract_features(
        options.features,
        train.images,
        cache_dir=cache_folder() / "features",
        fingerprint_key=data.checksum,
    )
    graph = knn_graph(vectors, k=10, weighting="local_gaussian")
    found, done = {}, []
    for seed in options.seeds:
        start = time.perf_counter()
        for strategy in options.strategies:
            for budget, labels in labeled(strategy, vectors, graph, train.labels, seed):
                found[strategy, budget, seed] = accuracy(graph, labels, train.labels)
                print(seed, strategy, budget, round(found[strategy, budget, seed], 4), flush=True)
        done.append(seed)
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
        fill(options, found, done, len(train))


def fill(options, found, done, count):
    """The table of the seeds that are done, printed and put into the page."""
    lines = table(found, done)
    print("\n".join(lines), flush=True)
    lines.append(
        f"Provenance: Fashion-MNIST, {count:,} training images, {options.features} features, k=10, "
        f"seeds {', '.join(map(str, done))}; label spreading without class sizes, share of the "
        "unlabeled training images given their class, in percent, mean ± standard deviation; "
        f"differences by seed with 95 % intervals; {os.cpu_count()} cores "
        f"({platform.machine()}), Python {platform.python_version()}, NumPy {np.__version__}; "
        f"commit {commit()}. Made by `python {' '.join(sys.argv)}`."
    )
    if options.page.exists():
        fill_measured(options.page, lines)


if __name__ == "__main__":
    main()
