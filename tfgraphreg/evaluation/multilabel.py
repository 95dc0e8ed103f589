"""How well scores name the several classes of each image.

Average precision is that of the Pascal VOC development kit (Everingham et al. 2010, "The
Pascal Visual Object Classes (VOC) Challenge"). Shapes: N items, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import DataError
from tfgraphreg.evaluation.arrays import as_labels, is_labeled
from tfgraphreg.search.measured import as_matrix


def average_precision_voc(
    relevant: np.ndarray,
    scores: np.ndarray,
    *,
    difficult: np.ndarray | None = None,
    eleven_point: bool = False,
) -> float:
    """Average precision of one class by the rules of the VOC development kit.

    Items go by falling score, equal scores in the order given. Precision at a recall is the
    highest precision at that recall or a higher one. The value is its mean at the recalls
    0, 0.1, ..., 1 (VOC 2007) or the area under it (VOC 2010 and later).

    Args:
        relevant: `[N]` bool.
        scores: `[N]` finite numbers, higher is more certain.
        difficult: `[N]` bool; these items count neither for nor against.
        eleven_point: Whether to use the definition of VOC 2007.

    Returns:
        A value in [0, 1]; NaN if nothing is relevant.
    """
    relevant, scores = np.asarray(relevant, bool), np.asarray(scores, np.float64)
    if difficult is not None:
        keep = ~np.asarray(difficult, bool)
        relevant, scores = relevant[keep], scores[keep]
    if not relevant.any():
        return float("nan")
    hits = relevant[np.argsort(-scores, kind="stable")]
    return average_over_recall(hits, int(hits.sum()), eleven_point=eleven_point)


def average_over_recall(hits: np.ndarray, positives: int, *, eleven_point: bool) -> float:
    """VOC's average precision of a ranking.

    Args:
        hits: `[N]` bool, the most certain first: which are right.
        positives: How many there are to find, at least 1.
        eleven_point: Whether to use the definition of VOC 2007.
    """
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if eleven_point:
        # recall >= step / 10, in whole numbers so that 0.3 is 3/10 exactly
        values = [best[found * 10 >= step * positives].max(initial=0) for step in range(11)]
        return float(np.mean(values))
    return float(best[hits].sum() / positives)


def multilabel_report(
    labels: np.ndarray,
    scores: np.ndarray,
    class_names: Sequence[str],
    *,
    difficult: np.ndarray | None = None,
    threshold: float = 0.5,
) -> dict[str, Any]:
    """Every number about multi-label predictions.

    Rules for what is undefined:
      - Unlabeled items (-1 in every column) are ignored. A single -1 in a labeled row, and a
        `difficult` entry, is ignored for its class.
      - A class without a relevant item has average precision NaN and stays out of the means
        over classes (`macro_f1` too); predictions of it still count in the micro numbers.
      - A class that is never predicted has F1 0. With no relevant item at all, every mean is
        NaN.

    Args:
        labels: `[N, C]` of 0 and 1, -1 where unknown.
        scores: `[N, C]` finite, such as sigmoid probabilities.
        class_names: C different names.
        difficult: `[N, C]` bool.
        threshold: A class is predicted where its score is at least this.

    Returns:
        A dictionary of `mean_average_precision` (area) and
        `mean_average_precision_11_point`, `micro_precision`, `micro_recall`, `micro_f1`,
        `macro_f1`, all in [0, 1]; `average_precision`, `average_precision_11_point`, `f1` and
        `support` by class name; `items` and `threshold`.

    Raises:
        DataError: If shapes or values are not as above.
    """
    scores = as_matrix("scores", scores, dtype=np.float64)
    labels = as_labels("labels", labels, len(scores))
    names = [str(name) for name in class_names]
    if labels.shape != scores.shape or len(set(names)) != scores.shape[1]:
        raise DataError(
            "`labels` and `scores` must have one column for each of the different class names.",
            received=f"shapes {labels.shape} and {scores.shape}, {len(set(names))} names",
        )
    ignored = np.zeros(labels.shape, bool) if difficult is None else np.asarray(difficult, bool)
    if ignored.shape != labels.shape:
        raise DataError(
            "`difficult` must have the shape of `labels`.",
            received=f"shapes {ignored.shape} and {labels.shape}",
        )
    ignored = ignored | (labels < 0)
    relevant = (labels > 0) & ~ignored
    support = relevant.sum(axis=0)
    areas, elevens = (
        [
            average_precision_voc(r, s, difficult=d, eleven_point=eleven)
            for r, s, d in zip(relevant.T, scores.T, ignored.T)
        ]
        for eleven in (False, True)
    )
    f1, micro = _threshold_numbers(relevant, (scores >= threshold) & ~ignored)
    return {
        "mean_average_precision": _mean(areas, support),
        "mean_average_precision_11_point": _mean(elevens, support),
        **micro,
        "macro_f1": _mean(f1, support),
        "average_precision": dict(zip(names, areas)),
        "average_precision_11_point": dict(zip(names, elevens)),
        "f1": dict(zip(names, f1)),
        "support": dict(zip(names, support.tolist())),
        "items": int(is_labeled(labels).sum()),
        "threshold": threshold,
    }


def _threshold_numbers(relevant: np.ndarray, predicted: np.ndarray) -> tuple[list, dict]:
    """F1 of every class, and the numbers over all decisions at once."""
    right = (relevant & predicted).sum(axis=0)
    both = relevant.sum(axis=0) + predicted.sum(axis=0)
    f1 = np.where(relevant.any(axis=0), 2 * right / np.maximum(both, 1), np.nan)
    micro = dict.fromkeys(("micro_precision", "micro_recall", "micro_f1"), float("nan"))
    if relevant.any():
        micro = {
            "micro_precision": float(right.sum() / max(predicted.sum(), 1)),
            "micro_recall": float(right.sum() / relevant.sum()),
            "micro_f1": float(2 * right.sum() / both.sum()),
        }
    return f1.tolist(), micro


def _mean(values: Sequence[float], support: np.ndarray) -> float:
    present = np.asarray(values)[support > 0]
    return float(present.mean()) if len(present) else float("nan")
