"""Measures what `audit` finds of faults that were put into Fashion-MNIST, beside cleanlab.

Fills the tables in docs/audit.md.

python tools/measure_audit.py                                  60,000 training images, seed 0
python tools/measure_audit.py --split test --features pca      10,000 test images, in minutes
python tools/measure_audit.py --parts scores                   the table of how the score was chosen
"""

import argparse
import io
import os
import pathlib
import platform
import sys
import time

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_predict

from tfgraphreg.audit import find_duplicates, find_label_errors, find_outliers
from tfgraphreg.audit import labels as judge
from tfgraphreg.benchmark.results import commit, fill_measured
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.features import extract_features
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.recipes.audit import LISTED_FROM
from tfgraphreg.storage import cache_folder

NOISES = (("nearest", 0.1), ("uniform", 0.1), ("nearest", 0.05), ("nearest", 0.2))
BESIDE = (("nearest", 0.1), ("uniform", 0.1))  # where cleanlab is measured too
COPIES = 200  # of each sort
CHOICE, CHOICE_SEEDS = 12_000, (100, 101)  # images and noise by which the score was chosen


def with_noise(vectors, labels, noise, share, seed):
    """Labels of which a share is wrong: of any other class, or of the nearest by class means."""
    rng = np.random.default_rng(seed)
    bad = rng.choice(len(labels), round(share * len(labels)), replace=False)
    given, count = labels.copy(), int(labels.max()) + 1
    if noise == "uniform":
        given[bad] = (labels[bad] + rng.integers(1, count, len(bad))) % count
    else:
        means = np.stack([vectors[labels == c].mean(axis=0) for c in range(count)])
        between = np.linalg.norm(means[:, None] - means[None], axis=2)
        np.fill_diagonal(between, np.inf)
        given[bad] = between.argmin(axis=1)[labels[bad]]
    return given, given != labels


def at_threshold(bad, said):
    """Precision and recall in percent."""
    right = (bad & said).sum()
    return f"{100 * right / max(said.sum(), 1):.1f} / {100 * right / bad.sum():.1f}"


def graph_of(vectors):
    """The graph of the command."""
    method = "ivf" if len(vectors) >= LISTED_FROM else "auto"
    return knn_graph(vectors, k=10, weighting="local_gaussian", method=method)


def label_rows(vectors, labels, seed):
    """A row for each noise and method: average precision, precision / recall, seconds."""
    for noise, share in NOISES:
        given, bad = with_noise(vectors, labels, noise, share, seed)
        start = time.process_time()
        graph = graph_of(vectors)
        built = time.process_time() - start
        for name, second in (("graph and vectors", vectors), ("graph alone", None)):
            start = time.process_time()
            found = find_label_errors(graph, given, 10, vectors=second)
            seconds = built + time.process_time() - start
            score = average_precision_score(bad, found.scores)
            yield noise, share, name, score, at_threshold(bad, found.suspected), seconds
        if (noise, share) in BESIDE:
            yield from cleanlab_rows(vectors, given, bad, noise, share)


def cleanlab_rows(vectors, given, bad, noise, share):
    """Of cleanlab by its usual recipe: out-of-fold probabilities of a logistic regression."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    start = time.process_time()
    model = LogisticRegression(max_iter=1000)
    chances = cross_val_predict(model, vectors, given, cv=5, method="predict_proba")
    issues = find_label_issues(given, chances)
    seconds = time.process_time() - start
    for method in ("self_confidence", "normalized_margin"):
        score = average_precision_score(
            bad, -get_label_quality_scores(given, chances, method=method)
        )
        yield noise, share, f"cleanlab, {method}", score, at_threshold(bad, issues), seconds


def score_rows(vectors, labels):
    """A row for each score that was compared: its average precision, mean over the seeds."""
    graph = knn_graph(vectors, k=10, weighting="local_gaussian")
    tried = {}
    for seed in CHOICE_SEEDS:
        given, bad = with_noise(vectors, labels, "nearest", 0.1, seed)
        both = find_label_errors(graph, given, 10, vectors=vectors)
        product = np.square(both.probabilities)
        product /= product.sum(axis=1, keepdims=True)
        scores = {
            "share of disagreeing neighbors": both.disagreement,
            **{f"spreading, alpha {a}": spreading(graph, given, a) for a in (0.5, 0.8, 0.99)},
            "product of spreading and regression": against_the_given(product, given),
            "their geometric mean": both.scores,
        }
        for name, score in scores.items():
            tried.setdefault(name, []).append(average_precision_score(bad, score))
    for name, precisions in tried.items():
        yield name, float(np.mean(precisions))


def spreading(graph, given, alpha):
    """Scores by the graph alone, with another alpha than the package's."""
    kept, judge._ALPHA = judge._ALPHA, alpha
    try:
        return find_label_errors(graph, given, 10).scores
    finally:
        judge._ALPHA = kept


def against_the_given(probabilities, given):
    """The likeliest other class less the given one."""
    rows = np.arange(len(given))
    others = probabilities.copy()
    others[rows, given] = -1
    return others.max(axis=1) - probabilities[rows, given]


