"""What simple classifiers can read off a frozen embedding."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.evaluation.arrays import as_labels, is_labeled
from tfgraphreg.search.measured import as_matrix

PROBES = ("knn", "logistic_regression", "linear_svm", "random_forest", "mlp")
# These give the same classifier for every seed.
_SEEDLESS = ("knn", "logistic_regression")


def probe_report(
    embedding: np.ndarray,
    labels: np.ndarray,
    test_embedding: np.ndarray,
    test_labels: np.ndarray,
    *,
    probes: Sequence[str] = PROBES,
    seeds: Sequence[int] = (0, 1, 2),
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Test accuracy of classifiers of scikit-learn that are trained on an embedding.

    `knn` votes among the 10 nearest (Euclidean); the others see features scaled to mean 0 and
    variance 1: `logistic_regression`, `linear_svm`, `random_forest` (100 trees) and `mlp` (one
    hidden layer of 64, stopped early on a tenth of its data). All other settings are
    scikit-learn's. `knn` and `logistic_regression` do not depend on a seed, except through
    `limit`. Unlabeled items are left out.

    Args:
        embedding: `[N, D]` to train on.
        labels: `[N]` class numbers, -1 where unlabeled; at least two classes.
        test_embedding: `[M, D]`.
        test_labels: `[M]`.
        probes: Names of `PROBES`.
        seeds: One run each.
        limit: Train on this many random items, chosen by the seed; None for all.
        progress: Called with (runs done, runs in all).

    Returns:
        For each probe `accuracy` (mean over seeds), `std` (of the sample, NaN for one seed)
        and `accuracies`, one for each seed. NaN where no test item is labeled.

    Raises:
        ConfigError: If a probe is unknown or there is no seed.
        DataError: If arrays do not fit together or fewer than two classes are labeled.
    """
    unknown = [name for name in probes if name not in PROBES]
    if unknown or not seeds:
        raise ConfigError(
            f"`probes` must be among {', '.join(PROBES)}, with at least one seed.",
            received=f"probes={list(probes)}, seeds={list(seeds)}",
        )
    train_x, train_y = _labeled("embedding", embedding, labels)
    test_x, test_y = _labeled("test_embedding", test_embedding, test_labels)
    if train_x.shape[1] != test_x.shape[1]:
        raise DataError(
            "Both embeddings must have the same width.",
            received=f"{train_x.shape[1]} and {test_x.shape[1]}",
        )
    if len(np.unique(train_y)) < 2:
        raise DataError(
            "A probe needs labeled items of at least two classes to train on.",
            received=f"{len(np.unique(train_y))} classes",
        )
    report, done = {}, 0
    for name in probes:
        accuracies: list[float] = []
        for seed in seeds:
            if accuracies and name in _SEEDLESS and limit is None:
                accuracies.append(accuracies[0])
            else:
                x, y = _subset(train_x, train_y, limit, seed)
                accuracies.append(_accuracy(name, seed, x, y, test_x, test_y))
            done += 1
            if progress is not None:
                progress(done, len(probes) * len(seeds))
        report[name] = {
            "accuracy": float(np.mean(accuracies)),
            "std": float(np.std(accuracies, ddof=1)) if len(seeds) > 1 else float("nan"),
            "accuracies": accuracies,
        }
    return report


def _labeled(name: str, values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = as_matrix(name, values)
    labels = as_labels(f"labels of {name}", labels, len(values))
    if labels.ndim != 1:
        raise DataError("Probes need one class number for each item.", received=f"{labels.shape}")
    known = is_labeled(labels)
    return values[known], labels[known]


def _subset(
    x: np.ndarray, y: np.ndarray, limit: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    if limit is None or limit >= len(x):
        return x, y
    chosen = np.random.default_rng(seed).permutation(len(x))[:limit]
    return x[chosen], y[chosen]


def _accuracy(
    name: str,
    seed: int,
    x: np.ndarray,
    y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
) -> float:
    if not len(test_y):
        return float("nan")
    classifier = _classifier(name, seed, len(x), np.unique(y, return_counts=True)[1].min())
    with warnings.catch_warnings():
        # A probe that stopped at its last iteration is still a probe.
        warnings.filterwarnings("ignore", module="sklearn")
        classifier.fit(x, y)
    return float(classifier.score(test_x, test_y))


def _classifier(name: str, seed: int, items: int, smallest: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    if name == "knn":
        return KNeighborsClassifier(n_neighbors=min(10, items))
    if name == "logistic_regression":
        last = LogisticRegression(max_iter=500)
    elif name == "linear_svm":
        last = LinearSVC(random_state=seed, dual="auto")
    elif name == "random_forest":
        last = RandomForestClassifier(random_state=seed)
    else:
        # Stopping early holds out a tenth by class, which tiny classes do not allow.
        early = smallest >= 2 and items >= 100
        last = MLPClassifier((64,), random_state=seed, early_stopping=early, max_iter=100)
    return make_pipeline(StandardScaler(), last)
