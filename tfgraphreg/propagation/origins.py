"""Which labeled image a label came from.

Shapes: N nodes, M of them labeled.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from tfgraphreg.propagation.system import System


def origins(system: System, labeled: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """The labeled node that each node is nearest to along the edges.

    A step along an edge of weight w is 1 + ln(largest weight / w) long, so that a path of few,
    heavy edges is short. With `labels`, paths begin at a labeled node of the same label and go
    through
    nodes of that label; only where there is no such path may they go through others.

    Args:
        system: A graph in which every component has a labeled node.
        labeled: `[M]` node numbers.
        labels: `[N]` integers, each one also that of a labeled node in the same component; None
            for the nearest labeled node of any label.

    Returns:
        `[N]` int64 node numbers.
    """
    lengths = system.weights.copy()
    lengths.data = 1.0 + np.log(lengths.data.max(initial=1e-300) / lengths.data)
    if labels is None:
        return _nearest(lengths, labeled)
    edges = lengths.tocoo()
    same = labels[edges.row] == labels[edges.col]
    inside = sparse.csr_matrix(
        (edges.data[same], (edges.row[same], edges.col[same])), shape=lengths.shape
    )
    found = _nearest(inside, labeled)
    for label in np.unique(labels[found < 0]):
        left = (found < 0) & (labels == label)
        found[left] = _nearest(lengths, labeled[labels[labeled] == label])[left]
    return found


def _nearest(lengths: sparse.csr_matrix, starts: np.ndarray) -> np.ndarray:
    """`[N]`: for each node the nearest of the `starts`; -1 if no path leads to it."""
    distances, _, sources = dijkstra(
        lengths, indices=starts, min_only=True, return_predecessors=True
    )
    return np.where(np.isfinite(distances), sources, -1).astype(np.int64)
