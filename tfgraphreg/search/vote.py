"""The class of a query by the labels of its nearest items.

Shapes: Q queries, K neighbors.
"""

from __future__ import annotations

import numpy as np


def vote(labels: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The label with the largest weight among the nearest items, and its share of all weights.

    A neighbor weighs 1 / distance; where some lie at distance 0, only these count. Neighbors
    without a label take no part. Of equal weights the first label in alphabetical order wins.
    Without missing labels this is scikit-learn's `KNeighborsClassifier(weights="distance")`.

    Args:
        labels: `[Q, K]` strings, "" where there is none.
        distances: `[Q, K]`, at least 0; infinite where there is no neighbor.

    Returns:
        `[Q]` labels, "" where no neighbor has one; `[Q]` float64 shares in [0, 1].
    """
    labels = np.asarray(labels, dtype=str)
    names, numbers = np.unique(labels, return_inverse=True)
    counted = (labels != "") & np.isfinite(distances)
    zero = counted & (distances == 0)
    far = np.where(distances > 0, np.asarray(distances, np.float64), 1)
    weights = np.where(zero.any(axis=1, keepdims=True), zero, counted / far)
    scores = np.zeros((len(labels), len(names)))
    rows = np.broadcast_to(np.arange(len(labels))[:, None], labels.shape)
    np.add.at(scores, (rows, numbers.reshape(labels.shape)), weights)
    total = scores.sum(axis=1)
    if not scores.size:
        return np.full(len(labels), "", dtype=str), total
    best = scores.argmax(axis=1)
    shares = scores[np.arange(len(labels)), best] / np.where(total > 0, total, 1)
    return np.where(total > 0, names[best], ""), shares
