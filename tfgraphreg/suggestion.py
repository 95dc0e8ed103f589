"""Which images to label next.

Shapes: N images, D features, C classes, M images suggested.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.progress import Progress, silent
from tfgraphreg.propagation import propagate
from tfgraphreg.propagation.kernel import unit_length
from tfgraphreg.propagation.propagate import entropy
from tfgraphreg.search.measured import Measured, as_matrix
from tfgraphreg.search.others import nearest_others

METHODS = ("auto", "typical", "margin", "entropy", "random", "balanced")
# As in the paper: the nearest by which typicality is measured, and clusters at most.
_NEAREST = 20
_MOST_CLUSTERS = 500
_ROUNDS = 25
_POINTS = 1000  # rows a center that k-means learns from
_STARTS, _FEW = 10, 50
_SMALLEST = 5  # members of a cluster that is worth a label
_WIDER = 10  # uncertain images to choose from, for each one that is suggested


@dataclasses.dataclass(frozen=True, eq=False)
class Suggestion:
    """Images to label, the most useful first.

    Attributes:
        items: `[M]` int64 image numbers, none of them labeled.
        reasons: M sentences.
        method: How they were chosen; never ``"auto"``.
    """

    items: np.ndarray
    reasons: tuple[str, ...]
    method: str


def suggest(
    vectors: np.ndarray,
    n: int,
    *,
    labels: np.ndarray | None = None,
    num_classes: int | None = None,
    graph: SimilarityGraph | None = None,
    truth: np.ndarray | None = None,
    method: str = "auto",
    seed: int = 0,
    progress: Progress = silent,
) -> Suggestion:
    """Chooses images whose labels would tell most about all others.

    Args:
        vectors: `[N, D]` finite numbers; only their directions count.
        n: How many to choose, from 1 to the number of unlabeled images.
        labels: `[N]` class numbers, -1 where unlabeled; by default none is labeled.
        num_classes: C; needed for ``"margin"`` and ``"entropy"``.
        graph: Of N nodes, along which labels are spread for these; built from `vectors` if not
            given.
        truth: `[N]` the true classes, for ``"balanced"`` alone.
        method: ``"typical"``: TypiClust (Hacohen et al., 2022, arXiv:2202.02794): k-means into as
            many clusters as there are labels and wanted labels together (500 at most); of the
            largest clusters without a label the image with the smallest mean distance to its 20
            nearest. ``"margin"`` and ``"entropy"``: images of whose class the spread labels are
            least sure, by the difference of the two likeliest classes or by entropy, one from
            each of n clusters of them. ``"random"``, and ``"balanced"``: equally many of each true
            class, to compare with. ``"auto"``: typical.
        seed: Of k-means and of random choices.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        ConfigError: If `n` or `method` cannot be, or an argument is missing for it.
        DataError: If arrays do not fit each other.
    """
    rows = unit_length(as_matrix("vectors", vectors))
    labels = np.full(len(rows), -1) if labels is None else np.asarray(labels)
    _check(rows, labels, n, method)
    method = "typical" if method == "auto" else method
    if method == "balanced" and truth is None:
        raise ConfigError("`method=balanced` needs the true classes.", received="truth=None")
    if method in ("margin", "entropy") and (num_classes is None or not (labels >= 0).any()):
        raise ConfigError(
            f"`method={method}` needs some labels.",
            received=f"{int((labels >= 0).sum())} labels, num_classes={num_classes}",
            cure="Begin with `method=typical`.",
        )
    rng = np.random.default_rng(seed)
    free = np.flatnonzero(labels < 0)
    if method == "random":
        items = rng.permutation(free)[:n]
        return Suggestion(items, ("drawn at random",) * n, method)
    if method == "balanced":
        items = _balanced(np.asarray(truth), free, n, rng)
        return Suggestion(items, ("drawn at random from each class",) * n, method)
    if method == "typical":
        items, reasons = _typical(rows, labels, n, seed, progress)
        return Suggestion(items, tuple(reasons), method)
    graph = graph or knn_graph(rows, k=min(10, len(rows) - 1), weighting="local_gaussian")
    found = propagate(graph, labels, int(num_classes or 0), progress=progress)
    unsure = {"margin": _margin, "entropy": entropy}[method](found.probabilities)
    items = _spread(rows, unsure, free, n, seed)
    reasons = [f"not sure of its class: {method} {unsure[i]:.3f}" for i in items]
    return Suggestion(items, tuple(reasons), method)


def _check(rows: np.ndarray, labels: np.ndarray, n: int, method: str) -> None:
    if labels.shape != (len(rows),):
        raise DataError(
            "`labels` must be one class number, or -1, for every vector.",
            received=f"shape={labels.shape}, {len(rows)} vectors",
        )
    if method not in METHODS:
        raise ConfigError(f"`method` must be one of {', '.join(METHODS)}.", received=method)
    free = int((labels < 0).sum())
    if not 1 <= n <= free:
        raise ConfigError(
            "`n` must be from 1 to the number of unlabeled images.",
            received=f"n={n}, {free} unlabeled images",
        )


def _typical(
    rows: np.ndarray, labels: np.ndarray, n: int, seed: int, progress: Progress
) -> tuple[np.ndarray, list[str]]:
    """The most typical image of each of the largest clusters without a label, again and again."""
    typicality = _typicality(rows, progress)
    count = min(int((labels >= 0).sum()) + n, _MOST_CLUSTERS, len(rows))
    cluster = clusters(rows, count, seed)
    sizes = np.bincount(cluster, minlength=count)
    covered = np.bincount(cluster[labels >= 0], minlength=count)
    chosen: list[int] = []
    reasons: list[str] = []
    free = labels < 0
    while len(chosen) < n:
        open_ = np.bincount(cluster[free], minlength=count) > 0
        # Fewest labels first, then clusters worth one, then the largest.
        order = np.lexsort((-sizes, sizes < _SMALLEST, covered, ~open_))
        best = int(order[0])
        members = np.flatnonzero(free & (cluster == best))
        item = int(members[np.argmax(typicality[members])])
        chosen.append(item)
        reasons.append(f"the most typical of a group of {sizes[best]} images")
        free[item] = False
        covered[best] += 1
    return np.array(chosen, np.int64), reasons


def _typicality(rows: np.ndarray, progress: Progress) -> np.ndarray:
    """`[N]` 1 / mean distance to the nearest images; infinite among equal ones."""
    k = min(_NEAREST, len(rows) - 1)
    if k < 1:
        return np.ones(len(rows))
    found = nearest_others(Measured.of(rows, "euclidean"), k, progress=progress)
    return 1 / np.maximum(found.distances.mean(axis=1), 1e-12)


def clusters(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`[N]` each row's cluster, from 0 to `count` - 1, by the best k-means of several starts."""
    import faiss

    kmeans = faiss.Kmeans(
        rows.shape[1],
        count,
        niter=_ROUNDS,
        seed=seed + 1,
        min_points_per_centroid=1,
        max_points_per_centroid=_POINTS,
        # Few centers drawn at random easily leave a group without one.
        nredo=_STARTS if count <= _FEW else 3,
    )
    rows = np.ascontiguousarray(rows, np.float32)
    kmeans.train(rows)
    return kmeans.index.search(rows, 1)[1][:, 0]


