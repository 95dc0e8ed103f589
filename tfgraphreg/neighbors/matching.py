"""Random maximal matchings: in each epoch every image is paired with at most one neighbor.

Nodes are visited in random order; a node that is still free takes one of its free
out-neighbors, at random. The result is maximal: no edge is left with both ends free. Time is
O(N + E), and O(N log N) to spread pairs over the epoch; memory beside the graph is O(N): some 112
bytes a node while pairs are spread, less before.

What is estimated. Let p(e) be the probability that edge e is drawn. A sum over the drawn edges
of weight times distance has the mean sum_e p(e) w(e) d(e): the same edges as in the full graph
term, reweighted by p(e), which is smaller where nodes have many neighbors. `edge_probabilities`
measures p by drawing, and `correction` gives factors in proportion to 1 / p(e), with which the
mean is in proportion to sum_e w(e) d(e).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from tfgraphreg.errors import ConfigError
from tfgraphreg.neighbors._random import uniform
from tfgraphreg.neighbors.grouping import spread_groups


def draw_matching(graph: Any, *, seed: int, by_weight: bool = False) -> np.ndarray:
    """A random maximal matching.

    Args:
        graph: `SimilarityGraph` of N nodes, directed or not.
        seed: Number from 0 below 2^63.
        by_weight: Whether a node takes a free neighbor in proportion to weight; edges of weight
            0 are then never drawn (and do not count for the matching being maximal).

    Returns:
        `[N]` int64: for a node that took a neighbor, the position of that edge in
        `graph.indices`; -1 for one that was taken, and -2 for one that is alone.
    """
    order = np.random.default_rng(seed).permutation(graph.num_nodes)
    state = np.full(graph.num_nodes, -2, np.int64)
    _match(graph.indptr, graph.indices, graph.weights, order, np.uint64(seed), by_weight, state)
    return state


@numba.njit(nogil=True, cache=True)
def _match(indptr, indices, weights, order, seed, by_weight, state):
    for node in order:
        if state[node] != -2:
            continue
        total = 0.0
        for edge in range(indptr[node], indptr[node + 1]):
            if state[indices[edge]] == -2:
                total += weights[edge] if by_weight else 1.0
        if total <= 0:
            continue
        left = uniform(seed, node) * total
        chosen = -1
        for edge in range(indptr[node], indptr[node + 1]):
            if state[indices[edge]] == -2:
                share = weights[edge] if by_weight else 1.0
                if share <= 0:
                    continue
                # If rounding leaves a remainder, the last candidate is drawn.
                chosen = edge
                left -= share
                if left <= 0:
                    break
        state[node] = chosen
        state[indices[chosen]] = -1


def draw_epoch(
    graph: Any,
    order: np.ndarray,
    classes: np.ndarray,
    *,
    seed: int,
    by_weight: bool = False,
    correction: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of an epoch: a matching, laid out side by side and spread by kind.

    Args:
        graph: `SimilarityGraph` of N nodes.
        order: As of `side_by_side`, which also takes `correction`.
        classes: As of `spread_groups`.
        seed: As of `draw_matching`, which also takes `by_weight`.
        by_weight: See `draw_matching`.
        correction: See `side_by_side`.

    Returns:
        `[N]` int64 nodes and `[N]` float32 weights, see `side_by_side`.
    """
    matching = draw_matching(graph, seed=seed, by_weight=by_weight)
    nodes, weights = side_by_side(graph, matching, order, correction=correction)
    return spread(nodes, weights, classes, seed=seed)


def matched_edges(matching: np.ndarray) -> np.ndarray:
    """`[M]` int64 positions in `graph.indices` of the M drawn edges."""
    return matching[matching >= 0]


