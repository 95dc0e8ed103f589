"""Where FAISS can search by a distance: vectors whose FAISS order is the distance's order.

Shapes: N items, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from tfgraphreg.search.measured import Measured


@dataclasses.dataclass(frozen=True)
class Space:
    """Vectors for one FAISS index.

    Attributes:
        base: `[N, W]` float32, what is searched.
        queries: `[N, W]` float32, what is asked for.
        metric: ``"METRIC_L2"``, ``"METRIC_L1"`` or ``"METRIC_INNER_PRODUCT"``.
    """

    base: np.ndarray
    queries: np.ndarray
    metric: str


def _one(vectors: np.ndarray, metric: str) -> Space:
    vectors = np.ascontiguousarray(vectors, np.float32)
    return Space(vectors, vectors, metric)


def _centered(features: np.ndarray) -> np.ndarray:
    """Moved to the mean and scaled to at most 1: the order of distances stays, float32 holds."""
    mean = features.mean(axis=0, dtype=np.float64)
    size = max(np.max(features.max(axis=0) - mean), np.max(mean - features.min(axis=0)))
    return ((features - mean.astype(np.float32)) / np.float32(size or 1)).astype(np.float32)


def _directions(features: np.ndarray) -> Space:
    """Unit vectors: |u - v|^2 = 2 (1 - cos).

    Zero rows get an axis of their own, so that they are near each other and far from the rest.
    """
    size = np.abs(features).max(axis=1, keepdims=True)
    zero = size == 0
    scaled = features / np.where(zero, 1, size)
    length = np.sqrt(np.einsum("nd,nd->n", scaled, scaled))[:, None]
    units = scaled / np.where(zero, 1, length)
    if zero.any():
        units = np.concatenate([units, zero.astype(np.float32)], axis=1)
    return _one(units, "METRIC_L2")


_EXACT: dict[str, Callable[[Measured], Space]] = {
    "euclidean": lambda m: _one(_centered(m.features), "METRIC_L2"),
    "sqeuclidean": lambda m: _one(_centered(m.features), "METRIC_L2"),
    "cosine": lambda m: _directions(m.features),
    "manhattan": lambda m: _one(_centered(m.features), "METRIC_L1"),
    "histogram_intersection": lambda m: _histograms(m.features),
    "kl": lambda m: _cross_entropy(m.features),
}


def _histograms(shares: np.ndarray) -> Space:
    """L1 has the order of the histogram intersection distance 1 - sum_i min(x_i, y_i).

    Proof: min(a, b) = (a + b - |a - b|) / 2 for all numbers a and b. Summed over the bins of two
    rows that each sum to one, sum_i min(x_i, y_i) = (1 + 1 - |x - y|_1) / 2, so the distance is
    |x - y|_1 / 2: half the Manhattan distance, which grows with it. So both have the same nearest
    rows.
    """
    return _one(shares, "METRIC_L1")


def _whitened(measured: Measured) -> Space:
    """Rows times W, where W W^T is the inverse covariance: their Euclidean distance is
    Mahalanobis'.

    |x W - y W|^2 = (x - y) W W^T (x - y)^T, the square of the Mahalanobis distance.
    """
    centered = measured.features - measured.features.mean(axis=0, dtype=np.float64)
    white = centered @ measured.distance.linear
    return _one(_centered(white.astype(np.float32)), "METRIC_L2")


def _cross_entropy(shares: np.ndarray) -> Space:
    """KL(x | y) = sum x log x - x . log y: for a given x nearest is the largest x . log y.

    So the search by KL divergence from an item to its neighbors is one for the largest inner
    product, which a flat index of FAISS answers exactly.
    """
    logs = np.log(shares.astype(np.float64) + 1e-7).astype(np.float32)
    return Space(logs, shares, "METRIC_INNER_PRODUCT")


def _roots(shares: np.ndarray) -> Space:
    """Square roots: the Euclidean distance between them is Hellinger's, close to JS and, for near
    rows, to KL.
    """
    return _one(np.sqrt(shares), "METRIC_L2")


def exact_space(measured: Measured) -> Space | None:
    """Vectors in which a flat index is exact, or None where FAISS has no such index."""
    if measured.distance.linear is not None:
        return _whitened(measured)
    if measured.distance.own:
        return None
    build = _EXACT.get(measured.distance.name)
    return build(measured) if build else None


def approximate_space(measured: Measured) -> Space | None:
    """Vectors in which a graph index finds good candidates, or None."""
    if measured.distance.name in ("kl", "js") and not measured.distance.own:
        return _roots(measured.features)
    return exact_space(measured)
