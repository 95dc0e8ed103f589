"""Labels that the graph does not believe.

Shapes: N nodes, M of them labeled, D features, C classes, A anchors.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import linalg, sparse

from tfgraphreg.errors import ConfigError, GraphError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.progress import Progress, silent
from tfgraphreg.propagation.kernel import gaussian_kernel, unit_length
from tfgraphreg.propagation.system import System, solve
from tfgraphreg.search.measured import as_matrix

# Chosen on synthetic noise among training images; see docs/audit.md.
_ALPHA = 0.5
_RIDGE = 1.0
_ANCHORS = 1000
_SHARPNESS = 8.0
_SUSPECTED = 0.75
_TOLERANCE = 1e-4
_MAX_ITERATIONS = 1000
_BLOCK = 4096
_JITTER = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class LabelErrors:
    """How likely each label is wrong. NaN and -1 where a node has no label to judge.

    Attributes:
        scores: `[N]` float64 from 0 to 1: half of 1 + the probability of the likeliest other class
            - that of the given one. NaN also for the only node of a class.
        suspected: `[N]` bool: `scores` of at least 0.75.
        suggested: `[N]` int64: the likeliest class but the given one.
        disagreement: `[N]` float64 from 0 to 1: share of other labels among the labeled neighbors,
            by weight; NaN where no neighbor is labeled.
        probabilities: `[N, C]` float64: what the others say of a node whose own label was left
            out; each row sums to 1.
    """

    scores: np.ndarray
    suspected: np.ndarray
    suggested: np.ndarray
    disagreement: np.ndarray
    probabilities: np.ndarray


def find_label_errors(
    graph: SimilarityGraph,
    labels: np.ndarray,
    num_classes: int,
    *,
    vectors: np.ndarray | None = None,
    folds: int = 10,
    progress: Progress = silent,
) -> LabelErrors:
    """Judges every label by all the others, without its own having a say.

    Two opinions are joined by their geometric mean. The first is label spreading (alpha = 0.5, so
    that near neighbors count most) with the labels of one of `folds` parts left out, for each part
    in turn. The second, where `vectors` are given, is kernel ridge regression on at most 1,000
    labeled nodes as centers, with the label of each node left out in closed form. The same
    arguments give the same result.

    Args:
        graph: N nodes; edges count in both directions.
        labels: `[N]` class numbers, -1 where unlabeled.
        num_classes: C, at least 2.
        vectors: `[N, D]` finite numbers, usually what the graph was built from. Only their
            directions count.
        folds: At least 2.
        progress: Called as ``progress("label errors", done, total)``.

    Raises:
        ConfigError: If `num_classes` or `folds` is too small.
        GraphError: If labels or vectors do not fit the graph, or no class has two labeled nodes.
    """
    labels = _checked(graph, labels, num_classes, folds)
    system = System.of(graph)
    targets = np.zeros((graph.num_nodes, num_classes))
    known = np.flatnonzero(labels >= 0)
    targets[known, labels[known]] = 1
    probabilities = _shares(_spread(system, targets, labels, folds, progress))
    if vectors is not None:
        rows = as_matrix("vectors", vectors, error=GraphError)
        if len(rows) != graph.num_nodes:
            raise GraphError(
                "There must be one vector for every node.",
                received=f"{len(rows)} vectors, {graph.num_nodes} nodes",
            )
        # Where the graph reaches no label of a class, the vectors may still speak for it.
        second = _kernel_ridge(rows, targets, known)
        probabilities = _shares(np.sqrt(np.maximum(probabilities, 1e-9) * second))
    return _judged(probabilities, labels, known, _disagreement(system, targets))


def _checked(
    graph: SimilarityGraph, labels: np.ndarray, num_classes: int, folds: int
) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (graph.num_nodes,) or labels.dtype.kind not in "iu":
        raise GraphError(
            "`labels` must be one class number, or -1, for every node.",
            received=f"shape={labels.shape}, dtype={labels.dtype}, {graph.num_nodes} nodes",
        )
    if num_classes < 2 or folds < 2:
        raise ConfigError(
            "`num_classes` and `folds` must be at least 2.",
            received=f"num_classes={num_classes}, folds={folds}",
        )
    labels = labels.astype(np.int64)
    if len(labels) and (labels.min() < -1 or labels.max() >= num_classes):
        raise GraphError(
            f"Labels must be from -1 to {num_classes - 1}.",
            received=f"{labels.min()} to {labels.max()}",
        )
    if np.bincount(labels[labels >= 0], minlength=2).max() < 2:
        raise GraphError(
            "No class has two labeled nodes: there is nothing to compare labels with.",
            received=f"{int((labels >= 0).sum())} labeled nodes",
        )
    return labels


def _spread(
    system: System, targets: np.ndarray, labels: np.ndarray, folds: int, progress: Progress
) -> np.ndarray:
    """`[N, C]` scores of label spreading; of a labeled node those without its part's labels."""
    normalized, _ = system.normalized()
    matrix = (sparse.identity(system.num_nodes) - _ALPHA * normalized).tocsr()

    def spread(given: np.ndarray) -> np.ndarray:
        found = solve(matrix, given, tolerance=_TOLERANCE, max_iterations=_MAX_ITERATIONS)
        return np.maximum(found, 0)

    part = _parts(labels, folds)
    scores = spread(targets) if (part < 0).any() else np.zeros_like(targets)
    for number in range(folds):
        held_out = part == number
        if held_out.any():
            scores[held_out] = spread(np.where(held_out[:, None], 0, targets))[held_out]
        progress("label errors", number + 1, folds)
    return scores