def _margin(probabilities: np.ndarray) -> np.ndarray:
    """`[N]` from 0 to 1: 1 - the difference of the two likeliest classes."""
    best = np.sort(probabilities, axis=1)
    return 1 - (best[:, -1] - best[:, -2])


def _spread(
    rows: np.ndarray, unsure: np.ndarray, free: np.ndarray, n: int, seed: int
) -> np.ndarray:
    """The least sure image of each of n clusters among the least sure ones."""
    order = free[np.argsort(-unsure[free], kind="stable")][: _WIDER * n]
    group = clusters(rows[order], n, seed)
    _, first = np.unique(group, return_index=True)
    chosen = np.zeros(len(order), bool)
    chosen[first] = True
    # Where a cluster stayed empty, the least sure of the others.
    chosen[np.flatnonzero(~chosen)[: n - chosen.sum()]] = True
    return order[chosen]


def _balanced(truth: np.ndarray, free: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Images of all classes in turn."""
    if truth.ndim != 1 or len(truth) <= free.max() or (truth[free] < 0).any():
        raise DataError("`method=balanced` needs the true class of every unlabeled image.")
    order = rng.permutation(free)
    turn = np.empty(len(order), np.int64)
    for c in np.unique(truth[order]):
        mine = truth[order] == c
        turn[mine] = np.arange(mine.sum())
    return order[np.lexsort((rng.random(len(order)), turn))][:n]
