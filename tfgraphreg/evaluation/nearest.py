"""The nearest rows of one array to the rows of another, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tfgraphreg.distances import DISTANCES, Distance
from tfgraphreg.errors import DataError
from tfgraphreg.evaluation.arrays import as_matrix

FAISS_DISTANCES = ("cosine", "euclidean", "sqeuclidean", "manhattan")
# Entries of one chunk of results, and of one block of pairs: some tens of MB each.
_CHUNK_ENTRIES = 2**21
_BLOCK_ENTRIES = 2**21


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Rows scaled to length one, `[N, D + 1]`; a row of zeros gets its one in the last column.

    Inner products are then cosines, with 1 between two rows of zeros and 0 between such a row
    and any other, as the registered cosine distance has it.
    """
    # In float64, so that rows of one direction and different lengths become the same row.
    values = np.asarray(values, np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    zero = norms == 0
    return np.hstack([values / np.where(zero, 1, norms), zero]).astype(np.float32)


def nearest(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    *,
    distance: str = "cosine",
    chunk_entries: int = _CHUNK_ENTRIES,
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yields the `k` nearest gallery rows of every query, for one chunk of queries at a time.

    FAISS searches where it knows the distance; every other registered distance is computed
    for all pairs in blocks. Distances between distributions see the softmax of the rows, as
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
    if distance in FAISS_DISTANCES and not record.own:
        search = _faiss_search(gallery, distance)
    elif record.linear is not None:
        # Euclidean neighbors of the mapped rows are the neighbors of the rows.
        gallery, queries = (_mapped(v, record.linear) for v in (gallery, queries))
        search = _faiss_search(gallery, "euclidean")
    elif distance == "histogram_intersection" and not record.own:
        # Half the Manhattan distance of rows that sum to one.
        gallery, queries = (prepare(v, record).astype(np.float32) / 2 for v in (gallery, queries))
        search = _faiss_search(gallery, "manhattan")
    else:
        search = _block_search(gallery, record)
        rows = max(1, min(64, _CHUNK_ENTRIES // len(gallery)))
    for start in range(0, len(queries), rows):
        part = slice(start, min(start + rows, len(queries)))
        distances, positions = search(queries[part], k)
        order = np.lexsort((positions, distances))
        yield (
            part,
            np.take_along_axis(positions, order, axis=1),
            np.take_along_axis(distances, order, axis=1),
        )


def without_own(positions: np.ndarray, own: np.ndarray) -> np.ndarray:
    """`[B, k + 1]` positions without the query itself, or without the last: `[B, k]`.

    This is the one place where an item is kept from being its own neighbor.

    Args:
        positions: `[B, k + 1]` of `nearest`.
        own: `[B]` the query's position in the gallery, -1 if it is not there.
    """
    is_own = positions == own[:, None]
    is_own[:, -1] |= ~is_own.any(axis=1)
    return positions[~is_own].reshape(len(positions), -1)


def fitted(distance: Distance, gallery: np.ndarray) -> Distance:
    """The record that measures distances to `[G, D]` gallery rows, learned from them if it must."""
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


def _faiss_search(gallery: np.ndarray, distance: str):
    import faiss

    # Cosine by L2 between rows of length one, which is twice the cosine distance: among equal
    # inner products FAISS keeps any, among equal distances those of the lower positions.
    metric = faiss.METRIC_L1 if distance == "manhattan" else faiss.METRIC_L2
    base = unit_rows(gallery) if distance == "cosine" else gallery
    index = faiss.IndexFlat(base.shape[1], metric)
    index.add(base)

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if distance == "cosine":
            values, positions = index.search(unit_rows(queries), k)
            return np.maximum(values / 2, 0), positions
        values, positions = index.search(queries, k)
        if distance == "euclidean":
            values = np.sqrt(np.maximum(values, 0))
        return values, positions

    return search


def _block_search(gallery: np.ndarray, distance: Distance):
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