def copy_rows(images, feature, seed):
    """A row for each sort of copy: which are found; and what else is called a copy."""
    rng = np.random.default_rng(seed)
    makers = {
        "equal": lambda image: image,
        "JPEG, quality 90": lambda image: as_jpeg(image, 90),
        "JPEG, quality 75": lambda image: as_jpeg(image, 75),
        "JPEG, quality 50": lambda image: as_jpeg(image, 50),
        "noise of 5 levels": lambda image: image + rng.normal(0, 5, image.shape),
        "10 % brighter": lambda image: image * 1.1,
        "moved by a pixel": lambda image: np.roll(image, 1, axis=1),
    }
    chosen = rng.choice(len(images), COPIES * len(makers), replace=False)
    parts = np.array_split(chosen, len(makers))
    copies = [
        np.clip(np.round(make(images[i].astype(float))), 0, 255).astype(np.uint8)
        for make, part in zip(makers.values(), parts)
        for i in part
    ]
    together = np.concatenate([images, np.stack(copies)])
    graph = graph_of(extract_features(feature, together))
    start = time.process_time()
    found = {tuple(p) for p in find_duplicates(graph, together).pairs.tolist()}
    seconds = time.process_time() - start
    wanted = [(int(i), len(images) + n) for n, i in enumerate(chosen)]
    for name, part in zip(
        makers, np.split(np.arange(len(chosen)), np.cumsum([*map(len, parts)])[:-1])
    ):
        yield name, len(part), np.mean([wanted[n] in found for n in part])
    first = found_in_the_clean(found, len(images))
    wrong = found - set(wanted) - first
    yield (
        "precision of the pairs that hold a copy",
        len(found - first),
        1 - len(wrong) / len(found - first),
    )
    yield "pairs among the images themselves", len(first), None
    yield f"CPU seconds, {len(together)} images, without the graph", round(seconds, 1), None


def found_in_the_clean(found, count):
    """Pairs of images that were there before any copy was made."""
    return {pair for pair in found if max(pair) < count}


def as_jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image[..., 0].astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).astype(float)[..., None]


def stranger_rows(images, feature, seed):
    """Handwritten digits and noise among the images: how many are outliers."""
    rng = np.random.default_rng(seed)
    digits = load_dataset("digits").train.images[rng.choice(1400, 30, replace=False)]
    large = np.pad(
        np.kron(digits, np.ones((1, 3, 3, 1), np.uint8)), ((0, 0), (2, 2), (2, 2), (0, 0))
    )
    noise = rng.integers(0, 256, (30, *images.shape[1:]), np.uint8)
    together = np.concatenate([images, large, noise])
    vectors = extract_features(feature, together)
    graph = knn_graph(vectors, k=10)
    score, said = find_outliers(graph, vectors)
    strange = np.arange(len(together)) >= len(images)
    for name, mine in (("handwritten digits", slice(-60, -30)), ("noise", slice(-30, None))):
        yield name, 30, float(said[mine].mean())
    yield "of the images themselves", len(images), float(said[~strange].mean())
    yield "average precision", 60, average_precision_score(strange, score)


def choose(train, options):
    """Fills the table of scores."""
    images, labels = train.images[:CHOICE], train.labels[:CHOICE]
    rows = list(score_rows(extract_features(options.features, images), labels))
    print(*rows, sep="\n", flush=True)
    lines = [
        *table(("score", "average precision"), rows),
        f"Provenance: the first {CHOICE:,} training images of Fashion-MNIST, {options.features} "
        f"features, k=10, 10 % noise by nearest class, mean of seeds "
        f"{' and '.join(map(str, CHOICE_SEEDS))}; commit {commit()}. Made by "
        f"`python {' '.join(sys.argv)}`.",
    ]
    if options.page.exists():
        fill_measured(options.page, lines, mark="scores")


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows] + [""]


def cell(value):
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--features", default="patches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/audit.md"))
    parser.add_argument("--parts", nargs="*", default=["labels", "copies", "strangers"])
    options = parser.parse_args()
    data = load_dataset("fashion_mnist")
    if "scores" in options.parts:
        choose(data.train, options)
        options.parts.remove("scores")
        if not options.parts:
            return
    split = getattr(data, options.split)
    vectors = extract_features(
        options.features,
        split.images,
        cache_dir=cache_folder() / "features",
        fingerprint_key=[data.checksum, options.split],
    )
    lines = []
    if "labels" in options.parts:
        rows = []
        for noise, share, name, score, both, seconds in label_rows(
            vectors, split.labels, options.seed
        ):
            rows.append((f"{100 * share:g} % {noise}", name, score, both, f"{seconds:.1f}"))
            print(*rows[-1], flush=True)
        head = ("noise", "method", "average precision", "precision / recall (%)", "CPU seconds")
        lines += table(head, rows)
    if "copies" in options.parts:
        rows = list(copy_rows(split.images, options.features, options.seed))
        print(*rows, sep="\n", flush=True)
        lines += table(("copies", "number", "found"), rows)
    if "strangers" in options.parts:
        rows = list(stranger_rows(split.images, options.features, options.seed))
        print(*rows, sep="\n", flush=True)
        lines += table(("strangers", "number", "outliers"), rows)
    lines.append(
        f"Provenance: Fashion-MNIST, the {len(split):,} {options.split} images, {options.features} "
        f"features, k=10, seed {options.seed}, one run; CPU seconds of all threads, the graph "
        f"included; {os.cpu_count()} cores ({platform.machine()}), shared with other work; Python "
        f"{platform.python_version()}, NumPy {np.__version__}; commit {commit()}. Made by "
        f"`python {' '.join(sys.argv)}`."
    )
    if options.page.exists():
        fill_measured(options.page, lines)


if __name__ == "__main__":
    main()
