"""The nearest rows of one array to the rows of another, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tfgraphreg.distances import DISTANCES, Distance
from tfgraphreg.errors import DataError
from tfgraphreg.search.index import Index
from tfgraphreg.search.measured import as_matrix

# Entries of one chunk of results, and of one block of pairs: some tens of MB each.
_CHUNK_ENTRIES = 2**21
_BLOCK_ENTRIES = 2**21

Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Takes `[Q, D]` queries and k; gives `[Q, k]` distances, nearest first, and positions."""


def nearest(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    *,
    distance: str = "cosine",
    chunk_entries: int = _CHUNK_ENTRIES,
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yields the `k` nearest gallery rows of every query, for one chunk of queries at a time.

    FAISS searches if it supports the distance; every other registered distance is computed for all
    pairs in blocks. Distances between distributions see the softmax of the rows, as
    the graph regularizer does. Mahalanobis' covariance is the shrunk one of the gallery. A row of
    zeros has cosine distance 0 to another one and 1 to everything else.

    Args:
        queries: `[Q, D]`.
        gallery: `[G, D]`.
        k: At least 1; results are cut to G columns.
        distance: A registered distance d(query, gallery row).
        chunk_entries: About how many results to hold at a time.

    Yields:
        The rows of `queries`, the positions `[B, min(k, G)]` int64 in `gallery`, nearest
        first (equal distances by position), and the distances `[B, min(k, G)]` float32.

    Raises:
        DataError: If the widths differ or a value is not finite.
        UnknownNameError: If the distance is not registered.
    """
    queries, gallery = as_matrix("queries", queries), as_matrix("gallery", gallery)
    if queries.shape[1] != gallery.shape[1]:
        raise DataError(
            "Queries and gallery must have the same width.",
            received=f"{queries.shape[1]} and {gallery.shape[1]}",
        )
    k = min(k, len(gallery))
    record = DISTANCES.get(distance)
    if not len(queries) or not k:
        return
    rows = max(1, min(1024, chunk_entries // k))
    record = fitted(record, gallery)
    if distance in Index.DISTANCES and not record.own:
        search = _index_search(gallery, distance)
    elif record.linear is not None:
        # Euclidean neighbors of the mapped rows are the neighbors of the rows.
        gallery, queries = (_mapped(v, record.linear) for v in (gallery, queries))
        search = _index_search(gallery, "euclidean")
    elif distance == "histogram_intersection" and not record.own:
        # Half the Manhattan distance of rows that sum to one.
        gallery, queries = (prepare(v, record).astype(np.float32) / 2 for v in (gallery, queries))
        search = _index_search(gallery, "manhattan")
    else:
        search = _block_search(gallery, record)
        rows = max(1, min(64, _CHUNK_ENTRIES // len(gallery)))
    for start in range(0, len(queries), rows):
        part = slice(start, min(start + rows, len(queries)))
        distances, positions = search(queries[part], k)
        yield part, positions, distances


def without_own(positions: np.ndarray, own: np.ndarray) -> np.ndarray:
    """`[B, k + 1]` positions without the query itself, or without the last: `[B, k]`.

    The only place that removes an item from its own neighbors.

    Args:
        positions: `[B, k + 1]` of `nearest`.
        own: `[B]` the query's position in the gallery, -1 if it is not there.
    """
    is_own = positions == own[:, None]
    is_own[:, -1] |= ~is_own.any(axis=1)
    return positions[~is_own].reshape(len(positions), -1)


def fitted(distance: Distance, gallery: np.ndarray) -> Distance:
    """The record of the distance, fitted to the `[G, D]` gallery rows if it learns from data."""
    return distance.fit(gallery) if distance.fit is not None and len(gallery) else distance


def _mapped(values: np.ndarray, linear: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.astype(np.float64) @ linear, np.float32)


def prepare(values: np.ndarray, distance: Distance) -> np.ndarray:
    """`[N, D]` float64 rows as `distance.array` wants them: distributions as a softmax."""
    values = np.asarray(values, np.float64)
    if distance.distributions:
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    return values


def _index_search(gallery: np.ndarray, distance: str) -> Search:
    index = Index(gallery.shape[1], distance=distance)
    index.add(gallery)
    return index.search


def _block_search(gallery: np.ndarray, distance: Distance) -> Search:
    gallery = prepare(gallery, distance)
    step = max(1, _BLOCK_ENTRIES // gallery.shape[1])

    def one_row(query: np.ndarray) -> np.ndarray:
        values = np.empty(len(gallery), np.float32)
        for start in range(0, len(gallery), step):
            block = gallery[start : start + step]
            values[start : start + step] = distance.array(
                np.broadcast_to(query, block.shape), block
            )
        return values

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        values = np.stack([one_row(query) for query in prepare(queries, distance)])
        positions = np.argsort(values, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(values, positions, axis=1), positions

    return search
