"""Nearest neighbors of every item among all the others.

FAISS proposes a few more candidates than asked for; their distances are then computed pair by
pair in float64, so that order and ties do not depend on how a matrix product was rounded.
Shapes: N items, D width, K neighbors.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tfgraphreg.errors import ConfigError, GraphError
from tfgraphreg.progress import Progress, silent
from tfgraphreg.search.index import LISTED, METHODS, SAMPLE, build_index, found_share, widen
from tfgraphreg.search.measured import Measured
from tfgraphreg.search.spaces import Space, approximate_space, exact_space

if TYPE_CHECKING:
    import faiss

_SPARE = 4  # candidates beyond k and the item itself
_QUERIES = 8192
# N * N * D up to which "auto" is exact at once: some 20 s on two cores by L2 and inner products,
# which FAISS compares with a matrix product; a minute by L1, which it compares number by number.
_EXACT_WORK = {"METRIC_L2": 1e12, "METRIC_INNER_PRODUCT": 1e12, "METRIC_L1": 1e12}
# The same where inverted lists would have to be read almost whole: about three minutes.
_HARD_WORK = 1e13
# Beyond this share of the lists a matrix product with all items is faster.
_LIMIT = 0.25
_BRUTE_WORK = 2e9  # the same where FAISS has no index and NumPy must do it
_SMALLEST_SAMPLE = 50  # where NumPy must find the true neighbors


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """The nearest neighbors of N items.

    Attributes:
        indices: `[N, K]` int64, nearest first, ties by the smaller number; never the item itself.
        distances: `[N, K]` float64.
        method: ``"exact"``, ``"ivf"`` or ``"hnsw"``.
        recall: Share of the true K nearest that were found: 1.0 when exact, else measured on a
            sample.
    """

    indices: np.ndarray
    distances: np.ndarray
    method: str
    recall: float


def nearest_others(
    measured: Measured,
    k: int,
    *,
    method: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Neighbors:
    """The `k` nearest neighbors of every item.

    Args:
        measured: Features and their distance.
        k: From 1 to N - 1.
        method: ``"exact"``; ``"ivf"``: inverted lists, of which enough are read to find 99.5% of a
            sample's neighbors; ``"hnsw"`` (Malkov and Yashunin, 2018,
            arXiv:1603.09320), for distances that have no such lists; ``"auto"``: exact up to some
            20 seconds of work on two cores (by L1: a minute), then lists or, by L1, HNSW. If a
            quarter of the lists is not enough, the search is exact where that takes up to three
            minutes; beyond that it reads a quarter of the lists.
        seed: Chooses the sample on which recall is measured.
        threads: Processor cores to use; all of them by default.
        progress: Called with ``"neighbors"``, items done, and N.

    Raises:
        ConfigError: If `k` or `method` cannot be.
    """
    n = len(measured.features)
    if k < 1:
        raise ConfigError("`k` must be at least 1.", received=f"k={k}")
    if k >= n:
        cure = f"Use k <= {n - 1}." if n > 1 else "A graph needs at least two items."
        raise ConfigError(
            "`k` must be smaller than the number of items.",
            received=f"k={k}, items={n}",
            cure=cure,
        )
    if method not in ("auto", *METHODS):
        raise ConfigError(
            f"`method` must be one of auto, {', '.join(METHODS)}.", received=repr(method)
        )
    progress = progress or silent
    with _threads(threads):
        index = None
        chosen = _choose(measured) if method == "auto" else method
        if chosen != "exact":
            space = _approximate_space(measured)
            index = _built(chosen, space, measured, k, seed, method == "auto", progress)
        if index is None:
            indices, distances = _exact(measured, np.arange(n), k, progress)
            return Neighbors(indices, distances, "exact", 1.0)
        indices, distances = _approximate(index, space, measured, k, progress)
        sample, truth = _sample(measured, k, seed)
        mine = measured.between(np.repeat(sample, k), indices[sample].ravel()).reshape(-1, k)
    return Neighbors(indices, distances, chosen, found_share(mine, truth))


def _choose(measured: Measured) -> str:
    n, width = measured.features.shape
    space = exact_space(measured)
    if n * n * width <= (_BRUTE_WORK if space is None else _EXACT_WORK[space.metric]):
        return "exact"
    space = approximate_space(measured)
    if space is None:
        return "exact"
    return "ivf" if space.metric in LISTED else "hnsw"


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    import faiss

    before = faiss.omp_get_max_threads()
    if count is not None:
        faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _exact(
    measured: Measured, items: np.ndarray, k: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Exact neighbors of the given items."""
    space = exact_space(measured)
    if space is None:
        return _brute(measured, items, k, progress)
    index = build_index("exact", space.base, space.metric)
    return _search(index, space, measured, items, k, progress)


