"""Class sizes as a prior: one factor for each class, chosen so that each class gets its size.

Shapes: N nodes, C classes.
"""

from __future__ import annotations

import numba
import numpy as np

_CLOSE = 1e-3  # largest error of a class size that is left, as a share of the nodes
_SWEEPS = 100
_LARGEST = 1e100  # factors stay between this and its inverse

# graphlearning's rule, which PoissonMBO repeats after each round.
_STEP = 0.1
_TURNS = 10_000


def size_factors(evidence: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, float]:
    """Factors by which the argmax of `evidence` times factors gives each class its share.

    One class after another is given the factor at which exactly its share of the nodes prefers it,
    while the other factors stay fixed; sweeps over the classes repeat until every size is right to
    0.1 % of the nodes. In logarithms this is coordinate ascent in the dual of the
    assignment problem that maximizes the sum of log(evidence) under the class sizes.

    Args:
        evidence: `[N, C]` at least 0, in each row one above 0.
        shares: `[C]` above 0, summing to 1.

    Returns:
        `[C]` factors above 0 with a geometric mean of 1, and the largest remaining error of a class
        size, as a share of the nodes. The error stays above 1e-3 if the evidence does not allow the
        sizes (too many nodes have a single possible class), and occasionally if several factors
        would have to change at once.
    """
    n, count = evidence.shape
    goals = np.round(shares * n).astype(np.int64)
    factors, best, least = np.ones(count), np.ones(count), np.inf
    labels = np.empty(n, np.int64)
    for _ in range(_SWEEPS):
        error = np.abs(_largest(evidence, factors, labels) - goals).max() / n
        if error < least:
            best, least = factors.copy(), error
        if error <= _CLOSE:
            break
        for c in range(count):
            factors[c] = _threshold(_needed(evidence, factors, c), goals[c], factors[c])
        factors /= np.exp(np.log(factors).mean())
        factors = np.clip(factors, 1 / _LARGEST, _LARGEST)
    return best, float(least)


def _threshold(needed: np.ndarray, goal: int, before: float) -> float:
    """A factor that exceeds `goal` of the `needed` factors and stays below the others."""
    possible = needed[np.isfinite(needed)]
    if not possible.max(initial=0) > 0:
        return before  # no node has a choice
    goal = min(goal, len(possible))
    ends = [p for p in (goal - 1, goal) if 0 <= p < len(possible)]
    parted = np.partition(possible, ends)
    low = parted[goal - 1] if goal else 0.0
    high = parted[goal] if goal < len(possible) else np.inf
    if low <= 0:  # at least `goal` nodes are sure of the class
        return float(possible[possible > 0].min()) / 2
    return float(2 * low if np.isinf(high) else np.sqrt(low) * np.sqrt(high))


@numba.njit(cache=True)
def _needed(evidence: np.ndarray, factors: np.ndarray, c: int) -> np.ndarray:
    """`[N]` the factor above which each node prefers class `c`; infinite where it never does."""
    needed = np.empty(len(evidence))
    for i in range(len(evidence)):
        best = 0.0
        for other in range(evidence.shape[1]):
            if other != c:
                best = max(best, evidence[i, other] * factors[other])
        needed[i] = best / evidence[i, c] if evidence[i, c] > 0 else np.inf
    return needed


def stepped(
    scores: np.ndarray, shares: np.ndarray, factors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the sizes `shares` by the rule of `graphlearning.ssl.ssl.volume_label_projection`.

    Each factor moves by 0.1 times what its class lacks, until no class lacks 1e-3 of the nodes.
    For a few nodes between two classes the labels differ from those of `size_factors`; the rule is
    kept so that PoissonMBO takes the same steps as in graphlearning.

    Args:
        scores: `[N, C]` from 0 to 1.
        shares: `[C]` summing to 1.
        factors: `[C]` to begin with.

    Returns:
        `[N]` int64 labels and `[C]` factors, the first one 1.
    """
    factors = factors.copy()
    n = len(scores)
    labels = np.empty(n, np.int64)
    for _ in range(_TURNS):
        lacking = shares - _largest(scores, factors, labels) / n
        factors += _STEP * lacking
        factors /= factors[0]
        if np.abs(lacking).max() <= _CLOSE:
            break
    _largest(scores, factors, labels)
    return labels, factors


@numba.njit(cache=True)
def _largest(scores: np.ndarray, factors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Writes the argmax of each row of `scores` times `factors` to `labels`; gives their counts."""
    counts = np.zeros(scores.shape[1])
    for i in range(len(scores)):
        best, where = -np.inf, 0
        for c in range(scores.shape[1]):
            value = scores[i, c] * factors[c]
            if value > best:
                best, where = value, c
        labels[i] = where
        counts[where] += 1
    return counts
