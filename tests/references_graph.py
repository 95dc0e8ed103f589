"""Slow, obvious oracles for the graph room."""

import numpy as np


def knn(features, k, distance):
    """Neighbors of each row by `distance(a, b)`, nearest first, ties by the smaller number."""
    features = np.asarray(features, np.float64)
    found = []
    for i in range(len(features)):
        others = [(distance(features[i], features[j]), j) for j in range(len(features)) if j != i]
        found.append(sorted(others)[:k])
    nodes = np.array([[j for _, j in row] for row in found])
    distances = np.array([[d for d, _ in row] for row in found])
    return nodes, distances


def gaussian_weights(features, nodes, distance, scale_neighbor=7):
    """Locally scaled Gaussian weights of the edges from i to `nodes[i]`."""
    n, k = nodes.shape
    d = np.array([[distance(features[i], features[j]) for j in nodes[i]] for i in range(n)])
    scale = np.sort(d, axis=1)[:, min(k, scale_neighbor) - 1]
    weights = np.empty((n, k))
    for i in range(n):
        for a, j in enumerate(nodes[i]):
            weights[i, a] = np.exp(-(d[i, a] ** 2) / (scale[i] * scale[j]))
    return weights
