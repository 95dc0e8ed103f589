"""How well probabilities name the one class of each image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.evaluation.arrays import as_labels, is_labeled
from tfgraphreg.search.measured import as_matrix

_NUMBERS = (
    "accuracy",
    "top_5_accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "weighted_precision",
    "weighted_recall",
    "weighted_f1",
    "roc_auc",
    "log_loss",
    "expected_calibration_error",
    "cohen_kappa",
)


def classification_report(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    bins: int = 15,
) -> dict[str, Any]:
    """Every number about single-label predictions.

    The predicted class is the one of highest probability; among equal ones, the lowest number.

    Rules for what is undefined:
      - Items with label -1 are ignored. With no labeled item, every number is NaN.
      - A class without items has accuracy NaN and stays out of every mean over classes;
        predictions of it still count as mistakes. A class that has items and is never
        predicted has precision 0.
      - `roc_auc` is the mean, over classes that have both members and others, of the area of
        one against the rest; NaN if there is no such class.
      - `cohen_kappa` is NaN if labels and predictions are all one class.
      - `top_5_accuracy` is 1 if there are 5 classes or fewer.

    Args:
        labels: `[N]` class numbers, -1 where unlabeled.
        probabilities: `[N, C]`, rows that sum to one (to 1%; they are scaled to exactly one).
        class_names: C different names.
        bins: Number of equal bins (low, high] of confidence for the calibration error.

    Returns:
        A dictionary of floats in [0, 1] (`log_loss` in nats, 0 or more; `cohen_kappa` in
        [-1, 1]) under the names `accuracy`, `top_5_accuracy`, `balanced_accuracy`,
        `macro_precision`, `macro_recall`, `macro_f1`, `weighted_precision`,
        `weighted_recall`, `weighted_f1`, `roc_auc`, `log_loss`,
        `expected_calibration_error` (Guo et al. 2017), `cohen_kappa`; and
        `per_class_accuracy` {name: share of the class that is recognized},
        `support` {name: items}, `confusion_matrix` `[C, C]` int64 (row: true, column:
        predicted), `items`, `calibration_bins`.

    Raises:
        DataError: If shapes, labels or probabilities are not as above.
    """
    probabilities = _as_probabilities(probabilities)
    labels = as_labels("labels", labels, len(probabilities))
    classes = probabilities.shape[1]
    names = [str(name) for name in class_names]
    if len(names) != classes or len(set(names)) != classes:
        raise DataError(
            "`class_names` must have one name of its own for each column of `probabilities`.",
            received=f"{len(names)} names ({len(set(names))} different), {classes} columns",
        )
    if labels.ndim != 1:
        raise DataError(
            "`labels` must be class numbers.",
            received=f"shape={labels.shape}",
            cure="Use multilabel_report for multi-hot labels.",
        )
    if labels.size and labels.max() >= classes:
        raise DataError(
            "`labels` must be smaller than the number of columns of `probabilities`.",
            received=f"label {labels.max()}, {classes} columns",
        )
    known = is_labeled(labels)
    labels, probabilities = labels[known], probabilities[known]
    predicted = probabilities.argmax(axis=1)
    matrix = np.bincount(labels * classes + predicted, minlength=classes**2)
    matrix = matrix.reshape(classes, classes).astype(np.int64)
    support = matrix.sum(axis=1)
    with np.errstate(invalid="ignore"):
        recalls = np.diag(matrix) / support
    numbers = dict.fromkeys(_NUMBERS, float("nan"))
    if len(labels):
        numbers.update(_hard_numbers(labels, predicted, support))
        numbers.update(
            top_5_accuracy=top_k_accuracy(labels, probabilities, k=5),
            roc_auc=_roc_auc(labels, probabilities),
            log_loss=_log_loss(labels, probabilities),
            expected_calibration_error=expected_calibration_error(labels, probabilities, bins=bins),
        )
    return {
        **numbers,
        "per_class_accuracy": dict(zip(names, recalls.tolist())),
        "support": dict(zip(names, support.tolist())),
        "confusion_matrix": matrix,
        "items": len(labels),
        "calibration_bins": bins,
    }


def top_k_accuracy(labels: np.ndarray, probabilities: np.ndarray, *, k: int) -> float:
    """Share of items whose class is among the `k` most probable.

    Among equal probabilities the lower class number comes first, so that k=1 is the accuracy.

    Args:
        labels: `[N]` class numbers.
        probabilities: `[N, C]`.
        k: At least 1.
    """
    if k < 1:
        raise ConfigError("`k` must be at least 1.", received=f"k={k}")
    if not len(labels):
        return float("nan")
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    rank = ((probabilities > own) | ((probabilities == own) & before)).sum(axis=1)
    return float((rank < k).mean())


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, *, bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy, over bins of confidence, weighted by items.

    Guo et al. 2017, "On Calibration of Modern Neural Networks". The bins have equal width and
    are open below: (0, 1/bins], ..., (1 - 1/bins, 1].

    Args:
        labels: `[N]` class numbers.
        probabilities: `[N, C]`.
        bins: At least 1.
    """
    if bins < 1:
        raise ConfigError("`bins` must be at least 1.", received=f"bins={bins}")
    if not len(labels):
        return float("nan")
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    gap = np.bincount(which, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def _as_probabilities(values: np.ndarray) -> np.ndarray:
    values = as_matrix("probabilities", values, dtype=np.float64)
    sums = values.sum(axis=1)
    if (values < 0).any() or (np.abs(sums - 1) > 0.01).any():
        row = int(np.flatnonzero((values < 0).any(axis=1) | (np.abs(sums - 1) > 0.01))[0])
        raise DataError(
            "Rows of `probabilities` must be non-negative and sum to one.",
            received=f"row {row} with minimum {values[row].min():.4g} and sum {sums[row]:.4g}",
            cure="Apply a softmax to logits first.",
        )
    return values / sums[:, None]


def _hard_numbers(labels: np.ndarray, predicted: np.ndarray, support: np.ndarray) -> dict:
    from sklearn import metrics

    present = np.flatnonzero(support)
    numbers = {"accuracy": float(metrics.accuracy_score(labels, predicted))}
    for average in ("macro", "weighted"):
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            labels, predicted, labels=present, average=average, zero_division=0.0
        )
        numbers[f"{average}_precision"] = float(precision)
        numbers[f"{average}_recall"] = float(recall)
        numbers[f"{average}_f1"] = float(f1)
    numbers["balanced_accuracy"] = numbers["macro_recall"]
    with warnings.catch_warnings():
        # Labels and predictions of one single class: stated above to be NaN.
        warnings.simplefilter("ignore")
        one_class = len(np.union1d(labels, predicted)) == 1
        kappa = float("nan") if one_class else metrics.cohen_kappa_score(labels, predicted)
    numbers["cohen_kappa"] = float(kappa)
    return numbers


def _roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    from sklearn import metrics

    areas = []
    for column in range(probabilities.shape[1]):
        members = labels == column
        if members.any() and not members.all():
            areas.append(metrics.roc_auc_score(members, probabilities[:, column]))
    return float(np.mean(areas)) if areas else float("nan")


def _log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    own = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, np.finfo(np.float64).eps)).mean())
