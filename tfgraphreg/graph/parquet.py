"""Graphs as Parquet files with the columns source, target and weight, one file or a folder of them.

Spark, DuckDB, Dask, pandas and polars write and read such folders.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tfgraphreg.errors import GraphError, did_you_mean, first_line
from tfgraphreg.graph.convert import Ids, names_of, numbers_of
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.progress import Progress, silent
from tfgraphreg.reading import known_as
from tfgraphreg.storage import atomic_folder, atomic_path

if TYPE_CHECKING:
    import pyarrow

SUFFIX = ".parquet"
_ENDS = ("source", "target")
# By name: older versions of pyarrow do not know all of them.
_TEXT = ("string", "large_string", "string_view")
_PART_EDGES = 1_000_000
_BATCH = 1 << 17
_OUTSIDE = -1
_LARGEST = float(np.finfo(np.float32).max)


def parquet_files(path: os.PathLike[str] | str) -> list[pathlib.Path]:
    """The files of a graph: the file itself, or those of a folder, sorted by name.

    Raises:
        GraphError: If there is none.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        # Other programs also leave _SUCCESS and hidden files there.
        found = sorted(p for p in path.glob(f"*{SUFFIX}") if not p.name.startswith((".", "_")))
        if found:
            return found
        raise GraphError("The folder holds no Parquet file.", received=str(path))
    if not path.is_file():
        raise GraphError("There is no such Parquet file or folder.", received=str(path))
    return [path]


def read_parquet(
    path: os.PathLike[str] | str,
    ids: Ids,
    *,
    others: Collection[str] = (),
    progress: Progress = silent,
) -> SimilarityGraph:
    """Reads a graph over the items named by `ids`.

    Edges are those that `read_tsv` makes of the same lines: of an edge given twice the larger
    weight is kept; self loops and edges to `others` are dropped and counted. Without a column
    weight all edges weigh 1. Files are read part by part, other columns not at all.

    Args:
        path: A file, or a folder of files.
        ids: `[N]` unique strings; node i is ``ids[i]``.
        others: Ids of items that exist but are no nodes, such as test images.
        progress: Called with ``"reading edges"``, edges read, and edges in all.

    Returns:
        The graph; its `about` counts `lines`, `self_loops_dropped` and `outside_dropped`.

    Raises:
        GraphError: If a file is missing, damaged or of another form, an id is unknown, a weight is
            negative or not finite, or there is no edge.
    """
    number = {**dict.fromkeys(map(str, others), _OUTSIDE), **numbers_of([str(n) for n in ids])}
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    lines = loops = outside = 0
    for file, ends, given in _batches(parquet_files(path), progress):
        lines += len(given)
        source, target = (_numbers(file, names, number) for names in ends)
        inside = (source != _OUTSIDE) & (target != _OUTSIDE)
        loop = inside & (source == target)
        outside += int((~inside).sum())
        loops += int(loop.sum())
        kept = inside & ~loop
        parts.append((source[kept], target[kept], _weights(file, given)[kept]))
    none = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    sources, targets, weights = (np.concatenate(columns) for columns in zip(none, *parts))
    if not len(sources):
        raise GraphError(
            f"{path} holds no edge between two of the {len(ids)} nodes.",
            received=f"{lines} rows; {loops} self loops and {outside} edges to images that are no "
            "nodes were dropped",
        )
    about = {
        "kind": "parquet",
        "file": pathlib.Path(path).name,
        "lines": lines,
        "self_loops_dropped": loops,
        "outside_dropped": outside,
    }
    return SimilarityGraph.from_edges(sources, targets, weights, len(ids), about=about)


def _batches(
    files: list[pathlib.Path], progress: Progress
) -> Iterator[tuple[pathlib.Path, tuple[Any, Any], np.ndarray]]:
    """File, the two columns of ids, and weights, some rows at a time."""
    import pyarrow
    from pyarrow import parquet

    done = 0
    path = files[0]
    try:
        opened = [(path := file, parquet.ParquetFile(file)) for file in files]
        total = sum(file.metadata.num_rows for _, file in opened)
        for path, file in opened:
            columns = file.schema_arrow.names
            _check_columns(path, file.schema_arrow)
            wanted = [name for name in (*_ENDS, "weight") if name in columns]
            for batch in file.iter_batches(_BATCH, columns=wanted):
                ones = np.ones(len(batch), np.float32)
                given = batch["weight"] if "weight" in wanted else pyarrow.array(ones)
                yield path, (batch["source"], batch["target"]), _as_numbers(given)
                done += len(batch)
                progress("reading edges", done, total)
    except (pyarrow.ArrowException, OSError) as error:
        raise GraphError(
            f"{path} is no Parquet file that can be read.", received=first_line(error)
        ) from error


