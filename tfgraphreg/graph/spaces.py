"""Where FAISS can search by a distance: vectors whose FAISS order is the distance's order.

Shapes: N items, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from tfgraphreg.graph.metrics import Measured


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
}


def exact_space(measured: Measured) -> Space | None:
    """Vectors in which a flat index is exact, or None where FAISS has no such index."""
    build = _EXACT.get(measured.distance.name)
    return build(measured) if build else None


def approximate_space(measured: Measured) -> Space | None:
    """Vectors in which a graph index finds good candidates, or None."""
    return exact_space(measured)
