"""Orders of an epoch that put neighbors into one batch and spread each class evenly.

If a batch holds an image and its neighbor as two of its own images, each is computed once. So the
images of an epoch form small groups connected by this epoch's edges, and the groups of each class
are spread over the epoch. Time is O(N K + N log N); memory besides the result is 16 bytes an edge
and at most 170 a node (for images without any edge).
"""

from __future__ import annotations

import numba
import numpy as np

# In batches of 128 of Fashion-MNIST, classes are then more even than in random order, and with
# groups of eight less (docs/neighbors.md).
GROUP = 4


def grouped_order(
    near: np.ndarray, order: np.ndarray, classes: np.ndarray, *, seed: int, size: int = GROUP
) -> np.ndarray:
    """An order that puts images next to their neighbors and spreads each class evenly.

    Args:
        near: As of `grow_groups`.
        order: As of `grow_groups`.
        classes: As of `spread_groups`.
        seed: Number from 0 below 2^63.
        size: As of `grow_groups`.

    Returns:
        `[N]` int64: each image once.
    """
    rows, starts = grow_groups(near, order, size=size)
    return rows[spread_groups(rows, starts, classes, seed=seed)]


def grow_groups(near: np.ndarray, order: np.ndarray, *, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups of images connected by edges, followed in either direction.

    An image without a group starts one, which then grows breadth first over other images without a
    group.

    Args:
        near: `[N, K]` int64 neighbors of each of the N images, -1 where there are fewer.
        order: `[N]` permutation: the order in which images start groups.
        size: Images in a group at most, at least 1.

    Returns:
        `[N]` int64: each image once, group after group; `[G]` int64: the rows with which the
        groups begin.
    """
    rows, starts = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    groups = _grow(np.ascontiguousarray(near), order, size, rows, starts)
    return rows, starts[:groups]


@numba.njit(nogil=True, cache=True)
def _grow(near, order, size, rows, starts):
    """Fills `rows` group by group, breadth first along edges of both directions."""
    n, k = near.shape
    indptr = np.zeros(n + 1, np.int64)
    for node in range(n):
        for i in range(k):
            if near[node, i] >= 0:
                indptr[node + 1] += 1
                indptr[near[node, i] + 1] += 1
    for node in range(n):
        indptr[node + 1] += indptr[node]
    filled = indptr[:-1].copy()
    indices = np.empty(indptr[n], np.int64)
    for node in range(n):
        for i in range(k):
            other = near[node, i]
            if other >= 0:
                indices[filled[node]], indices[filled[other]] = other, node
                filled[node] += 1
                filled[other] += 1
    taken = np.zeros(n, np.bool_)
    row = groups = 0
    for node in order:
        if taken[node]:
            continue
        taken[node] = True
        rows[row] = node
        starts[groups] = grown = row
        row += 1
        while grown < row < starts[groups] + size:
            for edge in range(indptr[rows[grown]], indptr[rows[grown] + 1]):
                other = indices[edge]
                if not taken[other] and row < starts[groups] + size:
                    taken[other] = True
                    rows[row] = other
                    row += 1
            grown += 1
        groups += 1
    return groups


def spread_groups(
    nodes: np.ndarray, starts: np.ndarray, classes: np.ndarray, *, seed: int
) -> np.ndarray:
    """Moves groups, so that those of one class come at even distances: stratified sampling.

    Images of a group are mostly of one class, so a batch of groups in random order holds fewer
    and less even classes than one of single images, and its gradient is noisier. Here the groups
    of a class, in random order, divide the epoch into parts in proportion to their sizes, and each
    gets a random place within its part. (Their original order would not do: the last groups are
    leftovers of the others.)

    Args:
        nodes: `[N]`, group after group.
        starts: `[G]` rows with which the groups begin, ascending from 0.
        classes: `[N]` class of each node, negative if it has none. A group has the class of its
            first node that has one.
        seed: Number from 0 below 2^63.

    Returns:
        `[N]` int64: the rows in their new order.
    """
    if not len(nodes):
        return np.empty(0, np.int64)
    sizes = np.diff(starts, append=len(nodes))
    rows = np.arange(len(nodes))
    own = classes[nodes]
    first = np.minimum.reduceat(np.where(own >= 0, rows, len(nodes)), starts)
    kind = own[np.where(first < len(nodes), first, starts)]
    rng = np.random.default_rng(seed)
    mixed = rng.permutation(len(starts))
    by_kind = mixed[np.argsort(kind[mixed], kind="stable")]
    ranked, ranked_sizes = kind[by_kind], sizes[by_kind]
    ends = np.append(0, np.cumsum(ranked_sizes))
    low, high = (ends[np.searchsorted(ranked, ranked, side=side)] for side in ("left", "right"))
    at = ends[:-1] - low + ranked_sizes * rng.random(len(starts))
    turn = by_kind[np.argsort(at / (high - low), kind="stable")]
    moved = sizes[turn]
    return np.repeat(starts[turn] - (np.cumsum(moved) - moved), moved) + rows
