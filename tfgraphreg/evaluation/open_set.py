"""How well distances tell images of known classes from unknown ones.

Shapes: Q images, G classes of the searched images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import DataError
from tfgraphreg.search.threshold import accepting_limit


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """The probability that an unknown image scores higher than a known one; ties count half.

    It is the area under the curve of unknowns found against knowns rejected, over all limits.

    Args:
        known: Scores of images of known classes, such as distances to the nearest image.
        unknown: Scores of other images.

    Returns:
        From 0 to 1; 0.5 by chance; NaN if one of them is empty.
    """
    from scipy.stats import rankdata

    n, m = len(known), len(unknown)
    if not n or not m:
        return float("nan")
    ranks = rankdata(np.concatenate([known, unknown]))[n:]
    return float((ranks.sum() - m * (m + 1) / 2) / (n * m))


def open_set_report(known: np.ndarray, unknown: np.ndarray, *, limit: float) -> dict[str, Any]:
    """What a limit does to known and unknown images.

    Args:
        known: Scores of images of known classes; those up to `limit` are accepted.
        unknown: Scores of other images.
        limit: The limit.

    Returns:
        `auroc`; `known_accepted` and `unknown_accepted`, shares of the images, NaN if there are
        none; `known` and `unknown`, their numbers.
    """
    return {
        "auroc": auroc(known, unknown),
        "known_accepted": _accepted(known, limit),
        "unknown_accepted": _accepted(unknown, limit),
        "known": len(known),
        "unknown": len(unknown),
    }


def left_out_report(
    distances: np.ndarray, labels: np.ndarray, names: Sequence[str], *, share: float
) -> dict[str, Any]:
    """Each class in turn left out of what is searched, and its images asked about.

    The limit is set anew for each, by the images of the other classes. A network that was trained
    on the class keeps its images together, so that this is easier than a class that is new to it.

    Args:
        distances: `[Q, G]`, from each image to the nearest searched one of each class.
        labels: `[Q]` class names; images whose class is none of `names` take no part.
        names: G class names.
        share: Of the images of the other classes that the limit accepts.

    Returns:
        `classes`: for each class that has images, if another class is there, its
        `open_set_report`; `auroc` and `unknown_accepted`: means over these classes, NaN if there
        are none.
    """
    classes = {}
    for column, name in enumerate(names):
        others = np.delete(distances, column, axis=1)
        own, rest = labels == name, (labels != name) & np.isin(labels, names)
        if not own.any() or not others.shape[1]:
            continue
        known, unknown = others[rest].min(axis=1), others[own].min(axis=1)
        try:
            limit = accepting_limit(known, share)
        except DataError:  # Too few images for this share.
            limit = float("nan")
        classes[name] = open_set_report(known, unknown, limit=limit)
    return {
        "classes": classes,
        "auroc": _mean([found["auroc"] for found in classes.values()]),
        "unknown_accepted": _mean([found["unknown_accepted"] for found in classes.values()]),
    }


def _accepted(scores: np.ndarray, limit: float) -> float:
    return float(np.mean(scores <= limit)) if len(scores) and not np.isnan(limit) else float("nan")


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if not np.isnan(value)]
    return float(np.mean(kept)) if kept else float("nan")
