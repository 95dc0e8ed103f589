"""How much of the graph, and of the original space, an embedding keeps.

Shapes: N items, E edges, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfgraphreg.distances import DISTANCES
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.evaluation.retrieval import Progress
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.search.measured import as_matrix
from tfgraphreg.search.ranking import fitted, nearest, prepare, without_own

_PAIRS = 100_000


def faithfulness_report(
    graph: SimilarityGraph,
    embedding: np.ndarray,
    *,
    features: np.ndarray | None = None,
    distance: str = "cosine",
    feature_distance: str = "cosine",
    k: int = 10,
    sample: int | None = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """How far the embedding agrees with the graph that regularized it.

      - `edge_neighbor_share`: share of graph edges (i, j) such that j is among the nearest
        items of i in the embedding, as many as i has edges. NaN without edges.
      - `mean_edge_distance`, `mean_random_distance`: mean embedding distance over edges and
        over random pairs of different items (at most 100,000 of each), and their
        `distance_ratio`. NaN without edges, or with one item; the ratio is NaN if the random
        pairs are at distance 0, as in a collapsed embedding.
      - `trustworthiness`, `continuity`: see those functions; only with `features`.

    Args:
        graph: Over N items.
        embedding: `[N, D]`.
        features: `[N, any width]`, what the graph compared.
        distance: Registered distance in the embedding.
        feature_distance: Registered distance between features.
        k: Neighbors for trustworthiness and continuity.
        sample: Items from which these two are estimated; None for all.
        seed: Of the random pairs and the sample.
        progress: Called with (steps done, steps in all): nodes for the first number, then the
            items that the last two are estimated from.

    Raises:
        DataError: If graph and arrays have different numbers of items.
    """
    embedding = as_matrix("embedding", embedding)
    if len(embedding) != graph.num_nodes:
        raise DataError(
            "Graph and embedding must have the same number of items.",
            received=f"{graph.num_nodes} and {len(embedding)}",
        )
    rng = np.random.default_rng(seed)
    edge, random = _pair_distances(graph, embedding, distance, rng)
    items = min(sample or graph.num_nodes, graph.num_nodes) if features is not None else 0
    steps = graph.num_nodes + 2 * items

    def tell(start: int) -> Progress | None:
        return progress and (lambda done, _: progress(start + done, steps))

    report = {
        "edge_neighbor_share": edge_neighbor_share(
            graph, embedding, distance=distance, progress=tell(0)
        ),
        "mean_edge_distance": edge,
        "mean_random_distance": random,
        "distance_ratio": edge / random if random > 0 else float("nan"),
    }
    if features is not None:
        for start, function in ((0, trustworthiness), (items, continuity)):
            report[function.__name__] = function(
                features,
                embedding,
                k=k,
                feature_distance=feature_distance,
                distance=distance,
                sample=sample,
                seed=seed,
                progress=tell(graph.num_nodes + start),
            )
    return report


def edge_neighbor_share(
    graph: SimilarityGraph,
    embedding: np.ndarray,
    *,
    distance: str = "cosine",
    progress: Progress | None = None,
) -> float:
    """Share of graph edges that the embedding has too; see `faithfulness_report`."""
    degrees = np.diff(graph.indptr)
    if not graph.num_edges:
        return float("nan")
    kept = 0
    found = nearest(embedding, embedding, int(degrees.max()) + 1, distance=distance)
    for part, positions, _ in found:
        nodes = np.arange(part.start, part.stop)
        for node, row in zip(nodes, without_own(positions, nodes)):
            near = row[: degrees[node]]
            targets = graph.indices[graph.indptr[node] : graph.indptr[node + 1]]
            kept += len(np.intersect1d(near, targets, assume_unique=True))
        if progress is not None:
            progress(part.stop, graph.num_nodes)
    return kept / graph.num_edges


def trustworthiness(
    features: np.ndarray,
    embedding: np.ndarray,
    *,
    k: int = 10,
    feature_distance: str = "cosine",
    distance: str = "cosine",
    sample: int | None = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> float:
    """In [0, 1]: 1 if the embedding makes no items neighbors that were far apart.

    Venna and Kaski 2001, "Neighborhood preservation in nonlinear projection methods": items
    among the `k` nearest in the embedding but not in the features are penalized by how far
    beyond rank `k` they stand there. Estimated from `sample` random items against all.

    Raises:
        ConfigError: If not 1 <= k < N/2, where the measure is defined.
    """
    features, embedding = as_matrix("features", features), as_matrix("embedding", embedding)
    n = len(features)
    if len(embedding) != n:
        raise DataError(
            "Features and embedding must have the same number of items.",
            received=f"{n} and {len(embedding)}",
        )
    if not 1 <= k < n / 2:
        raise ConfigError(
            "`k` must be at least 1 and smaller than half the number of items.",
            received=f"k={k}, items={n}",
        )
    items = np.arange(n)
    if sample is not None and sample < n:
        items = np.sort(np.random.default_rng(seed).choice(n, sample, replace=False))
    found = [
        without_own(positions, items[part])[:, :k]
        for part, positions, _ in nearest(embedding[items], embedding, k + 1, distance=distance)
    ]
    near = np.concatenate(found)
    penalty = 0
    for part, positions, _ in nearest(features[items], features, n, distance=feature_distance):
        order = without_own(positions, items[part])
        ranks = np.empty((len(order), n), np.int64)
        np.put_along_axis(ranks, order, np.arange(1, n)[None], axis=1)
        beyond = np.take_along_axis(ranks, near[part], axis=1) - k
        penalty += int(beyond[beyond > 0].sum())
        if progress is not None:
            progress(part.stop, len(items))
    return float(1 - 2 * penalty / (len(items) * k * (2 * n - 3 * k - 1)))


def continuity(
    features: np.ndarray,
    embedding: np.ndarray,
    *,
    k: int = 10,
    feature_distance: str = "cosine",
    distance: str = "cosine",
    sample: int | None = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> float:
    """In [0, 1]: 1 if the embedding tears no neighbors apart.

    `trustworthiness` with the two spaces exchanged (Venna and Kaski 2001).
    """
    return trustworthiness(
        embedding,
        features,
        k=k,
        feature_distance=distance,
        distance=feature_distance,
        sample=sample,
        seed=seed,
        progress=progress,
    )


def _pair_distances(
    graph: SimilarityGraph, embedding: np.ndarray, distance: str, rng: np.random.Generator
) -> tuple[float, float]:
    n = len(embedding)
    if not graph.num_edges or n < 2:
        return float("nan"), float("nan")
    edges = rng.permutation(graph.num_edges)[:_PAIRS]
    sources = np.repeat(np.arange(n), np.diff(graph.indptr))[edges]
    first = rng.integers(0, n, _PAIRS)
    second = (first + rng.integers(1, n, _PAIRS)) % n
    record = fitted(DISTANCES.get(distance), embedding)
    rows = prepare(embedding, record)
    return (
        float(np.mean(record.array(rows[sources], rows[graph.indices[edges]]))),
        float(np.mean(record.array(rows[first], rows[second]))),
    )
