"""Images that lie apart, that are everybody's neighbor, and classes that run into each other.

Shapes: N nodes, E directed edges, C classes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfgraphreg.errors import GraphError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.search.measured import Measured

# Beyond the upper quartile by so many times the distance between the quartiles, of logarithms.
_FENCE = 2.0
_HUB = 5.0  # times the mean in-degree
_FEWEST_IN = 20
_BLENDED = 0.05


def find_outliers(
    graph: SimilarityGraph, vectors: np.ndarray, *, distance: str = "cosine"
) -> tuple[np.ndarray, np.ndarray]:
    """How far each node lies from its neighbors, and which lie too far.

    An outlier is a node whose mean distance to its neighbors is beyond Q3 + 2 (Q3 - Q1) of all
    nodes, both in logarithms. A group of more alike strangers than a node has neighbors is not
    found: they are each other's neighbors.

    Args:
        graph: N nodes, such as `knn_graph(vectors)`.
        vectors: `[N, D]` finite numbers.
        distance: By which distance; usually that of the graph.

    Returns:
        `[N]` float64: the mean distance to a node's neighbors as a multiple of the median node's;
        NaN without neighbors. `[N]` bool: outliers.

    Raises:
        GraphError: If there is not one vector for every node, or they do not suit the distance.
    """
    measured = Measured.of(vectors, distance)
    if len(measured.features) != graph.num_nodes:
        raise GraphError(
            "There must be one vector for every node.",
            received=f"{len(measured.features)} vectors, {graph.num_nodes} nodes",
        )
    sources, degrees = graph.sources(), graph.degrees()
    lengths = np.maximum(measured.between(sources, graph.indices), 0)
    means = np.full(graph.num_nodes, np.nan)
    known = degrees > 0
    means[known] = np.bincount(sources, lengths, graph.num_nodes)[known] / degrees[known]
    median = np.median(means[known]) if known.any() else 0.0
    if not median > 0:  # half of the images are copies of others
        return np.where(known, 0.0, np.nan), np.zeros(graph.num_nodes, bool)
    scores = means / median
    logs = np.log(np.maximum(scores, 1e-12))
    low, high = np.quantile(logs[known], (0.25, 0.75))
    with np.errstate(invalid="ignore"):
        return scores, known & (logs > high + _FENCE * max(high - low, 1e-3))


def find_isolated(graph: SimilarityGraph) -> np.ndarray:
    """`[N]` bool: nodes without any edge of a weight above 0, in either direction."""
    kept = graph.weights > 0
    joined = np.zeros(graph.num_nodes, bool)
    joined[graph.sources()[kept]] = True
    joined[graph.indices[kept]] = True
    return ~joined


def find_hubs(graph: SimilarityGraph) -> tuple[np.ndarray, np.ndarray]:
    """How often each node is another's neighbor, and which are so too often.

    Hubs appear in spaces of many dimensions (Radovanović et al., JMLR 2010); what they say of
    others is worth less. A hub here has at least 20 and at least five times as many edges into it
    as the mean node.

    Returns:
        `[N]` int64 edges into each node, and `[N]` bool: hubs.
    """
    found = graph.in_degrees()
    return found, found >= max(_HUB * graph.num_edges / max(graph.num_nodes, 1), _FEWEST_IN)


@dataclasses.dataclass(frozen=True)
class Blend:
    """Two classes that run into each other.

    Attributes:
        first: Class number.
        second: Class number, above `first`.
        share: Of the weight of all edges at labeled images of the two that stay among the two,
            the part that joins one to the other; from 0 to 1, 0.5 for a random mixture of two
            classes of equal size.
    """

    first: int
    second: int
    share: float


def blended_classes(
    graph: SimilarityGraph, labels: np.ndarray, num_classes: int, *, at_least: float = _BLENDED
) -> list[Blend]:
    """Pairs of classes that many edges join, the most blended first.

    Args:
        graph: N nodes.
        labels: `[N]` class numbers, -1 where unlabeled.
        num_classes: C.
        at_least: Smallest share that is listed.

    Raises:
        GraphError: If there is not one label for every node.
    """
    labels = np.asarray(labels)
    if labels.shape != (graph.num_nodes,):
        raise GraphError(
            "There must be one label for every node.",
            received=f"labels of the shape {labels.shape}, {graph.num_nodes} nodes",
        )
    sources = graph.sources()
    both = (labels[sources] >= 0) & (labels[graph.indices] >= 0)
    cells = labels[sources[both]] * num_classes + labels[graph.indices[both]]
    sums = np.bincount(cells, graph.weights[both], num_classes**2)
    weights = sums.astype(np.float64).reshape(num_classes, num_classes)
    across = weights + weights.T
    inside = np.diag(weights)
    whole = across + inside[:, None] + inside[None, :]
    shares = np.divide(across, whole, out=np.zeros_like(across), where=whole > 0)
    found = [
        Blend(int(a), int(b), float(shares[a, b]))
        for a, b in zip(*np.nonzero(np.triu(shares >= at_least, 1)))
    ]
    return sorted(found, key=lambda blend: (-blend.share, blend.first, blend.second))
