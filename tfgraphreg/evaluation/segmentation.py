"""How well every pixel is named.

All numbers come from one `[C, C]` count of pixels (row: true class, column: predicted).
`per-class` functions give NaN where a class cannot be judged; means leave those classes out
and are NaN if none is left. The Keras metrics of the same definitions are in
`tfgraphreg.evaluation.keras_metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import DataError

IGNORE = 255


def pixel_counts(
    labels: np.ndarray, predictions: np.ndarray, *, classes: int, ignore_label: int | None = IGNORE
) -> np.ndarray:
    """`[C, C]` int64: pixels by true class (row) and predicted class (column).

    Args:
        labels: Whole numbers of any shape.
        predictions: Whole numbers of the same shape, 0 to C - 1 wherever a pixel counts.
        classes: C.
        ignore_label: True label of pixels that do not count; None if all do.

    Raises:
        DataError: If shapes differ or a class number is out of range.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape:
        raise DataError(
            "`labels` and `predictions` must have the same shape.",
            received=f"{labels.shape} and {predictions.shape}",
        )
    if ignore_label is not None:
        counted = labels != ignore_label
        labels, predictions = labels[counted], predictions[counted]
    pairs = []
    for name, values in (("labels", labels), ("predictions", predictions)):
        values = values.ravel().astype(np.int64)
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise DataError(
                f"`{name}` must be from 0 to {classes - 1}, or the ignore label.",
                received=f"{values.min()} to {values.max()}, ignore_label={ignore_label}",
            )
        pairs.append(values)
    counts = np.bincount(pairs[0] * classes + pairs[1], minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.int64)


def pixel_accuracy(counts: np.ndarray) -> float:
    """PA: share of pixels that are named rightly. NaN without pixels."""
    return float(_ratio(np.trace(counts), counts.sum()))


def class_accuracy(counts: np.ndarray) -> np.ndarray:
    """`[C]`: share of each class's pixels named rightly. NaN where the class has none."""
    return _ratio(np.diag(counts), counts.sum(axis=1))


def mean_pixel_accuracy(counts: np.ndarray) -> float:
    """mPA: mean of `class_accuracy` over the classes that have pixels."""
    return _mean(class_accuracy(counts))


def iou(counts: np.ndarray) -> np.ndarray:
    """`[C]`: intersection over union (Jaccard index). NaN where a class is in neither."""
    right = np.diag(counts)
    return _ratio(right, counts.sum(axis=0) + counts.sum(axis=1) - right)


def mean_iou(counts: np.ndarray) -> float:
    """Mean of `iou` over the classes that are true or predicted anywhere."""
    return _mean(iou(counts))


def dice(counts: np.ndarray) -> np.ndarray:
    """`[C]`: Dice coefficient (F1), 2 IoU / (1 + IoU). NaN where a class is in neither."""
    return _ratio(2 * np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1))


def mean_dice(counts: np.ndarray) -> float:
    """Mean of `dice` over the classes that are true or predicted anywhere."""
    return _mean(dice(counts))


def segmentation_report(
    labels: np.ndarray,
    predictions: np.ndarray,
    class_names: Sequence[str],
    *,
    ignore_label: int | None = IGNORE,
) -> dict[str, Any]:
    """Every number above: `pixel_accuracy`, `mean_pixel_accuracy`, `mean_iou`, `mean_dice`,
    and `class_accuracy`, `iou`, `dice` by class name, with `confusion_matrix` and `pixels`.

    Arguments and errors are those of `pixel_counts`, with C names for the classes.
    """
    counts = pixel_counts(labels, predictions, classes=len(class_names), ignore_label=ignore_label)
    return report_of_counts(counts, class_names)


def report_of_counts(counts: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """`segmentation_report` of the `[C, C]` sum of `pixel_counts` over any number of images."""
    names = [str(name) for name in class_names]
    return {
        "pixel_accuracy": pixel_accuracy(counts),
        "mean_pixel_accuracy": mean_pixel_accuracy(counts),
        "mean_iou": mean_iou(counts),
        "mean_dice": mean_dice(counts),
        "class_accuracy": dict(zip(names, class_accuracy(counts).tolist())),
        "iou": dict(zip(names, iou(counts).tolist())),
        "dice": dict(zip(names, dice(counts).tolist())),
        "confusion_matrix": counts,
        "pixels": int(counts.sum()),
    }


def _ratio(part, whole):
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