def _check_columns(path: pathlib.Path, schema: pyarrow.Schema) -> None:
    from pyarrow import types

    for name in _ENDS:
        if schema.names.count(name) != 1:
            raise GraphError(
                f"{path} must have one column {name}.",
                received=f"columns {', '.join(schema.names)[:200]}",
                cure=did_you_mean(name, schema.names)
                or "The columns of a graph are source, target and, if edges differ, weight.",
            )
        kind = schema.field(name).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if str(kind) not in _TEXT:
            raise GraphError(
                f"The column {name} of {path} must hold ids as text.", received=str(kind)
            )
    if schema.names.count("weight") > 1:
        raise GraphError(f"{path} must have at most one column weight.")
    if "weight" in schema.names:
        kind = schema.field("weight").type
        if not (types.is_integer(kind) or types.is_floating(kind)):
            raise GraphError(f"The column weight of {path} must hold numbers.", received=str(kind))


def _as_numbers(column: pyarrow.Array) -> np.ndarray:
    """`[n]` float64; NaN where a value is missing."""
    import pyarrow

    return column.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)


def _weights(path: pathlib.Path, values: np.ndarray) -> np.ndarray:
    wrong = ~((values >= 0) & (values <= _LARGEST))
    if wrong.any():
        raise GraphError(
            f"A weight in {path} is missing, negative or not finite.",
            received=f"{values[np.argmax(wrong)]}",
        )
    return values.astype(np.float32)


def _numbers(path: pathlib.Path, names: pyarrow.Array, number: dict[str, int]) -> np.ndarray:
    """`[n]` int64 node numbers of ids. Each id of a batch is looked up once."""
    import pyarrow

    if isinstance(names, pyarrow.DictionaryArray):
        names = names.dictionary_decode()
    if names.null_count:
        raise GraphError(f"An edge in {path} has no source or no target.")
    encoded = names.dictionary_encode()
    found = []
    for name in encoded.dictionary.to_pylist():
        place = number.get(known_as(name, number))
        if place is None:
            raise GraphError(
                f"{path} has an edge to what is no image of this dataset.",
                received=repr(name[:120]),
                cure=did_you_mean(name[:120], number),
            )
        found.append(place)
    return np.array(found, np.int64)[encoded.indices.to_numpy(zero_copy_only=False)]


def write_parquet(graph: SimilarityGraph, ids: Ids, path: os.PathLike[str] | str) -> None:
    """Writes the edges as one Parquet file, by node and in stored order.

    Raises:
        GraphError: If there is not one id for every node.
        DataError: If the file cannot be written.
    """
    with atomic_path(path) as part:
        _write(graph, _called(graph, ids), 0, graph.num_edges, part)


def write_parquet_folder(
    graph: SimilarityGraph,
    ids: Ids,
    folder: os.PathLike[str] | str,
    *,
    part_edges: int = _PART_EDGES,
    progress: Progress = silent,
) -> None:
    """Writes the edges as Parquet files in a folder, which appears whole or not at all.

    Args:
        graph: N nodes.
        ids: `[N]` strings.
        folder: Replaced if it exists.
        part_edges: Edges of one file, at most.
        progress: Called after every file.

    Raises:
        GraphError: If there is not one id for every node.
        DataError: If the folder cannot be written.
    """
    called = _called(graph, ids)
    starts = range(0, max(graph.num_edges, 1), part_edges)
    with atomic_folder(folder) as part:
        for place, start in enumerate(starts):
            path = part / f"part-{place:05d}-of-{len(starts):05d}{SUFFIX}"
            _write(graph, called, start, min(start + part_edges, graph.num_edges), path)
            progress("writing edges", place + 1, len(starts))


def _called(graph: SimilarityGraph, ids: Ids) -> pyarrow.Array:
    """`[N]` what each node is called."""
    import pyarrow

    return pyarrow.array(names_of(ids, graph.num_nodes).tolist(), pyarrow.string())


def _write(
    graph: SimilarityGraph, called: pyarrow.Array, first: int, last: int, path: pathlib.Path
) -> None:
    """Writes the edges from `first` up to `last`."""
    import pyarrow
    from pyarrow import parquet

    sources = np.searchsorted(graph.indptr, np.arange(first, last), side="right") - 1
    ends = (pyarrow.array(rows) for rows in (sources, graph.indices[first:last]))
    columns = {name: called.take(rows) for name, rows in zip(_ENDS, ends)}
    table = pyarrow.table({**columns, "weight": graph.weights[first:last]})
    parquet.write_table(table, path, compression="zstd")
