"""Packed examples, written by the workers of an engine."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg.data.dataset import Split
from tfgraphreg.neighbors.packing import SHARD_BYTES, record_writer
from tfgraphreg.neighbors.records import packed_records
from tfgraphreg.shards.engine import Engine
from tfgraphreg.shards.store import RowShards

_LABEL_BYTES = 200  # of ids, labels, weights and names of a record


def write_records(
    split: Split, near: np.ndarray, weights: np.ndarray, first: int, path: pathlib.Path
) -> None:
    """Writes a range of examples with their neighbors to one TFRecord file.

    Args:
        split: All N examples.
        near: `[M, K]` neighbors of M of them, see `packed_records`.
        weights: `[M, K]` weights.
        first: The first of the M.
        path: The file; one that a killed worker left is replaced.
    """
    with record_writer(path) as writer:
        for record in packed_records(split, near, weights, first=first):
            writer.write(record)


def packing_on(engine: Engine, images: RowShards) -> Callable[..., list[str]]:
    """Returns a `writer` for `pack_neighbors`, by which an engine writes the records.

    Args:
        engine: Calls the parts. Its workers see the folder of packed examples at the same path.
        images: Those of the split, stored.
    """
    return functools.partial(_pack, engine, images)


def _pack(
    engine: Engine,
    images: RowShards,
    split: Split,
    graph: Any,
    max_neighbors: int,
    folder: pathlib.Path,
    progress: Callable[[int, int], None],
) -> list[str]:
    from tfgraphreg.neighbors.sampling import top_neighbors  # Numba takes a while to import.

    near, weights = top_neighbors(graph, max_neighbors, split.ids)
    record = (int(np.prod(images.row_shape)) + _LABEL_BYTES) * (max_neighbors + 1)
    size = max(1, SHARD_BYTES // record)
    starts = range(0, len(split), size)
    names = [f"packed-{i:05d}-of-{len(starts):05d}.tfrecord" for i in range(len(starts))]
    shared = engine.share(Split(images, split.labels, split.ids))
    parts = [
        (shared, near[first : first + size], weights[first : first + size], first, folder / name)
        for first, name in zip(starts, names)
    ]
    engine.map(write_records, parts, "packing", lambda what, done, total: progress(done, total))
    return names
