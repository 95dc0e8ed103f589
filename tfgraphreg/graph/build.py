"""Builds every kind of graph.

Shapes: N items, D width, E edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.distances import Distance
from tfgraphreg.errors import ConfigError, GraphError
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.graph.radius import pairs_within
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.graph.weights import edge_weights
from tfgraphreg.progress import Progress
from tfgraphreg.search.measured import Measured

KINDS = ("knn", "mutual", "threshold", "radius", "class", "random")
_BLOCK = 2048
_MOST_EDGES = 200_000_000
_EXCHANGES = 30


def build_graph(
    kind: str,
    features: np.ndarray,
    *,
    k: int = 10,
    metric: str | Distance = "cosine",
    weighting: str = "cosine",
    threshold: float = 0.9,
    radius: float | None = None,
    labels: np.ndarray | None = None,
    symmetrize: bool = False,
    method: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> SimilarityGraph:
    """Builds a graph of the given kind.

    Args:
        kind: ``"knn"``: the `k` nearest of each item. ``"mutual"``: those knn edges that exist in
            both directions; nodes may stay alone. ``"threshold"``: all pairs with a cosine
            similarity of at least `threshold`, whatever the metric. ``"radius"``: all pairs at a
            distance of at most `radius` by the metric. Both are found exactly. ``"class"``:
            `k` random items of the same label for each labeled one; every class must have more
            than `k`. ``"random"``: a control, the knn graph with the targets of its edges exchanged
            at random, see `rewired`.
        features: `[N, D]`.
        k: Neighbors; at least 1.
        metric: Of knn, mutual and random, and of gaussian weights.
        weighting: ``"cosine"``, ``"gaussian"``, ``"local_gaussian"`` or ``"binary"``; see
            `edge_weights`.
        threshold: From -1 to 1.
        radius: Above 0; for ``"radius"`` only.
        labels: `[N]` class numbers (-1 unlabeled), or `[N, C]` multi-hot; for ``"class"``.
        symmetrize: Whether to add the reverse of every edge.
        method: See `nearest_others`.
        seed: Of whatever is drawn at random.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        ConfigError: If an argument is out of range, or `k` is not smaller than every class.
        GraphError: If the graph would have no edge, or too many.
    """
    if kind not in KINDS:
        raise ConfigError(f"`kind` must be one of {', '.join(KINDS)}.", received=repr(kind))
    if k < 1:
        raise ConfigError("`k` must be at least 1.", received=f"k={k}")
    if kind in ("knn", "mutual", "random"):
        graph = knn_graph(
            features,
            k=k,
            distance=metric,
            weighting=weighting,
            method=method,
            seed=seed,
            progress=progress,
        )
        if kind == "mutual":
            graph = mutual(graph)
        elif kind == "random":
            graph = rewired(graph, seed=seed, progress=progress)
    else:
        measured = Measured.of(features, metric)
        about: dict[str, Any] = {
            "kind": kind,
            "metric": measured.distance.name,
            "weighting": weighting,
        }
        distances = None
        if kind == "threshold":
            sources, targets = _similar_pairs(features, threshold, progress)
            about["threshold"] = threshold
        elif kind == "radius":
            if radius is None:
                raise ConfigError("A radius graph needs a `radius`.", cure="Try `radius=1`.")
            sources, targets, distances = pairs_within(measured, radius, progress=progress)
            about["radius"] = radius
        else:
            sources, targets = _class_pairs(labels, len(measured.features), k, seed)
            about["k"] = k
        weights = edge_weights(weighting, measured, sources, targets, distances)
        graph = SimilarityGraph.from_edges(
            sources, targets, weights, len(measured.features), about=about
        )
    return graph.symmetrized() if symmetrize else graph


def mutual(graph: SimilarityGraph) -> SimilarityGraph:
    """The edges of `graph` whose reverse is an edge too."""
    sources, targets, n = graph.sources(), graph.indices.astype(np.int64), graph.num_nodes
    kept = np.isin(sources * n + targets, targets * n + sources)
    about = {**graph.about, "kind": "mutual"}
    weights = graph.weights[kept]
    return SimilarityGraph.from_edges(sources[kept], targets[kept], weights, n, about=about)


def rewired(
    graph: SimilarityGraph, *, seed: int = 0, progress: Progress | None = None
) -> SimilarityGraph:
    """A control: a random graph in which every node keeps its in-degree and its out-degree.

    Pairs of edges a -> b and c -> d are drawn at random and become a -> d and c -> b, unless that
    makes a self loop or a duplicate; every edge is tried 30 times (Maslov and
    Sneppen, Science 296, 2002). Weights stay with the node that an edge leaves.
    """
    rng = np.random.default_rng(seed)
    n, sources = graph.num_nodes, graph.sources()
    targets, half = graph.indices.astype(np.int64), graph.num_edges // 2
    for turn in range(_EXCHANGES):
        if progress:
            progress("exchanging edges", turn, _EXCHANGES)
        order = rng.permutation(graph.num_edges)
        one, other = order[:half], order[half : 2 * half]
        new = np.concatenate([sources[one] * n + targets[other], sources[other] * n + targets[one]])
        fine = ~np.isin(new, sources * n + targets)
        fine &= new // n != new % n
        # If two exchanges would make the same edge, neither is done.
        _, place, counts = np.unique(new, return_inverse=True, return_counts=True)
        fine &= counts[place] == 1
        done = fine[:half] & fine[half:]
        one, other = one[done], other[done]
        targets[one], targets[other] = targets[other], targets[one]
    about = {**graph.about, "kind": "random"}
    return SimilarityGraph.from_edges(sources, targets, graph.weights, n, about=about)


def union(graphs: Sequence[SimilarityGraph]) -> SimilarityGraph:
    """All edges of several graphs over the same nodes, each at its largest weight.

    Raises:
        GraphError: If there is no graph, or their nodes differ in number.
    """
    counts = {graph.num_nodes for graph in graphs}
    if len(counts) != 1:
        raise GraphError(
            "A union needs at least one graph, all over the same nodes.",
            received=f"node counts {sorted(counts)}",
        )
    return SimilarityGraph.from_edges(
        np.concatenate([graph.sources() for graph in graphs]),
        np.concatenate([graph.indices for graph in graphs]),
        np.concatenate([graph.weights for graph in graphs]),
        counts.pop(),
        about={"kind": "union", "parts": [dict(graph.about) for graph in graphs]},
    )


def _similar_pairs(
    features: np.ndarray, threshold: float, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """Ordered pairs with a cosine similarity of at least `threshold`, by blocks."""
    if not -1 <= threshold <= 1:
        raise ConfigError("`threshold` must be from -1 to 1.", received=f"threshold={threshold}")
    rows = np.asarray(features, np.float32)
    length = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    units = (rows / np.where(length > 0, length, 1)).astype(np.float32)
    sources, targets, edges = [], [], 0
    for start in range(0, len(units), _BLOCK):
        near = units[start : start + _BLOCK] @ units.T >= threshold - 1e-6
        near[np.arange(len(near)), start + np.arange(len(near))] = False
        i, j = np.nonzero(near)
        edges += len(i)
        if edges > _MOST_EDGES:
            raise GraphError(
                "This threshold gives more edges than fit in memory.",
                received=f"threshold={threshold}, over {_MOST_EDGES} edges",
                cure="Raise the threshold or use a knn graph.",
            )
        sources.append(i + start)
        targets.append(j)
        if progress:
            progress("pairs", start + len(near), len(units))
    if not edges:
        raise GraphError(
            "No two items are that similar: the graph would have no edge and its loss be zero.",
            received=f"threshold={threshold}",
            cure="Lower the threshold or use a knn graph.",
        )
    return np.concatenate(sources), np.concatenate(targets)


def _class_pairs(
    labels: np.ndarray | None, n: int, k: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """`k` random others with a label in common, for each label of every labeled item."""
    if labels is None or len(labels) != n:
        raise ConfigError(
            "A class graph needs one label for every item.",
            received=f"{None if labels is None else len(labels)} labels, {n} items",
        )
    rng = np.random.default_rng(seed)
    labels = np.asarray(labels)
    sources, targets = [], []
    classes = labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=-1)) + 1
    for c in range(classes):
        members = np.flatnonzero(labels[:, c] > 0 if labels.ndim == 2 else labels == c)
        size = len(members)
        if not size:
            continue
        if size <= k:
            raise ConfigError(
                "`k` must be smaller than every class in a class graph.",
                received=f"k={k}, and class number {c} has {size} labeled image(s)",
                cure=f"Use k <= {size - 1} (`graph_neighbors` of a run)."
                if size > 1
                else "Leave that class out, or label more of its images.",
            )
        # Fixed steps around one random circle: distinct, never the item itself, and k a node.
        circle = rng.permutation(members)
        steps = rng.choice(np.arange(1, size), k, replace=False)
        places = (np.arange(size)[:, None] + steps) % size
        sources.append(np.repeat(circle, len(steps)))
        targets.append(circle[places].ravel())
    if not sources:
        raise GraphError(
            "No item is labeled: a class graph would have no edge.", received=f"{n} items"
        )
    return np.concatenate(sources), np.concatenate(targets)
