"""Measures which features and distances join images of one class, and how far labels get.

Fills the table in docs/graphs.md.

python tools/measure_graph_features.py                    everything, then the table
python tools/measure_graph_features.py --features pca sgt only these; other rows stay
python tools/measure_graph_features.py --sizes            images of other sizes and colors
python tools/measure_graph_features.py --sgt              how much faster than package sgt
"""

import argparse
import csv
import dataclasses
import io
import os
import pathlib
import platform
import time

import numpy as np

from tfgraphreg.benchmark.results import commit, fill_measured
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.data.splits import keep_labels
from tfgraphreg.features import extract_features
from tfgraphreg.graph.diagnostics import diagnose
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.propagation import propagate
from tfgraphreg.storage import write_text

K = 10
LABELS, SEEDS = 10, (100, 101, 102)  # labels a class; seeds that no other experiment uses
LENGTHS = ("cosine", "euclidean", "manhattan", "mahalanobis")
SHARES = ("cosine", "euclidean", "histogram_intersection", "kl", "js")
PAIRS = {
    "pixels": (*SHARES, "manhattan"),
    "pca": LENGTHS,
    "patches": LENGTHS[:2],
    "color": SHARES,
    "texture": LENGTHS,
    "shape": LENGTHS,
    "global": LENGTHS,
    "sgt": SHARES,
}
COLUMNS = (
    "feature",
    "width",
    "metric",
    "agreement",
    "propagated",
    "feature_seconds",
    "graph_seconds",
    "search",
    "images",
    "commit",
)
SAME = ("feature", "metric", "images")


def measure(feature, split, commit, metrics):
    """Rows of the table for one feature."""
    start = time.perf_counter()
    features = extract_features(feature, split.images)
    feature_seconds = time.perf_counter() - start
    for metric in [m for m in PAIRS[feature] if not metrics or m in metrics]:
        start = time.perf_counter()
        graph = knn_graph(features, k=K, distance=metric, weighting="local_gaussian")
        seconds = time.perf_counter() - start
        search = graph.about["method"]
        if search != "exact":
            search += f" (recall {graph.about['recall']:.3f})"
        agreement = diagnose(graph, split.labels)["edge_label_agreement"]
        row = (
            feature,
            features.shape[1],
            metric,
            f"{agreement:.4f}",
            " ± ".join(f"{value:.3f}" for value in propagated(graph, split)),
            f"{feature_seconds:.1f}",
            f"{seconds:.1f}",
            search,
            len(split),
            commit,
        )
        print(*row, flush=True)
        yield dict(zip(COLUMNS, map(str, row)))


def propagated(graph, split):
    """Share of the unlabeled training images given their class; mean and deviation over SEEDS."""
    found = []
    for seed in SEEDS:
        labels = keep_labels(split, LABELS, seed=seed).labels
        given = propagate(graph, labels, int(split.labels.max()) + 1, class_sizes="equal").labels
        found.append((given == split.labels)[labels < 0].mean())
    return np.mean(found), np.std(found, ddof=1)


def read_rows(path):
    """The rows measured before, or none."""
    if not path.exists():
        return []
    rows = csv.DictReader(path.open(encoding="utf-8"))
    return [{column: row.get(column) or "" for column in COLUMNS} for row in rows]