def _parts(labels: np.ndarray, folds: int) -> np.ndarray:
    """`[N]` the part of each labeled node, -1 of others; each class is spread over the parts.

    Nodes of a class are shuffled first: a folder often lists similar images one after the other.
    """
    part = np.full(len(labels), -1)
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    order = order[labels[order] >= 0]
    part[order] = np.arange(len(order)) % folds
    return part


def _kernel_ridge(rows: np.ndarray, targets: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`[N, C]` probabilities by kernel ridge regression; of labeled nodes without their own label.

    A linear smoother predicts a node without its own label as (f - h y) / (1 - h), where h is its
    entry on the diagonal of the smoother. The regression is that of `propagation.kernel`, with
    centers in place of all labeled nodes (Nyström).
    """
    rows, count = unit_length(rows), targets.shape[1]
    anchors = known
    if len(known) > _ANCHORS:
        anchors = np.random.default_rng(0).choice(known, _ANCHORS, replace=False)
    centers = rows[anchors]
    inner = gaussian_kernel(centers, centers)
    gram = _RIDGE * inner + _JITTER * len(known) * np.identity(len(anchors))
    right = np.zeros((len(anchors), count))
    for start in range(0, len(known), _BLOCK):
        mine = known[start : start + _BLOCK]
        block = gaussian_kernel(rows[mine], centers)
        gram += block.T @ block
        right += block.T @ (targets[mine] - 1 / count)
    factor = linalg.cholesky(gram, lower=True)
    weights = linalg.cho_solve((factor, True), right)
    factor = factor.astype(np.float32)
    found = np.empty((len(rows), count))
    labeled = np.asarray(targets.any(axis=1))
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        block = gaussian_kernel(rows[part], centers)
        narrow = block.T.astype(np.float32)
        own = np.square(linalg.solve_triangular(factor, narrow, lower=True)).sum(axis=0)
        own = np.where(labeled[part], np.minimum(own, 1 - 1e-6), 0)[:, None]
        scores = (block @ weights - own * (targets[part] - 1 / count)) / (1 - own)
        scores = _SHARPNESS * scores
        found[part] = np.exp(scores - scores.max(axis=1, keepdims=True))
    return _shares(found)


def _disagreement(system: System, targets: np.ndarray) -> np.ndarray:
    """`[N]` share of other labels among labeled neighbors, NaN without any or without a label."""
    votes = np.asarray(system.weights @ targets)
    whole = votes.sum(axis=1)
    own = (votes * targets).sum(axis=1)
    judged = targets.any(axis=1) & (whole > 0)
    return np.where(judged, 1 - own / np.where(judged, whole, 1), np.nan)


def _judged(
    probabilities: np.ndarray, labels: np.ndarray, known: np.ndarray, disagreement: np.ndarray
) -> LabelErrors:
    others = probabilities.copy()
    others[known, labels[known]] = -1
    suggested = np.full(len(labels), -1, np.int64)
    suggested[known] = others[known].argmax(axis=1)
    scores = np.full(len(labels), np.nan)
    own = probabilities[known, labels[known]]
    scores[known] = np.clip((1 + others[known, suggested[known]] - own) / 2, 0, 1)
    # Of its own class such a node cannot hear anything.
    alone = np.bincount(labels[known], minlength=probabilities.shape[1]) == 1
    scores[known[alone[labels[known]]]] = np.nan
    suspected = np.zeros(len(labels), bool)
    suspected[known] = scores[known] >= _SUSPECTED
    return LabelErrors(scores, suspected, suggested, disagreement, probabilities)


def _shares(evidence: np.ndarray) -> np.ndarray:
    """Rows that sum to 1; a row of zeros becomes even."""
    sums = evidence.sum(axis=1, keepdims=True)
    return np.where(sums > 0, evidence / np.where(sums > 0, sums, 1), 1 / evidence.shape[1])
