"""Packing: every training image is written together with its neighbors, once, to disk.

`packer="nsl"` hands examples and graph to the real `nsl.tools.pack_nbrs`; `packer="stream"`
writes equal records several times faster and with memory that does not grow with the images.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.data.dataset import Split
from tfgraphreg.errors import ConfigError, GraphError
from tfgraphreg.neighbors import records
from tfgraphreg.reading import read_json

PACKERS = ("nsl", "stream")
_FORMAT = 1
_MANIFEST = "manifest.json"
SHARD_BYTES = 256 << 20
_REPORT_EVERY = 1000
_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
Writer = Callable[[Split, Any, int, pathlib.Path, Progress], list[str]]


@dataclasses.dataclass(frozen=True)
class PackedExamples:
    """Packed examples on disk.

    Attributes:
        files: TFRecord files, in the order of the examples.
        num_examples: N.
        max_neighbors: K, the largest number of neighbors an example may have.
        image_shape: `(height, width, channels)`.
        label_width: 0 for class numbers, C for multi-hot rows of C columns.
    """

    files: tuple[str, ...]
    num_examples: int
    max_neighbors: int
    image_shape: tuple[int, int, int]
    label_width: int

    @property
    def multilabel(self) -> bool:
        """Whether labels are multi-hot rows."""
        return self.label_width > 0

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(os.path.getsize(f) for f in self.files)


def pack_neighbors(
    split: Split,
    graph: Any,
    *,
    max_neighbors: int,
    folder: os.PathLike[str] | str,
    key: dict[str, Any],
    packer: str = "nsl",
    writer: Writer | None = None,
    progress: Progress | None = None,
) -> PackedExamples:
    """Writes TFRecords in which each example carries its neighbors, or finds them written.

    Features: `id`, `image` (raw uint8 bytes), `label` (int64, one value or C; -1 unlabeled),
    `NL_num_nbrs`, and for neighbor i, by decreasing weight with ties to the larger id:
    `NL_nbr_<i>_image`, `NL_nbr_<i>_label`, `NL_nbr_<i>_id`, `NL_nbr_<i>_weight`.

    The result is in `folder/<fingerprint>`, written whole or not at all; a process that packs the
    same data at the same time waits for the first. A truncated or altered result is written again.
    Leftovers of a killed process are removed.

    Args:
        split: N images to train on, the nodes of `graph`.
        graph: `SimilarityGraph` of N nodes.
        max_neighbors: K, at least 1: the largest number of neighbors kept, those of largest weight.
        folder: Where packed sets are cached.
        key: All that went into `split` and `graph` (data, features, metric, k, seed, versions),
            as a JSON-like value. The graph and all of `split` but its pixels are added to it.
        packer: `"nsl"` or `"stream"`.
        writer: Writes the files in place of the packer `"stream"`, with equal records in the same
            order: called with the arguments of `_write_stream`, returns the names of the files.
        progress: Called with (examples done, N) now and then.

    Raises:
        ConfigError: If `max_neighbors` or `packer` is out of range.
        GraphError: If the graph is not one of N nodes, or an id holds a tab or line break.
        DataError: If `folder` cannot be written or the disk is full.
    """
    _check(split, graph, max_neighbors, packer)
    parts = {
        "format": _FORMAT,
        "packer": packer,
        "max_neighbors": max_neighbors,
        "images": list(split.images.shape),
        "labels": np.asarray(split.labels),
        "ids": np.asarray(split.ids, dtype=str),
        "graph": [graph.indptr, graph.indices, graph.weights],
        "key": key,
    }
    name = storage.fingerprint(parts)
    folder = pathlib.Path(folder)
    storage.remove_leftovers_in(folder)
    with _lock(folder, name):
        packed = read_packed(folder / name)
        if packed is None:
            with storage.atomic_folder(folder / name) as part:
                write = writer or _WRITERS[packer]
                files = write(split, graph, max_neighbors, part, progress or (lambda *_: None))
                manifest = _write_manifest(part, files, split, max_neighbors, parts)
            packed = _from_manifest(folder / name, manifest)
    return packed


def read_packed(folder: os.PathLike[str] | str) -> PackedExamples | None:
    """The packed examples in `folder`, or None if they are absent, incomplete or altered."""
    folder = pathlib.Path(folder)
    if not folder.exists():
        return None
    try:
        manifest = read_json(folder / _MANIFEST)
        files = manifest["files"]
        wrong = [f for f, digest in files.items() if storage.file_digest(folder / f) != digest]
        if not wrong:
            return _from_manifest(folder, manifest)
        reason = f"{wrong[0]} is truncated or altered"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"its manifest cannot be read: {error!r}"
    _log.warning(
        "The packed examples in %s cannot be used (%s) and are made again.", folder, reason
    )
    return None


def _from_manifest(folder: pathlib.Path, manifest: dict[str, Any]) -> PackedExamples:
    return PackedExamples(
        files=tuple(str(folder / f) for f in manifest["files"]),
        num_examples=manifest["num_examples"],
        max_neighbors=manifest["max_neighbors"],
        image_shape=tuple(manifest["image_shape"]),
        label_width=manifest["label_width"],
    )


def _check(split: Split, graph: Any, max_neighbors: int, packer: str) -> None:
    if packer not in PACKERS:
        raise ConfigError("Unknown packer.", received=repr(packer), cure="Use nsl or stream.")
    if max_neighbors < 1:
        raise ConfigError(
            "`max_neighbors` must be at least 1 to pack neighbors.",
            received=f"max_neighbors={max_neighbors}",
            cure="Use alpha=0 for training without a graph.",
        )
    check_nodes(split, graph)


def check_nodes(split: Sized, graph: Any) -> None:
    """Raises GraphError unless `graph` has one node for every item of `split`."""
    if graph.num_nodes != len(split):
        raise GraphError(
            "The graph must have one node for every training image.",
            received=f"{graph.num_nodes} nodes, {len(split)} images",
            cure="Build the graph from these images, or read it with their ids.",
        )


def _lock(folder: pathlib.Path, name: str) -> Any:
    """Holds the lock of one cache entry."""
    return storage.lock(folder / f".{name}.lock", wait=True)


def _write_manifest(
    folder: pathlib.Path, files: list[str], split: Split, max_neighbors: int, parts: dict[str, Any]
) -> dict[str, Any]:
    manifest = {
        "files": {f: storage.file_digest(folder / f) for f in files},
        "num_examples": len(split),
        "max_neighbors": max_neighbors,
        "image_shape": list(split.images.shape[1:]),
        "label_width": split.labels.shape[1] if split.multilabel else 0,
        "packer": parts["packer"],
        "key": json.loads(json.dumps(parts["key"], default=str)),
    }
    storage.write_json(folder / _MANIFEST, manifest)
    return manifest


def _write_nsl(
    split: Split, graph: Any, max_neighbors: int, folder: pathlib.Path, progress: Progress
) -> list[str]:
    """Lets the real `nsl.tools.pack_nbrs` write; returns the names of the files."""
    from tfgraphreg.compat import nsl
    from tfgraphreg.graph.tsv import write_tsv

    name = "packed-00000-of-00001.tfrecord"
    examples, edges = folder / "examples.tfrecord", folder / "graph.tsv"
    progress(0, len(split))
    with record_writer(examples) as writer:
        for record in records.example_records(split):
            writer.write(record)
    write_tsv(graph, list(split.ids), edges)
    nsl.tools.pack_nbrs(
        labeled_examples_path=str(examples),
        unlabeled_examples_path="",
        graph_path=str(edges),
        output_training_data_path=str(folder / name),
        add_undirected_edges=False,
        max_nbrs=max_neighbors,
        id_feature_name="id",
    )
    examples.unlink()
    edges.unlink()
    progress(len(split), len(split))
    return [name]


@contextlib.contextmanager
def record_writer(path: pathlib.Path) -> Iterator[Any]:
    """A TFRecordWriter that raises OSError like any other file."""
    from tfgraphreg.compat import tf

    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            yield writer
    except tf.errors.OpError as error:
        number = _OS_ERRORS.get(error.error_code)
        if number is None:
            raise
        raise OSError(number, os.strerror(number)) from error


# TensorFlow's codes of a full disk, no permission, a folder in the way.
_OS_ERRORS = {8: errno.ENOSPC, 7: errno.EACCES, 9: errno.EISDIR}


def _write_stream(
    split: Split, graph: Any, max_neighbors: int, folder: pathlib.Path, progress: Progress
) -> list[str]:
    """Writes shards of bounded size, one record at a time; returns the names of the files."""
    from tfgraphreg.neighbors.sampling import top_neighbors  # Numba takes a while to import.

    neighbors, weights = top_neighbors(graph, max_neighbors, split.ids)
    serialized = _reported(records.packed_records(split, neighbors, weights), len(split), progress)
    parts: list[pathlib.Path] = []
    record = next(serialized, None)
    while record is not None:
        parts.append(folder / f"packed-{len(parts):05d}")
        written = 0
        with record_writer(parts[-1]) as writer:
            while record is not None and written < SHARD_BYTES:
                writer.write(record)
                written += len(record)
                record = next(serialized, None)
    names = [f"{part.name}-of-{len(parts):05d}.tfrecord" for part in parts]
    for part, name in zip(parts, names, strict=True):
        os.rename(part, folder / name)
    return names


def _reported(serialized: Iterable[bytes], total: int, progress: Progress) -> Iterator[bytes]:
    for done, record in enumerate(serialized):
        if done % _REPORT_EVERY == 0:
            progress(done, total)
        yield record
    progress(total, total)


_WRITERS = {"nsl": _write_nsl, "stream": _write_stream}