def side_by_side(
    graph: Any, matching: np.ndarray, order: np.ndarray, *, correction: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Lays an epoch out in rows, so that matched nodes are rows 2i and 2i + 1.

    Pairs are sorted by the earlier of their two places in `order`; nodes without a partner are put
    two to a pair and sorted with them.

    Args:
        graph: `SimilarityGraph` of N nodes.
        matching: As of `draw_matching`.
        order: `[N]` permutation of the nodes.
        correction: `[E]` factors on the weights, or None.

    Returns:
        `[N]` int64 nodes, each once; `[N]` float32 weights of the drawn edges, the same in both
        rows of a pair, 0 where two rows are not neighbors. If N is odd the last row is alone.
    """
    nodes = np.empty(len(order), np.int64)
    weights = np.zeros(len(order), np.float32)
    factors = np.ones(0, np.float32) if correction is None else np.asarray(correction, np.float32)
    _lay_out(graph.indptr, graph.indices, graph.weights, factors, matching, order, nodes, weights)
    return nodes, weights


@numba.njit(nogil=True, cache=True)
def _lay_out(indptr, indices, edge_weights, factors, matching, order, nodes, weights):
    n = len(order)
    took = np.full(n, -1, np.int64)  # For a node that was taken: the edge that took it.
    taker = np.full(n, -1, np.int64)
    for node in range(n):
        edge = matching[node]
        if edge >= 0:
            took[indices[edge]] = edge
            taker[indices[edge]] = node
    done = np.zeros(n, np.bool_)
    row = 0
    alone = -1
    for node in order:
        if done[node]:
            continue
        done[node] = True
        if matching[node] == -2:
            if alone < 0:
                alone = node
                continue
            nodes[row], nodes[row + 1] = alone, node
            alone = -1
        else:
            edge = matching[node] if matching[node] >= 0 else took[node]
            other = indices[edge] if matching[node] >= 0 else taker[node]
            done[other] = True
            weight = edge_weights[edge]
            if len(factors):
                weight *= factors[edge]
            nodes[row], nodes[row + 1] = node, other
            weights[row], weights[row + 1] = weight, weight
        row += 2
    if alone >= 0:
        nodes[row] = alone


def spread(
    nodes: np.ndarray, weights: np.ndarray, classes: np.ndarray, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Moves pairs, so that those of one class come at even distances; see `spread_groups`.

    Args:
        nodes: `[N]`, as of `side_by_side`.
        weights: `[N]`, as of `side_by_side`.
        classes: As of `spread_groups`.
        seed: Number from 0 below 2^63.

    Returns:
        `nodes` and `weights` in the new order; a last row without a partner stays the last one.
    """
    whole = len(nodes) // 2 * 2
    rows = np.arange(len(nodes))
    rows[:whole] = spread_groups(nodes[:whole], np.arange(0, whole, 2), classes, seed=seed)
    return nodes[rows], weights[rows]


def edge_probabilities(
    graph: Any,
    *,
    draws: int = 200,
    seed: int = 0,
    by_weight: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Measures how often each edge is drawn.

    Args:
        graph: `SimilarityGraph` of E edges.
        draws: Number of matchings drawn, at least 1.
        seed: Seed of the first one.
        by_weight: As of `draw_matching`.
        progress: Called with (matchings drawn, draws).

    Returns:
        `[E]` float64 in [0, 1]: the share of matchings that hold the edge. The standard error of
        p is sqrt(p (1 - p) / draws).
    """
    if draws < 1:
        raise ConfigError("`draws` must be at least 1.", received=f"draws={draws}")
    counts = np.zeros(len(graph.indices), np.int64)
    for i in range(draws):
        counts[matched_edges(draw_matching(graph, seed=seed + i, by_weight=by_weight))] += 1
        if progress is not None:
            progress(i + 1, draws)
    return counts / draws


def correction(probabilities: np.ndarray, *, draws: int, largest: float = 10.0) -> np.ndarray:
    """Factors that undo the unequal chances of edges.

    With them the mean of the paired graph term over matchings is `mean(p)` times the sum over
    all edges of weight times distance, up to the error of the measured p and the cut at `largest`.

    Args:
        probabilities: `[E]`, as of `edge_probabilities`.
        draws: Number of matchings they were measured with. Half a draw is added to each edge,
            so that those never seen get a finite factor.
        largest: No factor exceeds this: rare edges would make single steps very noisy.

    Returns:
        `[E]` float32: mean(p) / p(e), at most `largest`.
    """
    smoothed = (np.asarray(probabilities) * draws + 0.5) / (draws + 1)
    return np.minimum(smoothed.mean() / smoothed, largest).astype(np.float32)
