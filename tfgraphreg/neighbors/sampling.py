"""Chooses the K neighbors of each node in an epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np

from tfgraphreg.errors import ConfigError
from tfgraphreg.neighbors._random import uniform

SAMPLES = ("top", "uniform", "weight")


def chooser(
    graph: Any, k: int, sample: str, ids: Sequence[str] | np.ndarray | None = None
) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """A function from a random number to `[N, K]` neighbors (-1 where missing) and weights.

    Args:
        graph: `SimilarityGraph` of N nodes.
        k: K, at least 1.
        sample: `"top"` (always the same), `"uniform"` or `"weight"`.
        ids: Break ties of weight for `"top"`, as in `SimilarityGraph.top`.

    Raises:
        ConfigError: If `sample` is none of these.
    """
    check_sample(sample)
    if sample == "top":
        top = top_neighbors(graph, k, ids)
        return lambda draw: top
    by_weight = sample == "weight"
    return lambda draw: sample_neighbors(graph, k, draw=draw, by_weight=by_weight)


def check_sample(sample: str) -> None:
    """Raises ConfigError unless `sample` is a way to sample neighbors."""
    if sample not in SAMPLES:
        raise ConfigError(
            "Unknown way to sample neighbors.",
            received=repr(sample),
            cure=f"Use one of {', '.join(SAMPLES)}.",
        )


def top_neighbors(
    graph: Any, k: int, ids: Sequence[str] | np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What `SimilarityGraph.top` gives, in time O(E) and, beside the result, memory O(N)."""
    rank = np.arange(graph.num_nodes)
    if ids is not None:
        rank[np.argsort(np.asarray(ids, dtype=str), kind="stable")] = np.arange(graph.num_nodes)
    near = np.full((graph.num_nodes, k), -1, np.int64)
    weights = np.zeros((graph.num_nodes, k), np.float32)
    _top(graph.indptr, graph.indices, graph.weights, rank, near, weights)
    return near, weights


@numba.njit(nogil=True, cache=True)
def _top(indptr, indices, edge_weights, rank, near, weights):
    k = near.shape[1]
    for node in range(near.shape[0]):
        found = 0
        for edge in range(indptr[node], indptr[node + 1]):
            other, weight = indices[edge], edge_weights[edge]
            place = found
            while place > 0 and (
                weights[node, place - 1] < weight
                or (
                    weights[node, place - 1] == weight and rank[near[node, place - 1]] < rank[other]
                )
            ):
                if place < k:
                    near[node, place] = near[node, place - 1]
                    weights[node, place] = weights[node, place - 1]
                place -= 1
            if place < k:
                near[node, place] = other
                weights[node, place] = weight
                found = min(found + 1, k)


def sample_neighbors(
    graph: Any, k: int, *, draw: int, by_weight: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """K out-neighbors of every node at random, without replacement.

    By weight this is the scheme of Efraimidis and Spirakis (Weighted random sampling with a
    reservoir, 2006): the smallest K of the keys Exp(1) / weight.

    Args:
        graph: `SimilarityGraph` of N nodes.
        k: K.
        draw: A whole number in [0, 2^63); the same number gives the same neighbors.
        by_weight: Draw in proportion to weight, and give each drawn edge the mean weight of the
            node's edges instead of its own. Edges of weight 0 are then left out.

    Returns:
        `[N, K]` int64, padded with -1, and `[N, K]` float32, padded with 0.
    """
    near = np.full((graph.num_nodes, k), -1, np.int64)
    weights = np.zeros((graph.num_nodes, k), np.float32)
    _sample(graph.indptr, graph.indices, graph.weights, np.uint64(draw), by_weight, near, weights)
    return near, weights


@numba.njit(nogil=True, cache=True)
def _sample(indptr, indices, edge_weights, draw, by_weight, near, weights):
    k = near.shape[1]
    keys = np.empty(k)
    for node in range(near.shape[0]):
        found = 0
        total = 0.0
        for edge in range(indptr[node], indptr[node + 1]):
            weight = edge_weights[edge]
            total += weight
            key = -np.log(uniform(draw, edge))
            if by_weight:
                if weight <= 0:
                    continue
                key /= weight
            if found == k and key >= keys[k - 1]:
                continue
            if found < k:
                found += 1
            place = found - 1
            while place > 0 and keys[place - 1] > key:
                keys[place] = keys[place - 1]
                near[node, place] = near[node, place - 1]
                weights[node, place] = weights[node, place - 1]
                place -= 1
            keys[place] = key
            near[node, place] = indices[edge]
            weights[node, place] = weight
        if by_weight:
            mean = total / max(indptr[node + 1] - indptr[node], 1)
            for place in range(found):
                weights[node, place] = mean