def _built(
    method: str,
    space: Space,
    measured: Measured,
    k: int,
    seed: int,
    may_be_exact: bool,
    progress: Progress,
) -> faiss.Index | None:
    """An index with sufficient recall, or None if exact search is the better choice."""
    import faiss

    if method == "ivf" and space.metric not in LISTED:
        raise GraphError(
            f"There are no inverted lists for the distance {measured.distance.name}.",
            cure='Use method="hnsw" or "exact".',
        )
    index = build_index(
        method,
        space.base,
        space.metric,
        depth=k,
        seed=seed,
        progress=lambda done, total: progress("index", done, total),
    )
    if not isinstance(index, faiss.IndexIVF):
        return index
    # Not the sample on which the recall is reported.
    sample, truth = _sample(measured, k, seed + 1)

    def recall() -> float:
        return found_share(_search(index, space, measured, sample, k, silent)[1], truth)

    reached = widen(index, recall, limit=_LIMIT if may_be_exact else 1.0)
    n, width = measured.features.shape
    if not reached and may_be_exact and exact_space(measured) and n * n * width <= _HARD_WORK:
        return None
    return index


def _approximate_space(measured: Measured) -> Space:
    space = approximate_space(measured)
    if space is None:
        raise GraphError(
            f"There is no approximate search for the distance {measured.distance.name}.",
            cure='Use method="exact".',
        )
    return space


def _approximate(
    index: faiss.Index, space: Space, measured: Measured, k: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    n = len(space.base)
    indices, distances = _search(index, space, measured, np.arange(n), k, progress)
    short = np.flatnonzero(~np.isfinite(distances[:, -1]))
    if len(short):  # a part of the index that search did not reach
        indices[short], distances[short] = _exact(measured, short, k, silent)
    return indices, distances


def _search(
    index: faiss.Index,
    space: Space,
    measured: Measured,
    items: np.ndarray,
    k: int,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    wanted = min(k + 1 + _SPARE, len(space.base))
    indices = np.empty((len(items), k), np.int64)
    distances = np.empty((len(items), k))
    for start in range(0, len(items), _QUERIES):
        rows = items[start : start + _QUERIES]
        _, found = index.search(space.queries[rows], wanted)
        block = slice(start, start + len(rows))
        indices[block], distances[block] = _ranked(measured, rows, found, k)
        progress("neighbors", start + len(rows), len(items))
    return indices, distances


def _ranked(
    measured: Measured, rows: np.ndarray, found: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of `found` candidates by exact distance, then by number, without the row itself.

    With more than k duplicates the row may be missing from its own candidates; then the last
    candidate is dropped instead, so that k remain.
    """
    owners = np.repeat(rows, found.shape[1])
    exact = measured.between(owners, np.maximum(found.ravel(), 0)).reshape(found.shape)
    exact[(found < 0) | (found == rows[:, None])] = np.inf
    order = np.lexsort((found, exact))[:, :k]
    return np.take_along_axis(found, order, 1), np.take_along_axis(exact, order, 1)


def _brute(
    measured: Measured, items: np.ndarray, k: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """One item against all others, for distances that FAISS does not support."""
    features = measured.features.astype(np.float64)
    indices = np.empty((len(items), k), np.int64)
    distances = np.empty((len(items), k))
    for place, item in enumerate(items):
        rows = np.broadcast_to(features[item], features.shape)
        found = np.array(measured.distance.array(rows, features), np.float64)
        if found.shape != (len(features),) or not np.isfinite(found).all():
            raise GraphError(
                f"The distance {measured.distance.name} must give one finite number for every row.",
                received=f"shape {found.shape}, {int((~np.isfinite(found)).sum())} not finite",
            )
        found[item] = np.inf
        best = np.flatnonzero(found <= np.partition(found, k - 1)[k - 1])
        best = best[np.argsort(found[best], kind="stable")][:k]
        indices[place], distances[place] = best, found[best]
        if (place + 1) % 256 == 0:
            progress("neighbors", place + 1, len(items))
    return indices, distances


def _sample(measured: Measured, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Some items and the distances of their true neighbors, `[S]` and `[S, K]`."""
    n = len(measured.features)
    size = SAMPLE
    if exact_space(measured) is None:
        affordable = int(_BRUTE_WORK / measured.features.size)
        size = min(size, max(_SMALLEST_SAMPLE, affordable))
    sample = np.random.default_rng(seed).choice(n, min(size, n), replace=False)
    return sample, _exact(measured, sample, k, silent)[1]
