"""How well an embedding finds images of the same class.

Rows of `relevant` below are one query's ranked gallery, nearest first, True where the item
shares a class with the query; `total` counts all relevant items of the gallery. Neither
contains the query itself, which `without_own` removes by its id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.evaluation.arrays import as_labels, is_labeled
from tfgraphreg.search.measured import as_matrix
from tfgraphreg.search.ranking import nearest, without_own

Progress = Callable[[int, int], None]


def retrieval_report(
    queries: np.ndarray,
    query_labels: np.ndarray,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    *,
    distance: str = "cosine",
    ks: Sequence[int] = (1, 5, 10),
    map_cutoff: int | None = 100,
    query_ids: np.ndarray | None = None,
    gallery_ids: np.ndarray | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Retrieval of the same class among the nearest items.

    An item is relevant if it has the query's class, or, for multi-hot labels, shares at least
    one class with it. Every number is a mean over the queries that have at least one relevant
    item in the gallery; the others are counted in `queries_without_relevant`. It is NaN if no
    query is left. Unlabeled items are neither queries nor part of the gallery.

      - `recall_at_k`: share of queries with a relevant item among the first k.
      - `precision_at_k`: relevant items among the first k, divided by k (also where the
        gallery has fewer than k items).
      - `mean_average_precision`: mean of the average precision over the first `map_cutoff`
        items: the sum of precision@i over the relevant positions i <= map_cutoff, divided by
        min(relevant items in the gallery, map_cutoff). 1 exactly if all that can be relevant
        among the first `map_cutoff` is.

    Args:
        queries: `[Q, D]` embeddings.
        query_labels: `[Q]` class numbers or `[Q, C]` multi-hot rows, -1 where unlabeled.
        gallery: `[G, D]` embeddings that are searched.
        gallery_labels: Like `query_labels`, for the gallery.
        distance: A registered distance.
        ks: Depths of recall and precision, at least 1 each.
        map_cutoff: Depth of the average precision; None for the whole gallery.
        query_ids: `[Q]` ids; a gallery item with the query's own id is not a result.
        gallery_ids: `[G]` different ids; given if and only if `query_ids` is.
        progress: Called with (queries done, queries in all) after every chunk.

    Returns:
        A dictionary with `recall_at_<k>` and `precision_at_<k>` for each k of `ks`,
        `mean_average_precision`, `map_cutoff`, `distance`, `queries` and
        `queries_without_relevant`.

    Raises:
        ConfigError: If a depth is below 1.
        DataError: If arrays do not fit together.
        UnknownNameError: If the distance is not registered.
    """
    ranked = _Ranked(
        queries, query_labels, gallery, gallery_labels, distance, query_ids, gallery_ids
    )
    cutoff = _check_depths(ks, map_cutoff, ranked)
    return _report(ranked, max(*ks, cutoff), _basic(ks, cutoff), map_cutoff, progress)


