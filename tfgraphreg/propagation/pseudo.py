"""Pseudo-labels: labels for unlabeled images from the graph and from a classifier of its features.

Shapes: N images, C classes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfgraphreg.data.dataset import has_label
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.propagation.classsizes import size_factors
from tfgraphreg.propagation.propagate import Propagation, entropy, propagate

# Propagated probabilities are flat, so they are sharpened by a power; with fewer labels more, since
# the classifier is then less reliable. See docs/propagation.md for how these were chosen.
_SHARPER, _SHARP = 8, 4
_MANY = 20  # labels a class
_SMALLEST = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class PseudoLabels:
    """Labels to train on.

    Attributes:
        labels: `[N]` class numbers or `[N, C]` multi-hot rows; given labels are unchanged; -1 if no
            path leads to a labeled image.
        certainty: `[N]` from 0 to 1; 1 where the label was given.
        weights: `[N]` float32: how much each label counts in training.
    """

    labels: np.ndarray
    certainty: np.ndarray
    weights: np.ndarray


def many_labels(given: np.ndarray, num_classes: int) -> bool:
    """Whether 20 labels a class or more are given, on average; `given` is `[N]` bool."""
    return bool(given.sum() >= _MANY * num_classes)


def pseudo_labels(
    graph: SimilarityGraph,
    labels: np.ndarray,
    num_classes: int,
    *,
    method: str = "spreading",
    class_sizes: Any = None,
    second: np.ndarray | None = None,
    weighting: str = "equal",
    progress: Any = None,
) -> PseudoLabels:
    """Labels all images that the graph joins to labeled ones.

    Args:
        graph: Of N nodes.
        labels: `[N]` or `[N, C]`, -1 where unlabeled. Unlabeled images enter in no other way.
        num_classes: C.
        method: See `propagate`.
        class_sizes: See `propagate`.
        second: `[N, C]` probabilities of a second opinion, such as `kernel_ridge`; for one class
            an image. It is multiplied with the propagated probabilities to the 8th power (4th power
            from 20 labels a class).
        weighting: ``"equal"``: all labels count 1. ``"certainty"``: as certainty divided by its
            sum over the label's class, scaled to a mean of 1 (Iscen et al., Label Propagation for
            Deep Semi-supervised Learning, CVPR 2019); given labels have certainty 1.
        progress: See `propagate`.
    """
    found = propagate(
        graph,
        labels,
        num_classes,
        method=method,
        class_sizes=class_sizes,
        progress=progress,
    )
    given = has_label(labels)
    chosen, certainty = found.labels, found.certainty
    if second is not None:
        power = _SHARP if many_labels(given, num_classes) else _SHARPER
        chosen, certainty = _together(found, second, given, power)
    # Given labels stay, whatever rounding or the second opinion says.
    chosen = np.where(given.reshape(-1, *[1] * (labels.ndim - 1)), labels, chosen)
    chosen = chosen.astype(labels.dtype)
    weights = np.ones(len(labels), np.float32)
    if weighting == "certainty":
        weights = _by_certainty(chosen, certainty)
    return PseudoLabels(chosen, certainty, weights)


def _together(
    found: Propagation, second: np.ndarray, given: np.ndarray, power: float
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and certainty of the product of the two opinions, under the class sizes."""
    reached = found.reached & ~given
    logs = power * np.log(np.maximum(found.probabilities, _SMALLEST))
    logs = (logs + np.log(np.maximum(second, _SMALLEST)))[reached]
    both = np.exp(logs - logs.max(axis=1, keepdims=True))
    # A class with zero evidence everywhere could not get its share of images.
    both = np.maximum(both, np.finfo(float).tiny)
    if found.class_sizes is not None:
        both *= size_factors(both, found.class_sizes)[0]
    both /= both.sum(axis=1, keepdims=True)
    labels, certainty = found.labels.copy(), found.certainty.copy()
    labels[reached] = both.argmax(axis=1)
    certainty[reached] = np.clip(1 - entropy(both) / np.log(both.shape[1]), 0, 1)
    return labels, certainty


def _by_certainty(labels: np.ndarray, certainty: np.ndarray) -> np.ndarray:
    known = has_label(labels)
    weights = np.where(known, certainty, 0.0)
    if labels.ndim == 1:
        sums = np.bincount(labels[known], weights=weights[known], minlength=labels.max() + 1)
        weights[known] /= np.maximum(sums[labels[known]], _SMALLEST)
    if weights.sum() <= 0:
        return np.ones(len(labels), np.float32)
    return (weights * known.sum() / weights.sum()).astype(np.float32)
