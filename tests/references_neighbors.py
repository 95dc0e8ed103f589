"""Slow, obvious counterparts of the neighbors room, and small inputs for its tests."""

import itertools

import numpy as np

from tfgraphreg.data.dataset import Split
from tfgraphreg.graph.similarity import SimilarityGraph


def random_split(n=101, shape=(4, 3, 1), classes=4, seed=0, multilabel=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, classes, n)
    if multilabel:
        labels = rng.integers(0, 2, (n, classes)).astype(np.int8)
        labels[::7] = -1
    ids = np.array([f"set/{'ö' * (i % 3)}{i}" for i in range(n)])
    return Split(rng.integers(0, 256, (n, *shape), dtype=np.uint8), labels, ids)


def random_graph(n=101, most=6, seed=1):
    """Nodes with 0 to `most` neighbors, few different weights, so that ties abound."""
    rng = np.random.default_rng(seed)
    edges = [
        (node, int(other), weight)
        for node in range(n)
        for other, weight in zip(
            rng.choice(n, rng.integers(0, most + 1), replace=False),
            rng.choice(np.array([0.25, 1 / 3, 0.7, 1.0], np.float32), most),
        )
        if other != node
    ]
    sources, targets, weights = (np.array(column) for column in zip(*edges))
    return SimilarityGraph.from_edges(sources, targets, weights, n)


def exact_edge_probabilities(graph, *, by_weight=False):
    """The chance of each edge in the matching: all orders of the nodes, all choices."""
    n = graph.num_nodes
    chances = np.zeros(graph.num_edges)
    orders = list(itertools.permutations(range(n)))

    def visit(order, free, drawn, chance):
        if not order:
            for edge in drawn:
                chances[edge] += chance
            return
        node, rest = order[0], order[1:]
        edges = [
            e
            for e in range(graph.indptr[node], graph.indptr[node + 1])
            if node in free and graph.indices[e] in free
        ]
        if not edges:
            visit(rest, free, drawn, chance)
            return
        shares = np.array([graph.weights[e] if by_weight else 1.0 for e in edges], float)
        for edge, share in zip(edges, shares / shares.sum()):
            left = free - {node, int(graph.indices[edge])}
            visit(rest, left, [*drawn, edge], chance * share)

    for order in orders:
        visit(order, frozenset(range(n)), [], 1 / len(orders))
    return chances
