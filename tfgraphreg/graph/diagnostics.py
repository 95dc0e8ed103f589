"""Describes a graph in numbers, and says why a graph loss would be zero.

Shapes: N nodes, E edges, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfgraphreg.errors import GraphError
from tfgraphreg.graph.similarity import SimilarityGraph


def diagnose(graph: SimilarityGraph, labels: np.ndarray | None = None) -> dict[str, Any]:
    """Describes `graph` in plain numbers.

    Args:
        graph: N nodes.
        labels: `[N]` class numbers with -1 where unlabeled, or `[N, C]` multi-hot rows with -1
            where unlabeled. Two multi-hot images agree if they share a class.

    Returns:
        `nodes`, `edges`, `degree_min`, `degree_mean`, `degree_max`, `isolated` (nodes without any
        edge), `components` (weakly connected), `largest_component` (nodes), `hubness_skew`
        (skewness of in-degrees; Radovanović et al., 2010), `largest_hub`, `weight_min`,
        `weight_mean`, `weight_max`; with labels `edge_label_agreement` (share of edges between two
        labeled images that join the same class, None without such edges),
        `edge_label_agreement_per_class` (a list by class of the source) and `labeled_edges`;
        `why_zero` (a sentence if a graph loss would be zero, else None); and the graph's `about`.

    Raises:
        GraphError: If there is not one label for every node.
    """
    degrees, hubs = graph.degrees(), graph.in_degrees()
    sizes = _component_sizes(graph)
    has_edges = graph.num_edges > 0
    found: dict[str, Any] = {
        "nodes": graph.num_nodes,
        "edges": graph.num_edges,
        "degree_min": int(degrees.min()) if len(degrees) else 0,
        "degree_mean": float(degrees.mean()) if len(degrees) else 0.0,
        "degree_max": int(degrees.max(initial=0)),
        "isolated": int(((degrees == 0) & (hubs == 0)).sum()),
        "components": len(sizes),
        "largest_component": int(sizes.max(initial=0)),
        "hubness_skew": _skewness(hubs),
        "largest_hub": int(hubs.max(initial=0)),
        "weight_min": float(graph.weights.min()) if has_edges else None,
        "weight_mean": float(graph.weights.mean(dtype=np.float64)) if has_edges else None,
        "weight_max": float(graph.weights.max()) if has_edges else None,
    }
    if labels is not None:
        found.update(_agreement(graph, np.asarray(labels)))
    found["why_zero"] = why_zero(graph)
    found["about"] = dict(graph.about)
    return found


def _component_sizes(graph: SimilarityGraph) -> np.ndarray:
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(graph.num_edges, np.int8)  # weights of zero still connect
    n = graph.num_nodes
    matrix = csr_matrix((ones, graph.indices, graph.indptr), shape=(n, n))
    _, parts = connected_components(matrix, directed=True, connection="weak")
    return np.bincount(parts)


def _skewness(values: np.ndarray) -> float:
    centered = values - values.mean() if len(values) else np.zeros(1)
    spread = np.sqrt(np.mean(centered**2))
    return float(np.mean(centered**3) / spread**3) if spread > 0 else 0.0


def edges_in_words(facts: Mapping[str, Any]) -> str:
    """Such as "600 edges, 81.3% of the edges join images of one class".

    Args:
        facts: `edges`, `labeled_edges` and `edge_label_agreement`, as `diagnose` gives them.
    """
    edges, known, share = (facts[n] for n in ("edges", "labeled_edges", "edge_label_agreement"))
    if share is None:
        return f"{edges} edges"
    of = "edges" if known == edges else f"{known} edges between labeled images"
    return f"{edges} edges, {share:.1%} of the {of} join images of one class"


def edge_agreement(graph: SimilarityGraph, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[E]` bool, whether an edge joins two labeled images; `[E]` bool, whether they share a class.

    Raises:
        GraphError: If there is not one label for every node.
    """
    labels = np.asarray(labels)
    if len(labels) != graph.num_nodes:
        raise GraphError(
            "There must be one label for every node.",
            received=f"{len(labels)} labels, {graph.num_nodes} nodes",
        )
    sources, targets = graph.sources(), graph.indices
    if labels.ndim == 1:
        known = labels >= 0
        same = labels[sources] == labels[targets]
    else:
        known = np.all(labels >= 0, axis=1)
        same = np.zeros(graph.num_edges, bool)
        for column in (labels > 0).T:
            same |= column[sources] & column[targets]
    both = known[sources] & known[targets]
    return both, same & both


def agreement_facts(both: np.ndarray, same: np.ndarray) -> dict[str, Any]:
    """`edge_label_agreement` and `labeled_edges`, of what `edge_agreement` gives."""
    return {
        "edge_label_agreement": float(same[both].mean()) if both.any() else None,
        "labeled_edges": int(both.sum()),
    }


def _agreement(graph: SimilarityGraph, labels: np.ndarray) -> dict[str, Any]:
    both, same = edge_agreement(graph, labels)
    sources = graph.sources()
    per_class = []
    count = labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=-1)) + 1
    for c in range(count):
        members = labels[:, c] > 0 if labels.ndim == 2 else labels == c
        mine = both & members[sources]
        per_class.append(float(same[mine].mean()) if mine.any() else None)
    return {**agreement_facts(both, same), "edge_label_agreement_per_class": per_class}


def why_zero(graph: SimilarityGraph) -> str | None:
    """Why a graph loss over `graph` would be zero, or None if it need not be."""
    if not graph.num_nodes:
        return "The graph loss would be zero: the graph has no nodes."
    if not graph.num_edges:
        return (
            "The graph loss would be zero: the graph has no edges. Raise the number of neighbors "
            "or lower the threshold."
        )
    if not (graph.weights > 0).any():
        return "The graph loss would be zero: every edge has the weight 0."
    return None
