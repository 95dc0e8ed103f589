"""Measures how far labels get along the graph from images that `suggest` chose, or chance.

Fills the tables in docs/suggest.md. Nothing is trained: the labels are spread along the graph of
the training images, and a test image, which is in no graph, asks the 10 nearest of them.

python tools/measure_suggest.py                              seeds 0 to 9, 60,000 images
python tools/measure_suggest.py --seeds 100 101 102 --page none   for choices
python tools/measure_suggest.py --limit 10000                in minutes
"""

import argparse
import os
import pathlib
import platform
import sys
import time

import numpy as np

from tfgraphreg.benchmark.results import commit, fill_measured
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.features import extract_features
from tfgraphreg.features.patches import fit_patches
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.propagation import propagate
from tfgraphreg.propagation.kernel import unit_length
from tfgraphreg.recipes.compare import paired_interval
from tfgraphreg.search.ranking import nearest
from tfgraphreg.storage import cache_folder
from tfgraphreg.suggestion import suggest

BUDGETS = (10, 20, 50, 100)
TEST, TRAINING = "test images", "unlabeled training images"
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


def accuracy(graph, labels, data, neighbors):
    """Shares of test images and of unlabeled training images given their class."""
    found = propagate(graph, labels, 10, tolerance=1e-4)
    votes = found.probabilities[neighbors].sum(axis=1)
    return {
        TEST: float((votes.argmax(axis=1) == data.test.labels).mean()),
        TRAINING: float((found.labels == data.train.labels)[labels < 0].mean()),
    }


def of_test_images(data, vectors):
    """`[test images, 10]` numbers of the training images with the nearest features."""
    features = fit_patches(data.train.images)(data.test.images)
    found = nearest(unit_length(features), unit_length(vectors), 10)
    return np.concatenate([positions for _, positions, _ in found])


def cell(values):
    values = 100 * np.array(values)
    return (
        f"{values.mean():.1f} ± {values.std(ddof=1):.1f}" if len(values) > 1 else f"{values[0]:.1f}"
    )


def difference(ours, base):
    """Mean paired difference in points, with its 95 % interval."""
    values = 100 * (np.array(ours) - np.array(base))
    ends = paired_interval(values)
    return f"{values.mean():+.1f}" + (f" [{ends[0]:+.1f}, {ends[1]:+.1f}]" if ends else "")


def table(found, seeds, images):
    lines = [
        f"| {images}, by labels | " + " | ".join(map(str, BUDGETS)) + " |",
        "|---|" + "--:|" * len(BUDGETS),
    ]

    def values(strategy, budget):
        return [found[strategy, budget, seed][images] for seed in seeds]

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
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/suggest.md"))
    options = parser.parse_args()
    data = load_dataset("fashion_mnist", limit=options.limit)
    train = data.train
    vectors = extract_features(
        "patches",
        train.images,
        cache_dir=cache_folder() / "features",
        fingerprint_key=data.checksum,
    )
    graph = knn_graph(vectors, k=10, weighting="local_gaussian")
    neighbors = of_test_images(data, vectors)
    found, done = {}, []
    for seed in options.seeds:
        start = time.perf_counter()
        for strategy in options.strategies:
            for budget, labels in labeled(strategy, vectors, graph, train.labels, seed):
                found[strategy, budget, seed] = accuracy(graph, labels, data, neighbors)
                print(seed, strategy, budget, found[strategy, budget, seed], flush=True)
        done.append(seed)
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
        fill(options, found, done, len(train))


def fill(options, found, done, count):
    """The tables of the seeds that are done, printed and put into the page."""
    lines = [*table(found, done, TEST), *table(found, done, TRAINING)]
    print("\n".join(lines), flush=True)
    lines.append(
        f"Provenance: Fashion-MNIST, {count:,} training images, patches features, k=10, "
        f"seeds {', '.join(map(str, done))}; label spreading without class sizes, share of "
        "images given their class, in percent, mean ± standard deviation; "
        f"differences by seed with 95 % intervals; {os.cpu_count()} cores "
        f"({platform.machine()}), Python {platform.python_version()}, NumPy {np.__version__}; "
        f"commit {commit()}. Made by `python {' '.join(sys.argv)}`."
    )
    if options.page.exists():
        fill_measured(options.page, lines)


if __name__ == "__main__":
    main()
