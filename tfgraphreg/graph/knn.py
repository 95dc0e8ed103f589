"""The k-nearest-neighbor graph.

Shapes: N items, D width.
"""

from __future__ import annotations

import warnings

import numpy as np

from tfgraphreg.distances import Distance
from tfgraphreg.errors import ConfigError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.graph.weights import edge_weights
from tfgraphreg.progress import Progress
from tfgraphreg.search.measured import Measured
from tfgraphreg.search.others import nearest_others


def knn_graph(
    vectors: np.ndarray,
    *,
    k: int = 10,
    distance: str | Distance = "cosine",
    weighting: str = "cosine",
    symmetrize: bool = False,
    method: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    metric: str | Distance | None = None,
) -> SimilarityGraph:
    """Joins every item to its `k` nearest others: exactly k edges leave each node.

    >>> vectors = [[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]]
    >>> graph = knn_graph(vectors, k=1, distance="euclidean")
    >>> graph
    SimilarityGraph(4 nodes, 4 edges, knn, k=1, metric=euclidean)
    >>> graph.indices
    array([1, 0, 3, 2], dtype=int32)

    No item is its own neighbor, even if it has more than k duplicates. Equal distances are ordered
    by the smaller item number.

    Args:
        vectors: `[N, D]` finite numbers: features, embeddings of any model, rows of a table.
        k: From 1 to N - 1.
        distance: A registered distance or a record of your own.
        weighting: See `edge_weights`; weights lie in (0, 1].
        symmetrize: Whether to add the reverse of every edge; nodes then have k or more neighbors.
        method: ``"auto"``, ``"exact"``, ``"ivf"`` or ``"hnsw"``; see `nearest_others`.
        seed: Chooses the sample on which the recall of an approximate search is measured.
        threads: Processor cores to use; all of them by default.
        progress: Called as ``progress(what, done, total)``.
        metric: The old name of `distance`.

    Returns:
        The graph; its `about` tells metric, weighting, method and recall.

    Raises:
        ConfigError: If `k`, `method` or `weighting` cannot be.
        GraphError: If the vectors are no such array, or do not suit the distance.
    """
    if metric is not None:
        if distance != "cosine":
            raise ConfigError("`metric` is the old name of `distance`: give one of them.")
        warnings.warn("`metric` is now called `distance`.", DeprecationWarning, stacklevel=2)
        distance = metric
    measured = Measured.of(vectors, distance)
    found = nearest_others(
        measured, k, method=method, seed=seed, threads=threads, progress=progress
    )
    n = len(measured.features)
    sources, targets = np.repeat(np.arange(n), k), found.indices.ravel()
    weights = edge_weights(weighting, measured, sources, targets, found.distances.ravel())
    about = {
        "kind": "knn",
        "k": k,
        "metric": measured.distance.name,
        "weighting": weighting,
        "method": found.method,
        "recall": found.recall,
    }
    graph = SimilarityGraph.from_edges(sources, targets, weights, n, about=about)
    return graph.symmetrized() if symmetrize else graph