def save_rows(path, rows):
    """The CSV, best pairs first."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda r: (-int(r["images"]), -float(r["agreement"]))))
    write_text(path, text.getvalue())


def fill_table(page, rows):
    """Replaces what stands between the two marks in `page`: a table for each number of images."""
    shown, lines = COLUMNS[:8], []
    for count in sorted({int(row["images"]) for row in rows}, reverse=True):
        these = [row for row in rows if row["images"] == str(count)]
        lines += [
            f"The k={K} graph of {count:,} training images:",
            "",
            "| " + " | ".join(name.replace("_", " ") for name in shown) + " |",
            "|" + " --- |" * len(shown),
            *("| " + " | ".join(row[name] for name in shown) + " |" for row in these),
            "",
        ]
    commits = sorted({row["commit"] for row in rows})
    lines.append(
        "Provenance: Fashion-MNIST, one run a row (exact searches are not random), default "
        "settings of each feature; propagated: label spreading with equal class sizes from "
        f"{LABELS} labels a class, the share of the other training images given their class, mean "
        f"and standard deviation over seeds {SEEDS[0]} to {SEEDS[-1]}; "
        f"{os.cpu_count()} cores ({platform.machine()}), no GPU, "
        "seconds of one run, so small differences of them mean nothing; Python "
        f"{platform.python_version()}, NumPy {np.__version__}; commits {', '.join(commits)}. Made "
        "by `python tools/measure_graph_features.py`, the smaller table with `--limit`."
    )
    fill_measured(page, lines)


def compare_sgt(split):
    """Seconds an image here and in the package sgt, of the same 784 gray levels."""
    import sgt.sgt

    from tfgraphreg.features.sequence import LEVELS, sequence_graph_transform
    from tfgraphreg.features.texture import quantized

    images = split.images[:5000, ..., 0] / 255.0
    sequences = quantized(images, LEVELS).reshape(len(images), -1)
    start = time.perf_counter()
    mine = sequence_graph_transform(sequences, LEVELS)
    here = (time.perf_counter() - start) / len(sequences)
    package, times = sgt.sgt.SGT(alphabets=list(range(LEVELS)), kappa=1), []
    for row, sequence in zip(mine, sequences[:5]):
        start = time.perf_counter()
        theirs = package.fit(sequence)
        times.append(time.perf_counter() - start)
        gap = np.abs(row - np.asarray(theirs)).max()
        assert gap < 1e-6, gap
    there = float(np.median(times))
    print(
        f"sgt, {sequences.shape[1]} gray levels of {LEVELS}: {here * 1e3:.3f} ms an image here "
        f"(mean of {len(sequences)}), {there * 1e3:.0f} ms in the package (median of "
        f"{len(times)}): {there / here:.0f} times faster, equal to 1e-6"
    )


def compare_sizes(split):
    """Prints a table: images of other sizes and colors, 10 labels a class, the general features."""
    digits, images = load_dataset("digits").train, split.images[:5000]

    def like(changed):
        count = len(changed)
        return dataclasses.replace(
            split, images=changed, labels=split.labels[:count], ids=split.ids[:count], extras={}
        )

    def smaller(step):
        parts = images.reshape(len(images), 28 // step, step, 28 // step, step, 1)
        return like(parts.mean(axis=(2, 4)).round().astype(np.uint8))

    rng = np.random.default_rng(0)
    bright = rng.uniform(0.4, 1, (len(images), 1, 1, 3))
    dark = rng.uniform(0, 0.4, (len(images), 1, 1, 3))
    tinted = images / 255.0 * (bright - dark) + dark
    print("| images | number | feature | agreement | propagated |\n|" + " --- |" * 5)
    for name, part in (
        ("digits, 8x8", digits),
        ("Fashion-MNIST, 7x7 (means of 4x4)", smaller(4)),
        ("Fashion-MNIST, 14x14 (means of 2x2)", smaller(2)),
        ("Fashion-MNIST, 28x28", like(images)),
        (
            "Fashion-MNIST, 28x28x3 (random color of object and ground)",
            like(np.uint8(tinted * 255)),
        ),
    ):
        for feature in ("pixels", "pca", "patches"):
            graph = knn_graph(
                extract_features(feature, part.images), k=K, weighting="local_gaussian"
            )
            agreement = diagnose(graph, part.labels)["edge_label_agreement"]
            mean, spread = propagated(graph, part)
            row = f"{len(part):,} | {feature} | {agreement:.3f} | {mean:.3f} ± {spread:.3f}"
            print(f"| {name} | {row} |", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", nargs="*", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--metrics", nargs="*", help="only these")
    parser.add_argument("--limit", type=int, help="use only the first N training images")
    parser.add_argument("--data-dir", help="folder with the files of Fashion-MNIST")
    parser.add_argument("--csv", type=pathlib.Path, default=pathlib.Path("docs/graph_features.csv"))
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/graphs.md"))
    parser.add_argument("--sgt", action="store_true", help="only compare with the package sgt")
    parser.add_argument("--sizes", action="store_true", help="only other sizes and colors")
    options = parser.parse_args()
    train = load_dataset("fashion_mnist", data_dir=options.data_dir, limit=options.limit).train
    if options.sgt:
        return compare_sgt(train)
    if options.sizes:
        return compare_sizes(train)
    for feature in options.features:
        for row in measure(feature, train, commit() or "unknown", options.metrics):
            before = [r for r in read_rows(options.csv) if any(r[n] != row[n] for n in SAME)]
            save_rows(options.csv, [*before, row])
    if options.page.exists():
        fill_table(options.page, read_rows(options.csv))


if __name__ == "__main__":
    main()
