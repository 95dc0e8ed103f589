"""A classifier of features, trained on few labels alone.

Shapes: N images, M of them labeled, D features, C classes.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

from tfgraphreg.errors import ConfigError, GraphError

# Chosen on held-out training images of Fashion-MNIST; see docs/propagation.md.
_GAMMA = 0.5
_RIDGE = 0.05
_SHARPNESS = 8.0
MOST = 5000
"""Labeled images that kernel ridge regression takes, their copies included."""
_BLOCK = 4096


def kernel_ridge(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    copies: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Class probabilities of all images by kernel ridge regression on the labeled ones.

    The kernel is exp(-|a - b|^2 / 2) of features scaled to length 1. One ridge regression a class
    (0.05 on the diagonal) predicts 1 - 1/C for images of the class and -1/C for others; the
    softmax of 8 times the predictions gives probabilities. At most 5,000 labeled images are
    used, evenly spaced in their order.

    Args:
        features: `[N, D]`.
        labels: `[N]` class numbers, -1 where unlabeled.
        num_classes: C.
        copies: `[V, D]` features and `[V]` class numbers of more images to learn from, such as
            mirror images of the labeled ones.

    Returns:
        `[N, C]` float64; each row sums to 1.

    Raises:
        GraphError: If no image is labeled, or shapes do not fit.
        ConfigError: If labels are multi-hot.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ConfigError(
            "`feature_classifier=kernel_ridge` needs one class an image.",
            received=f"labels of the shape {labels.shape}",
            cure="Use `feature_classifier=none`.",
        )
    if len(features) != len(labels):
        raise GraphError(
            "Features and labels must have one row for each image.",
            received=f"{len(features)} and {len(labels)} rows",
        )
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        raise GraphError("No image is labeled: there is nothing to learn from.")
    rows = unit_length(np.asarray(features, np.float32))
    anchors, classes = rows[known], labels[known]
    if copies is not None:
        anchors = np.concatenate([anchors, unit_length(np.asarray(copies[0], np.float32))])
        classes = np.concatenate([classes, copies[1]])
    if len(anchors) > MOST:
        kept = np.linspace(0, len(anchors) - 1, MOST).astype(int)
        anchors, classes = anchors[kept], classes[kept]
    gram = gaussian_kernel(anchors, anchors)
    gram[np.diag_indices_from(gram)] += _RIDGE
    targets = np.eye(num_classes)[classes] - 1 / num_classes
    dual = linalg.solve(gram, targets, assume_a="pos")
    found = np.empty((len(rows), num_classes))
    for start in range(0, len(rows), _BLOCK):
        scores = _SHARPNESS * gaussian_kernel(rows[start : start + _BLOCK], anchors) @ dual
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        found[start : start + _BLOCK] = scores / scores.sum(axis=1, keepdims=True)
    return found


def unit_length(rows: np.ndarray) -> np.ndarray:
    """`[N, D]` rows scaled to length 1; a row of zeros stays one."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def gaussian_kernel(rows: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """`[.., M]` float64: exp(-gamma |a - b|^2) of rows of length 1."""
    return np.exp(-_GAMMA * (2 - 2 * (rows @ anchors.T).astype(np.float64)))
