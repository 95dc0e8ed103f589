"""Graphs as NumPy's npz files, much faster to read than a TSV."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from tfgraphreg.errors import GraphError, did_you_mean, first_line
from tfgraphreg.graph.convert import Ids, numbers_of
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.reading import known_as, parse_json
from tfgraphreg.storage import UNREADABLE_NPZ, atomic_path, fingerprint, read_arrays

_ARRAYS = ("indptr", "indices", "weights", "ids", "about")


def write_npz(
    graph: SimilarityGraph, ids: Ids, path: os.PathLike[str] | str, *, key: str = ""
) -> None:
    """Writes the arrays of `graph`, its ids, its `about` and a digest of all of them.

    Args:
        graph: N nodes.
        ids: `[N]` strings.
        path: The file.
        key: The cache key of the file; part of the digest.

    Raises:
        GraphError: If there is not one id for every node.
    """
    if len(ids) != graph.num_nodes:
        raise GraphError(
            "There must be one id for every node.",
            received=f"{len(ids)} ids, {graph.num_nodes} nodes",
        )
    arrays: dict[str, Any] = {
        "indptr": graph.indptr,
        "indices": graph.indices,
        "weights": graph.weights,
        "ids": np.asarray(ids, dtype=str),
        "about": np.asarray(json.dumps(dict(graph.about), default=str)),
    }
    with atomic_path(path) as part, part.open("wb") as out:
        np.savez(out, **arrays, digest=np.asarray(_digest(arrays, key)))


def read_npz(
    path: os.PathLike[str] | str,
    ids: Ids | None = None,
    *,
    others: Collection[str] | None = None,
    key: str | None = None,
) -> tuple[SimilarityGraph, np.ndarray]:
    """Reads what `write_npz` wrote: the graph and its `[N]` ids.

    Args:
        path: The file.
        ids: The ids that the file must have, in this order, where given.
        others: If given, the file may have other ids in another order: the nodes are those of
            `ids`, edges to ids in `others` are dropped and counted in `about`, and unknown ids are
            an error.
        key: The `key` that the file must have been written with, where given.

    Raises:
        GraphError: If the file is missing, damaged, or of other items.
    """
    try:
        found = read_arrays(path)
        arrays = {name: found[name] for name in _ARRAYS}
        # Earlier files, and those of other programs, have no digest.
        digest = str(found["digest"]) if "digest" in found else None
        if digest != _digest(arrays, key or "") and (digest or key is not None):
            raise ValueError("it was changed after it was written")
        indptr, indices, weights, names = (arrays[name] for name in _ARRAYS[:4])
        about = parse_json(str(arrays["about"]))
        _check_kinds(indptr, indices, weights, names, about)
    except UNREADABLE_NPZ as error:
        raise GraphError(
            f"{path} is no graph file that can be read ({first_line(error)}).",
            cure="Build the graph again.",
        ) from error
    graph = SimilarityGraph(indptr, indices, weights, len(names), about)
    if ids is None or np.array_equal(names, np.asarray(ids, dtype=str)):
        return graph, names
    if others is None:
        raise GraphError(
            f"{path} is a graph of other items.",
            received=f"{len(names)} ids in the file, {len(ids)} expected",
            cure="Build the graph again.",
        )
    return _between(graph, names.tolist(), ids, others, path), np.asarray(ids, dtype=str)


def _between(
    graph: SimilarityGraph,
    names: list[str],
    ids: Ids,
    others: Collection[str],
    path: os.PathLike[str] | str,
) -> SimilarityGraph:
    """The edges of `graph`, whose nodes are called `names`, between two of `ids`."""
    number = {**dict.fromkeys(map(str, others), -1), **numbers_of([str(name) for name in ids])}
    moved = np.array([number.get(known_as(name, number), -2) for name in names], np.int64)
    if (moved == -2).any():
        name = names[int(np.argmax(moved == -2))]
        raise GraphError(
            f"{path} has a node that is no image of this dataset.",
            received=f"{name[:120]!r}",
            cure=did_you_mean(name, number) or "Build the graph again.",
        )
    sources, targets = moved[graph.sources()], moved[graph.indices]
    kept = (sources >= 0) & (targets >= 0)
    if not kept.any():
        raise GraphError(
            f"{path} holds no edge between two of the {len(ids)} nodes.",
            received=f"{graph.num_edges} edges",
        )
    about = {**graph.about, "outside_dropped": int((~kept).sum())}
    return SimilarityGraph.from_edges(
        sources[kept], targets[kept], graph.weights[kept], len(ids), about=about
    )


def _digest(arrays: Mapping[str, np.ndarray], key: str) -> str:
    return fingerprint([key, {name: arrays[name] for name in _ARRAYS}])


def _check_kinds(
    indptr: np.ndarray, indices: np.ndarray, weights: np.ndarray, names: np.ndarray, about: object
) -> None:
    kinds = (indptr.dtype.kind, indices.dtype.kind, weights.dtype.kind, names.dtype.kind)
    if kinds != ("i", "i", "f", "U") or names.ndim != 1 or not isinstance(about, dict):
        raise ValueError("its arrays are not those of a graph")
