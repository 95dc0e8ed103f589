"""What an edge weighs, in (0, 1].

Shapes: N items, E edges.
"""

from __future__ import annotations

import numba
import numpy as np

from tfgraphreg.distances import DISTANCES
from tfgraphreg.errors import ConfigError, GraphError
from tfgraphreg.graph.settings import WEIGHTINGS
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.search.measured import Measured

SMALLEST = 1e-6
"""Smaller weights are raised to this, so that every edge counts."""

_SCALE_NEIGHBOR = 7
# Adam squares gradients, which grow with the weights: beyond this, float32 overflows.
_LARGEST = 1e12


def check_trainable(graph: SimilarityGraph) -> None:
    """Refuses weights that make the loss overflow.

    Raises:
        GraphError: If a weight is above 1e12.
    """
    largest = float(graph.weights.max(initial=0))
    if largest > _LARGEST:
        node = int(graph.sources()[int(np.argmax(graph.weights))])
        raise GraphError(
            f"Edge weights above {_LARGEST:g} make the loss overflow.",
            received=f"a largest weight of {largest:.6g}, of an edge of node {node}",
            cure="Divide all weights by the largest one: `alpha` sets how much the graph counts.",
        )


def edge_weights(
    weighting: str,
    measured: Measured,
    sources: np.ndarray,
    targets: np.ndarray,
    distances: np.ndarray | None = None,
    *,
    cosines: np.ndarray | None = None,
) -> np.ndarray:
    """`[E]` float32 weights in (0, 1] of the edges from `sources` to `targets`.

    Args:
        weighting: ``"cosine"``: the cosine similarity of the features, whatever the metric, and
            at least 1e-6. ``"gaussian"``: exp(-d^2 / (s_i s_j)) with the local scales of
            Zelnik-Manor and Perona (Self-Tuning Spectral Clustering, NIPS 2004): s_i is the
            distance from i to its seventh nearest neighbor in the graph, or its farthest if it
            has fewer. A cosine distance, which grows as a square, counts as d^2.
            ``"local_gaussian"``: exp(-4 d^2 / r_i^2), where r_i is the distance from i, which the
            edge leaves, to its farthest neighbor in the graph; d is the distance itself, also of
            cosine, which is sharper and was better in every propagation but one that was measured.
            By Euclidean distance these are the weights of graphlearning's knn graphs.
            ``"shared_neighbors"``: J^2, where J is the Jaccard index of the neighborhoods of i and
            j: the nodes that both have among them over those that either has. A neighborhood is
            the node itself and the nodes that its edges lead to (after Jarvis and Patrick,
            Clustering Using a Similarity Measure Based on Shared Near Neighbors, IEEE Trans.
            Computers 1973). Distances do not count beyond the choice of neighbors.
            ``"binary"``: 1.
        measured: Features and the metric whose distance d is.
        sources: `[E]` item numbers.
        targets: `[E]` item numbers.
        distances: `[E]` distances by the metric, where known already.
        cosines: `[E]` cosine distances, where known already. Where all that a weighting needs is
            known, only the number of `measured`'s rows counts.
    """
    if weighting == "binary":
        return np.ones(len(sources), np.float32)
    if weighting == "shared_neighbors":
        weights = _shared_neighbors(sources, targets, len(measured.features))
    elif weighting == "cosine":
        if cosines is None:
            cosine = Measured(DISTANCES.get("cosine"), measured.features)
            cosines = cosine.between(sources, targets)
        weights = 1.0 - cosines
    elif weighting in ("gaussian", "local_gaussian"):
        if distances is None:
            distances = measured.between(sources, targets)
        if weighting == "gaussian":
            squares = distances if measured.distance.squared else np.square(distances)
            weights = _gaussian(sources, targets, squares, len(measured.features))
        else:
            weights = _local_gaussian(sources, np.square(distances), len(measured.features))
    else:
        raise ConfigError(
            f"`weighting` must be one of {', '.join(WEIGHTINGS)}.", received=repr(weighting)
        )
    return np.clip(weights, SMALLEST, 1.0).astype(np.float32)


def _shared_neighbors(sources: np.ndarray, targets: np.ndarray, n: int) -> np.ndarray:
    order = np.argsort(sources, kind="stable")
    starts = np.searchsorted(sources[order], np.arange(n + 1))
    shares = np.empty(len(sources), np.float32)
    shares[order] = _jaccard(starts, targets[order].astype(np.int64))
    return np.square(shares)


@numba.njit(nogil=True, cache=True)
def _jaccard(starts: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """`[E]` float32 of edges in the order of the node that they leave; `starts` is `[N + 1]`."""
    n = len(starts) - 1
    found = np.empty(len(targets), np.float32)
    seen_by = np.full(n, -1, np.int64)
    for node in range(n):
        seen_by[node] = node
        size = 1
        for edge in range(starts[node], starts[node + 1]):
            size += seen_by[targets[edge]] != node
            seen_by[targets[edge]] = node
        for edge in range(starts[node], starts[node + 1]):
            other = targets[edge]
            others, shared = 1, np.int64(seen_by[other] == node)
            for far in range(starts[other], starts[other + 1]):
                others += 1
                shared += seen_by[targets[far]] == node
            found[edge] = shared / (size + others - shared)
    return found


def _gaussian(sources: np.ndarray, targets: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    scale = np.sqrt(_local_squares(sources, squares, n))
    return _falling(squares, scale[sources] * scale[targets])


def _local_gaussian(sources: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    farthest = np.zeros(n)
    np.maximum.at(farthest, sources, squares)
    return _falling(4 * squares, farthest[sources])


def _falling(squares: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """exp(-squares / scale)."""
    # A scale of 0 means that all neighbors are duplicates, which weigh 1.
    ratio = np.divide(squares, scale, out=np.full(len(squares), np.inf), where=scale > 0)
    return np.where(squares > 0, np.exp(-ratio), 1.0)


def _local_squares(sources: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    """`[N]` squared distance to the seventh nearest neighbor; 0 for an item without edges."""
    order = np.lexsort((squares, sources))
    counts = np.bincount(sources, minlength=n)
    ends = np.cumsum(counts)
    place = ends - counts + np.minimum(counts, _SCALE_NEIGHBOR) - 1
    found = np.zeros(n)
    has = counts > 0
    found[has] = squares[order[place[has]]]
    return found