def full_retrieval_report(
    queries: np.ndarray,
    query_labels: np.ndarray,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    *,
    distance: str = "cosine",
    ks: Sequence[int] = (1, 5, 10),
    map_cutoff: int | None = 100,
    query_ids: np.ndarray | None = None,
    gallery_ids: np.ndarray | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """`retrieval_report` and what needs longer rankings, as deep as the largest class.

      - `map_at_r`: with R the relevant items in the gallery, the sum of precision@i over the
        relevant positions i <= R, divided by R (Musgrave et al. 2020, "A Metric Learning
        Reality Check").
      - `r_precision`: relevant items among the first R, divided by R.
      - `ndcg`: the sum of 1/log2(i + 1) over the relevant positions i <= map_cutoff, divided
        by the same sum of the best ranking.
      - `mean_reciprocal_rank`: 1 over the position of the first relevant item; 0 if that
        comes after `map_cutoff`.

    Arguments, rules and errors are those of `retrieval_report`.
    """
    ranked = _Ranked(
        queries, query_labels, gallery, gallery_labels, distance, query_ids, gallery_ids
    )
    cutoff = _check_depths(ks, map_cutoff, ranked)
    metrics = {
        **_basic(ks, cutoff),
        "map_at_r": map_at_r,
        "r_precision": r_precision,
        "ndcg": lambda relevant, total: ndcg(relevant, total, cutoff=cutoff),
        "mean_reciprocal_rank": lambda relevant, total: reciprocal_rank(relevant[:, :cutoff]),
    }
    depth = max(*ks, cutoff, ranked.largest_total)
    return _report(ranked, depth, metrics, map_cutoff, progress)


def recall_at_k(relevant: np.ndarray, *, k: int) -> np.ndarray:
    """`[Q]`: 1 where one of the first `k` of `[Q, depth]` is relevant, else 0."""
    return np.asarray(relevant[:, :k].any(axis=1), np.float64)


def precision_at_k(relevant: np.ndarray, *, k: int) -> np.ndarray:
    """`[Q]`: relevant items among the first `k` of `[Q, depth]`, divided by `k`."""
    return relevant[:, :k].sum(axis=1) / k


def average_precision(relevant: np.ndarray, total: np.ndarray, *, cutoff: int) -> np.ndarray:
    """`[Q]`: average precision over the first `cutoff`; see `retrieval_report`.

    Args:
        relevant: `[Q, depth]` bool with depth of `cutoff` or the whole gallery.
        total: `[Q]` relevant items in the gallery, at least 1 each.
        cutoff: At least 1.
    """
    relevant = relevant[:, :cutoff]
    precision = np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
    return (precision * relevant).sum(axis=1) / np.minimum(total, cutoff)


def map_at_r(relevant: np.ndarray, total: np.ndarray) -> np.ndarray:
    """`[Q]`: average precision over the first R, R being the query's own `total`."""
    within = relevant & (np.arange(relevant.shape[1]) < total[:, None])
    precision = np.cumsum(within, axis=1) / np.arange(1, within.shape[1] + 1)
    return (precision * within).sum(axis=1) / total


def r_precision(relevant: np.ndarray, total: np.ndarray) -> np.ndarray:
    """`[Q]`: share of relevant items among the first R, R being the query's own `total`."""
    return (relevant & (np.arange(relevant.shape[1]) < total[:, None])).sum(axis=1) / total


def ndcg(relevant: np.ndarray, total: np.ndarray, *, cutoff: int) -> np.ndarray:
    """`[Q]`: normalized discounted cumulative gain over the first `cutoff`, gains 0 or 1."""
    relevant = relevant[:, :cutoff]
    discount = 1 / np.log2(np.arange(2, max(cutoff, relevant.shape[1]) + 2))
    best = np.cumsum(discount)[np.minimum(total, cutoff) - 1]
    return (relevant @ discount[: relevant.shape[1]]) / best


def reciprocal_rank(relevant: np.ndarray) -> np.ndarray:
    """`[Q]`: 1 over the position of the first relevant item of `[Q, depth]`, 0 without one."""
    if not relevant.shape[1]:
        return np.zeros(len(relevant))
    return np.where(relevant.any(axis=1), 1 / (relevant.argmax(axis=1) + 1), 0.0)


class _Ranked:
    """Queries and a gallery that fit together, and the rankings between them."""

    def __init__(self, queries, query_labels, gallery, gallery_labels, distance, ids, others):
        queries, gallery = as_matrix("queries", queries), as_matrix("gallery", gallery)
        query_labels = as_labels("query_labels", query_labels, len(queries))
        gallery_labels = as_labels("gallery_labels", gallery_labels, len(gallery))
        if query_labels.shape[1:] != gallery_labels.shape[1:]:
            raise DataError(
                "Labels of queries and gallery must be of the same kind.",
                received=f"shapes {query_labels.shape} and {gallery_labels.shape}",
            )
        own = _own_positions(ids, others, len(queries), len(gallery))
        asked, kept = is_labeled(query_labels), is_labeled(gallery_labels)
        # Positions in the gallery after its unlabeled items are left out.
        moved = np.where(kept, np.cumsum(kept) - 1, -1)
        own = np.where(own >= 0, moved[own], -1) if len(gallery) else own
        self.queries, self.query_labels, self.own = queries[asked], query_labels[asked], own[asked]
        self.gallery, self.gallery_labels = gallery[kept], gallery_labels[kept]
        self.distance = distance
        self.totals = self._totals()
        self.largest_total = int(self.totals.max(initial=1))

    def _totals(self) -> np.ndarray:
        """`[Q]`: relevant items of the gallery other than the query itself."""
        kinds, counts = np.unique(self.gallery_labels, axis=0, return_counts=True)
        totals = np.zeros(len(self.queries), np.int64)
        for kind, count in zip(kinds, counts):
            totals += count * _share(self.query_labels, kind[None])
        has_own = self.own >= 0
        own_labels = self.gallery_labels[self.own[has_own]]
        totals[has_own] -= _share(self.query_labels[has_own], own_labels)
        return totals

    def chunks(self, depth: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """Yields `relevant` `[B, depth or fewer]`, `total` `[B]` and the queries done so far."""
        extra = int((self.own >= 0).any())
        found = nearest(
            self.queries,
            self.gallery,
            depth + extra,
            distance=self.distance,
            chunk_entries=2**21 // max((1, *self.query_labels.shape[1:])),
        )
        for part, positions, _ in found:
            if extra:
                positions = without_own(positions, self.own[part])
            labels = self.query_labels[part]
            relevant = _share(labels[:, None], self.gallery_labels[positions])
            yield relevant, self.totals[part], part.stop


def _own_positions(
    ids: np.ndarray | None, others: np.ndarray | None, queries: int, gallery: int
) -> np.ndarray:
    """`[Q]`: the position in the gallery of the item with the query's id, -1 without one."""
    if ids is None and others is None:
        return np.full(queries, -1)
    if ids is None or others is None or len(ids) != queries or len(others) != gallery:
        raise DataError(
            "`query_ids` and `gallery_ids` must both be given, with one id for each item.",
            received=f"{0 if ids is None else len(ids)} ids for {queries} queries, "
            f"{0 if others is None else len(others)} ids for {gallery} gallery items",
        )
    where = {identity: position for position, identity in enumerate(np.asarray(others).tolist())}
    if len(where) != gallery:
        raise DataError(
            "`gallery_ids` must differ from each other.",
            received=f"{len(where)} different ids for {gallery} items",
        )
    return np.array([where.get(i, -1) for i in np.asarray(ids).tolist()], np.int64)


def _share(labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether class numbers are equal, or multi-hot rows (last axis) share a class."""
    if labels.dtype == np.int8:
        return (labels & others).any(axis=-1)
    return labels == others


def _check_depths(ks: Sequence[int], cutoff: int | None, ranked: _Ranked) -> int:
    if not ks or min(ks) < 1 or (cutoff is not None and cutoff < 1):
        raise ConfigError(
            "`ks` and `map_cutoff` must be at least 1.",
            received=f"ks={tuple(ks)}, map_cutoff={cutoff}",
        )
    return max(len(ranked.gallery), 1) if cutoff is None else cutoff


def _basic(ks: Sequence[int], cutoff: int) -> dict[str, Callable]:
    metrics: dict[str, Callable] = {}
    for k in ks:
        metrics[f"recall_at_{k}"] = lambda relevant, total, k=k: recall_at_k(relevant, k=k)
        metrics[f"precision_at_{k}"] = lambda relevant, total, k=k: precision_at_k(relevant, k=k)
    metrics["mean_average_precision"] = lambda relevant, total: average_precision(
        relevant, total, cutoff=cutoff
    )
    return metrics


def _report(
    ranked: _Ranked,
    depth: int,
    metrics: dict[str, Callable],
    cutoff: int | None,
    progress: Progress | None,
) -> dict[str, Any]:
    count, sums = 0, dict.fromkeys(metrics, 0.0)
    for relevant, total, done in ranked.chunks(depth):
        answerable = total > 0
        relevant, total = relevant[answerable], total[answerable]
        count += len(total)
        for name, metric in metrics.items():
            sums[name] += float(metric(relevant, total).sum())
        if progress is not None:
            progress(done, len(ranked.queries))
    return {
        **{name: value / count if count else float("nan") for name, value in sums.items()},
        "map_cutoff": cutoff,
        "distance": ranked.distance,
        "queries": len(ranked.queries),
        "queries_without_relevant": len(ranked.queries) - count,
    }
