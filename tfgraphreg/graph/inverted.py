"""Approximate search by inverted lists whose reach is raised until enough neighbors are found.

The items are put into lists around cluster centers, and an item is compared with the items of
the nearest lists only (Sivic and Zisserman, Video Google, ICCV 2003; FAISS: IndexIVFFlat).
Shapes: N items, D width, K neighbors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg.graph.spaces import Space

METRICS = ("METRIC_L2", "METRIC_INNER_PRODUCT")
"""What FAISS can keep in inverted lists."""

GOAL = 0.995
"""Share of the true neighbors, measured on a sample, at which the reach is enough."""

_FIRST_LISTS = 8
_TRAINING_ROWS = 64  # for each list
_TRAINING_ROUNDS = 4
_ADDED = 65_536


def build_lists(space: Space, *, seed: int, progress: Callable[[int, int], None] | None) -> Any:
    """An index of all items, in about 2 sqrt(N) lists."""
    import faiss

    n, width = space.base.shape
    metric = getattr(faiss, space.metric)
    lists = 2 ** max(0, round(np.log2(2 * np.sqrt(n))))
    coarse = faiss.IndexFlat(width, metric)
    index = faiss.IndexIVFFlat(coarse, width, lists, metric)
    index.cp.niter = _TRAINING_ROUNDS
    index.cp.max_points_per_centroid = _TRAINING_ROWS
    index.cp.min_points_per_centroid = 1
    index.cp.seed = seed + 1
    index.train(space.base)
    for start in range(0, n, _ADDED):
        index.add(space.base[start : start + _ADDED])
        if progress:
            progress(min(start + _ADDED, n), n)
    return index


def widen(index: Any, recall: Callable[[], float], *, limit: float) -> bool:
    """Raises the number of lists that are looked at until `recall()` reaches `GOAL`.

    Args:
        index: Of `build_lists`.
        recall: Measures with the index as it stands.
        limit: Share of the lists that is worth looking at, at most.

    Returns:
        Whether it was reached.
    """
    most = max(min(_FIRST_LISTS, index.nlist), int(index.nlist * limit))
    index.nprobe = min(_FIRST_LISTS, most)
    while recall() < GOAL:
        if index.nprobe >= most:
            return False
        index.nprobe = min(index.nprobe * 3 // 2, most)
    return True
