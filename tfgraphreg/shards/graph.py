"""The k-nearest-neighbor graph over rows in shards, by an engine.

Shapes: N rows, D width, K neighbors.
"""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import numpy as np

from tfgraphreg.distances import DISTANCES, Distance
from tfgraphreg.errors import ConfigError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.graph.weights import edge_weights
from tfgraphreg.progress import Progress, silent
from tfgraphreg.search.index import (
    GOAL,
    LISTED_DISTANCES,
    SAMPLE,
    TRAINING_ROWS,
    found_share,
    list_count,
)
from tfgraphreg.search.measured import Measured
from tfgraphreg.shards.engine import Engine
from tfgraphreg.shards.neighbors import (
    QUERIES,
    Found,
    Lists,
    check_distance,
    chunk_rows,
    nearest_in_chunk,
    search_exactly,
    spans,
)
from tfgraphreg.shards.store import RowShards

# N * N * D up to which "auto" is exact, as on one machine without an engine.
_EXACT_WORK = 1e12
_FIRST_REACH = 8
METHODS = ("auto", "exact", "ivf")


def sharded_knn_graph(
    engine: Engine,
    rows: RowShards,
    *,
    k: int,
    distance: str = "cosine",
    weighting: str = "cosine",
    method: str = "auto",
    seed: int = 0,
    scratch: pathlib.Path,
    progress: Progress = silent,
) -> SimilarityGraph:
    """Joins every row to its k nearest others; the edges do not depend on the engine.

    By ``"exact"`` the edges are those of `knn_graph`. By ``"ivf"`` the centers of the lists are
    learned from a sample, every chunk of rows is assigned to them by itself, and as many lists are
    read as find 99.5% of another sample's neighbors.

    Args:
        engine: Calls the parts.
        rows: `[N, D]` float32 features.
        k: From 1 to N - 1.
        distance: cosine, euclidean, sqeuclidean; without lists also manhattan,
            histogram_intersection and kl.
        weighting: See `edge_weights`.
        method: ``"exact"``, ``"ivf"``, or ``"auto"``: exact for small sets.
        seed: Of the samples.
        scratch: A folder that all workers see, for the lists.
        progress: Called while work goes on.

    Raises:
        ConfigError: If `k` or `method` cannot be.
        GraphError: If the distance cannot be searched part by part.
    """
    n, width = rows.shape
    if not 1 <= k < n:
        raise ConfigError(
            "`k` must be at least 1 and smaller than the number of items.",
            received=f"k={k}, items={n}",
        )
    check_method(method)
    record = DISTANCES.get(distance)
    if method == "auto":
        method = "ivf" if distance in LISTED_DISTANCES and n * n * width > _EXACT_WORK else "exact"
    check_distance(record, listed=method == "ivf")
    ranges, chunks = spans(n, QUERIES), spans(n, chunk_rows(width))
    about: dict[str, Any] = {"kind": "knn", "k": k, "metric": distance, "weighting": weighting}
    if method == "exact":
        exactly = [(rows, *bounds, chunks, k, record) for bounds in ranges]
        found = _together(engine.map(search_exactly, exactly, "neighbors", progress))
        about |= {"method": "exact", "recall": 1.0}
    else:
        lists_of, reach = _lists(engine, rows, k, distance, seed, scratch, progress)
        parts = [(rows, *bounds, k, reach) for bounds in ranges]
        found = _together(engine.map(lists_of.search, parts, "neighbors", progress))
        sample, truth = _truth(engine, rows, k, record, seed, progress)
        about |= {"method": "ivf", "recall": found_share(found.distances[sample], truth)}
    sources, targets = np.repeat(np.arange(n), k), found.indices.ravel()
    weights = _weights(weighting, record, width, sources, targets, found)
    return SimilarityGraph.from_edges(sources, targets, weights, n, about=about)


def check_method(method: str) -> None:
    """Refuses a search that cannot be done part by part.

    Raises:
        ConfigError: If it is none of `METHODS`.
    """
    if method not in METHODS:
        raise ConfigError(
            "On an engine neighbors are searched by auto, exact or ivf.",
            received=f"graph_search={method}",
        )


def _together(results: list[Found]) -> Found:
    fields = ("indices", "distances", "cosines")
    return Found(*(np.concatenate([getattr(r, name) for r in results]) for name in fields))


def _weights(
    weighting: str,
    distance: Distance,
    width: int,
    sources: np.ndarray,
    targets: np.ndarray,
    found: Found,
) -> np.ndarray:
    # The rows themselves are in no one place; cosines were computed where both ends were.
    none = np.broadcast_to(np.float32(0), (len(found.indices), width))
    return edge_weights(
        weighting,
        Measured(distance, none),
        sources,
        targets,
        found.distances.ravel(),
        cosines=found.cosines.ravel(),
    )


def _lists(
    engine: Engine,
    rows: RowShards,
    k: int,
    distance: str,
    seed: int,
    scratch: pathlib.Path,
    progress: Progress,
) -> tuple[Lists, int]:
    """Filled lists, and how many of them a search must read."""
    n, count = len(rows), list_count(len(rows))
    draw = np.random.default_rng([seed, 1])
    trained_on = np.sort(draw.choice(n, min(n, count * TRAINING_ROWS), replace=False))
    sample = rows[trained_on]
    lists = Lists(
        scratch,
        distance,
        sample.mean(axis=0, dtype=np.float64).astype(np.float32),
        spans(n, chunk_rows(rows.shape[1])),
    )
    lists.train(sample, count, seed=seed)
    engine.map(lists.fill, [(rows, *bounds) for bounds in lists.chunks], "index", progress)
    # Not the sample on which the recall is reported.
    numbers, truth = _truth(engine, rows, k, DISTANCES.get(distance), seed + 1, progress)
    queries, reach = rows[numbers], min(_FIRST_REACH, count)
    while reach < count:
        parts = [(rows, *bounds, queries, numbers, k, reach) for bounds in lists.chunks]
        found = engine.map(lists.nearest_in_chunk, parts, f"recall of {reach} lists", silent)
        mine = functools.reduce(lambda one, other: one.joined(other, k), found)
        if found_share(mine.distances, truth) >= GOAL:
            break
        reach = min(reach * 3 // 2, count)
    return lists, reach


def _truth(
    engine: Engine, rows: RowShards, k: int, distance: Distance, seed: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of some rows, and the distances of their true neighbors, `[S]` and `[S, K]`."""
    n = len(rows)
    numbers = np.sort(np.random.default_rng(seed).choice(n, min(SAMPLE, n), replace=False))
    queries = rows[numbers]
    chunks = spans(n, chunk_rows(rows.shape[1]))
    parts = [(rows, *bounds, queries, numbers, k, distance) for bounds in chunks]
    found = engine.map(nearest_in_chunk, parts, "sample for the recall", progress)
    return numbers, functools.reduce(lambda one, other: one.joined(other, k), found).distances
