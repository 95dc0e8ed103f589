"""Measures which features and distances join images of one class; writes docs/graph_features.md.

python scripts/measure_graph_features.py [--limit 10000] [--data-dir FOLDER] [--out FILE]
"""

import argparse
import gzip
import os
import pathlib
import platform
import time

import numpy as np

from tfgraphreg.features import extract
from tfgraphreg.graph.diagnostics import diagnose
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.storage import write_text

K = 10
GEOMETRIC = ("cosine", "euclidean", "manhattan", "mahalanobis")
HISTOGRAMS = ("cosine", "manhattan", "histogram_intersection", "kl", "js")
PAIRS = {
    "pixels": ("cosine", "euclidean", "histogram_intersection"),
    "pca": GEOMETRIC,
    "color": HISTOGRAMS,
    "texture": GEOMETRIC,
    "shape": GEOMETRIC,
    "global": ("cosine", "euclidean"),
    "sgt": HISTOGRAMS,
}


def read_idx(path, offset):
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, help="use only the first N training images")
    parser.add_argument("--data-dir", default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--out", default="docs/graph_features.md")
    options = parser.parse_args()
    folder = pathlib.Path(options.data_dir)
    images = read_idx(folder / "train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
    labels = read_idx(folder / "train-labels-idx1-ubyte.gz", 8).astype(np.int64)
    images, labels = images[: options.limit], labels[: options.limit]
    lines = []
    for name, metrics in PAIRS.items():
        start = time.perf_counter()
        rows = extract(name, images)
        feature_seconds = time.perf_counter() - start
        for metric in metrics:
            start = time.perf_counter()
            graph = knn_graph(rows, k=K, metric=metric, weighting="binary")
            seconds = time.perf_counter() - start
            agreement = diagnose(graph, labels)["edge_label_agreement"]
            method = graph.about["method"]
            if method != "exact":
                method += f", recall {graph.about['recall']:.3f}"
            lines.append(
                f"| {name} | {rows.shape[1]} | {metric} | {agreement:.3f} | "
                f"{feature_seconds:.1f} | {seconds:.1f} | {method} |"
            )
            print(lines[-1], flush=True)
    write_text(
        options.out,
        f"""# Which features and distances join images of one class

Edge label agreement: the share of the edges of the k={K} nearest-neighbor graph that join two
images of one class. One class in ten at random would be 0.1.

| feature | width | metric | agreement | feature seconds | graph seconds | search |
| --- | --- | --- | --- | --- | --- | --- |
"""
        + "\n".join(lines)
        + f"""

Provenance: the first {len(images):,} of the 60,000 training images of Fashion-MNIST; one run
each, with default settings and no randomness in exact searches; {os.cpu_count()} cores
({platform.machine()}), Python {platform.python_version()}, NumPy {np.__version__}. Seconds
are those of a machine that other work shared, so only large differences mean anything. Made by
`python scripts/measure_graph_features.py{f" --limit {options.limit}" if options.limit else ""}`.
""",
    )


if __name__ == "__main__":
    main()
