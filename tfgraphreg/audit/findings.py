"""All checks of images and labels together, as one list of findings.

Shapes: N images, D features, C classes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfgraphreg.audit.duplicates import Duplicates, find_duplicates
from tfgraphreg.audit.labels import LabelErrors, find_label_errors
from tfgraphreg.audit.oddities import (
    Blend,
    blended_classes,
    find_hubs,
    find_isolated,
    find_outliers,
)
from tfgraphreg.data.dropped import DROP
from tfgraphreg.errors import DataError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.progress import Progress, silent

ISSUES = (
    "label_error",
    "leak",
    "exact_duplicate",
    "near_duplicate",
    "outlier",
    "isolated",
    "hub",
)
CHECK = "check"
_TRAIN = "train"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about one image.

    Attributes:
        item: Its number.
        issue: One of `ISSUES`.
        score: Of label errors see `LabelErrors.scores`; of duplicates and leaks 1 - the difference
            to the copy; of outliers the distance to the neighbors as a multiple of the usual one;
            of hubs how often it is a neighbor; of isolated images 1. The larger, the surer.
        action: ``"drop"``: `train --drop` leaves the image out; ``"check"``: look at it.
        suggested: Of label errors the class number that fits better, else -1.
        other: Of duplicates and leaks the number of the copy that stays, else -1.
    """

    item: int
    issue: str
    score: float
    action: str
    suggested: int = -1
    other: int = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
    """What was found.

    Attributes:
        findings: By issue in the order of `ISSUES`, the surest first. An image may have several.
        label_errors: Of every image; None with several classes an image, or without two labels
            of a class.
        duplicates: Pairs of copies.
        blends: Pairs of classes that run into each other; none with several classes an image.
    """

    findings: tuple[Finding, ...]
    label_errors: LabelErrors | None
    duplicates: Duplicates
    blends: tuple[Blend, ...]

    def counts(self) -> dict[str, int]:
        """Findings of each issue."""
        return {issue: sum(f.issue == issue for f in self.findings) for issue in ISSUES}


def audit(
    graph: SimilarityGraph,
    images: Any,
    labels: np.ndarray,
    num_classes: int,
    *,
    vectors: np.ndarray | None = None,
    distance: str = "cosine",
    splits: np.ndarray | None = None,
    progress: Progress = silent,
) -> Audit:
    """Looks for wrong labels, copies, outliers, isolated images, hubs and classes that blend.

    Args:
        graph: N nodes, such as `knn_graph(vectors, k=10, weighting="local_gaussian")`.
        images: `[N, H, W, C]` uint8, or vectors `[N, D]`: what copies are recognized by.
        labels: `[N]` class numbers, -1 where unlabeled; of `[N, C]` rows, for several classes an
            image, nothing is judged.
        num_classes: C.
        vectors: `[N, D]` what the graph compares: a second opinion on labels, and the only way to
            tell outliers.
        distance: By which outliers are measured.
        splits: `[N]` names of the split of each image. A training image with a copy outside
            ``"train"`` is a leak. By default all are training images.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        GraphError: If arrays do not fit the graph.
        DataError: If images or `splits` do not.
    """
    splits = np.full(graph.num_nodes, _TRAIN) if splits is None else np.asarray(splits)
    if splits.shape != (graph.num_nodes,):
        raise DataError(
            "`splits` must name the split of every image.",
            received=f"shape={splits.shape}, {graph.num_nodes} images",
        )
    labels = np.asarray(labels)
    training = splits == _TRAIN
    errors, blends = None, []
    if labels.ndim == 1:
        if np.bincount(labels[labels >= 0], minlength=1).max() >= 2:
            errors = find_label_errors(
                graph, labels, num_classes, vectors=vectors, progress=progress
            )
        blends = blended_classes(graph, labels, num_classes)
    copies = find_duplicates(graph, images, progress=progress)
    found = [
        *(_wrong_labels(errors, training) if errors else ()),
        *_copies(copies, training),
        *_odd(graph, vectors, distance),
    ]
    order = {issue: place for place, issue in enumerate(ISSUES)}
    found.sort(key=lambda f: (order[f.issue], -f.score, f.item))
    return Audit(tuple(found), errors, copies, tuple(blends))


def _wrong_labels(errors: LabelErrors, training: np.ndarray) -> list[Finding]:
    return [
        Finding(
            item=i,
            issue="label_error",
            score=float(errors.scores[i]),
            action=DROP if training[i] else CHECK,
            suggested=int(errors.suggested[i]),
        )
        for i in np.flatnonzero(errors.suspected).tolist()
    ]


def _copies(copies: Duplicates, training: np.ndarray) -> list[Finding]:
    """A finding for each image of a group of copies but the one that stays.

    One outside training stays if there is one, so that what is measured by keeps its images.
    """
    found: dict[int, Finding] = {}
    stays: dict[int, int] = {}
    for i in np.flatnonzero(copies.groups >= 0).tolist():
        group = int(copies.groups[i])
        if group not in stays or (training[stays[group]] and not training[i]):
            stays[group] = i
    for (a, b), exact, difference in zip(
        copies.pairs.tolist(), copies.exact.tolist(), copies.difference.tolist()
    ):
        kept = stays[int(copies.groups[a])]
        for item, partner in ((a, b), (b, a)):
            if item == kept or item in found:
                continue
            leak = training[item] and not training[kept]
            found[item] = Finding(
                item=item,
                issue="leak" if leak else "exact_duplicate" if exact else "near_duplicate",
                score=1 - difference,
                action=DROP if training[item] else CHECK,
                other=kept if leak or partner in found else partner,
            )
    return list(found.values())


def _odd(graph: SimilarityGraph, vectors: np.ndarray | None, distance: str) -> list[Finding]:
    isolated, (times, hubs) = find_isolated(graph), find_hubs(graph)
    found = [
        Finding(item=i, issue="isolated", score=1.0, action=CHECK)
        for i in np.flatnonzero(isolated).tolist()
    ]
    found += [
        Finding(item=i, issue="hub", score=float(times[i]), action=CHECK)
        for i in np.flatnonzero(hubs).tolist()
    ]
    if vectors is not None:
        far, outliers = find_outliers(graph, vectors, distance=distance)
        found += [
            Finding(item=i, issue="outlier", score=float(far[i]), action=CHECK)
            for i in np.flatnonzero(outliers).tolist()
        ]
    return found
