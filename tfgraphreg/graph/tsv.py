"""Graphs as the TSV files of Neural Structured Learning.

A line is ``source<TAB>target<TAB>weight``; without a weight the edge weighs 1.0.
"""

from __future__ import annotations

import array
import codecs
import math
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import NoReturn

import numpy as np

from tfgraphreg.errors import ConfigError, GraphError, did_you_mean
from tfgraphreg.graph.convert import Ids, numbers_of
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.progress import Progress
from tfgraphreg.reading import known_as
from tfgraphreg.storage import check_note, noted_path

_LINES = 1 << 17
_LONGEST = 1 << 16  # bytes of a line
_OUTSIDE = -1
_LARGEST = float(np.finfo(np.float32).max)


def read_tsv(
    path: os.PathLike[str] | str,
    ids: Ids,
    *,
    others: Collection[str] = (),
    on_unknown: str = "error",
    progress: Progress | None = None,
) -> SimilarityGraph:
    """Reads a graph over the items named by `ids`.

    Of an edge listed twice the larger weight is kept, as NSL does; self loops and edges to `others`
    are dropped and counted, and blank lines are skipped. The file is read line by
    line. A file of `write_tsv` that was changed since is refused.

    Args:
        path: A UTF-8 file of tab-separated lines, with or without a byte order mark.
        ids: `[N]` unique strings; node i is ``ids[i]``.
        others: Ids of items that exist but are no nodes, such as test images.
        on_unknown: What to do with an edge to an id that is in neither: ``"error"`` or
            ``"skip"``, which counts it.
        progress: Called with ``"reading edges"``, bytes read, and bytes in all.

    Returns:
        The graph; its `about` counts `lines`, `self_loops_dropped`, `outside_dropped` (edges to
        `others`) and `unknown_dropped`.

    Raises:
        GraphError: If the file is missing, holds no edges, or has a malformed line; the message
            names the file, the line number and the text.
    """
    if on_unknown not in ("error", "skip"):
        raise ConfigError("`on_unknown` must be error or skip.", received=repr(on_unknown))
    path = pathlib.Path(path)
    number = numbers_of([str(name) for name in ids])
    outside = dict.fromkeys(map(str, others), _OUTSIDE)
    number = {**outside, **number}
    sources, targets, weights = array.array("q"), array.array("q"), array.array("f")
    loops = unknown = dropped = count = 0
    try:
        check_note(path)
    except ValueError as error:
        raise GraphError(f"{path} cannot be used: {error}.") from error
    except OSError as error:
        raise GraphError(f"{path} cannot be read ({error.strerror}).") from error
    try:
        size = path.stat().st_size
        with path.open("rb") as lines:
            for count, raw in enumerate(iter(lambda: lines.readline(_LONGEST), b""), start=1):
                if progress and count % _LINES == 0:
                    progress("reading edges", lines.tell(), size)
                if count == 1:
                    # Spreadsheets put it before the first id.
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                if not raw.strip(b"\r\n"):
                    continue
                if len(raw) == _LONGEST:
                    _refuse(path, count, raw, "the line is too long")
                source, target, weight = _edge(path, count, raw)
                i, j = (number.get(known_as(name, number)) for name in (source, target))
                if i is None or j is None:
                    if on_unknown == "error":
                        _unknown(path, count, raw, source if i is None else target, number)
                    unknown += 1
                elif i == _OUTSIDE or j == _OUTSIDE:
                    dropped += 1
                elif i == j:
                    loops += 1
                else:
                    sources.append(i)
                    targets.append(j)
                    weights.append(weight)
    except OSError as error:
        raise GraphError(f"{path} cannot be read ({error.strerror}).") from error
    if not sources:
        why = f"; {loops} self loops, {dropped} edges to images that are no nodes and {unknown} to "
        raise GraphError(
            f"{path} holds no edge between two of the {len(ids)} nodes.",
            received=f"{count} lines" + (f"{why}unknown ids were dropped" if count else ""),
        )
    about = {
        "kind": "tsv",
        "file": path.name,
        "lines": count,
        "self_loops_dropped": loops,
        "outside_dropped": dropped,
        "unknown_dropped": unknown,
    }
    return SimilarityGraph.from_edges(
        np.frombuffer(sources, np.int64),
        np.frombuffer(targets, np.int64),
        np.frombuffer(weights, np.float32),
        len(ids),
        about=about,
    )


def _edge(path: pathlib.Path, line: int, raw: bytes) -> tuple[str, str, float]:
    try:
        parts = raw.rstrip(b"\r\n").decode("utf-8").split("\t")
    except UnicodeDecodeError:
        _refuse(path, line, raw, "the text is not UTF-8")
    if len(parts) not in (2, 3):
        _refuse(path, line, raw, f"{len(parts)} tab-separated columns instead of 2 or 3")
    if len(parts) == 2:
        return parts[0], parts[1], 1.0
    try:
        weight = float(parts[2])
        # Python also reads 1_000 and the digits of other scripts; other programs do not.
        if "_" in parts[2] or not parts[2].isascii():
            raise ValueError
    except ValueError:
        _refuse(path, line, raw, "the weight is no number")
    if not math.isfinite(weight) or weight > _LARGEST:
        _refuse(path, line, raw, "the weight is not finite")
    if weight < 0:
        _refuse(path, line, raw, "the weight is negative")
    return parts[0], parts[1], weight


def _unknown(
    path: pathlib.Path, line: int, raw: bytes, name: str, known: Mapping[str, int]
) -> NoReturn:
    _refuse(path, line, raw, f"{_short(name)} is no id", did_you_mean(name, known))


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:120] + "...")


def _refuse(
    path: pathlib.Path, line: int, raw: bytes, why: str, cure: str | None = None
) -> NoReturn:
    raise GraphError(
        f"{path}, line {line}: {why}.",
        received=_short(raw.rstrip(b"\r\n")[:1000].decode("utf-8", "replace")),
        cure=cure or "A line is source<TAB>target or source<TAB>target<TAB>weight.",
    )


def write_tsv(graph: SimilarityGraph, ids: Ids, path: os.PathLike[str] | str) -> None:
    """Writes every edge as a line, by node and then by decreasing weight.

    Weights have nine digits, which bring back the same float32. `nsl.tools.pack_nbrs` reads it. A
    hidden file beside it notes its digest, by which `read_tsv` refuses a damaged file.

    Raises:
        GraphError: If there is not one id for every node, or an id holds a tab or line break.
    """
    names = _names(graph, ids)
    sources = graph.sources()
    order = np.lexsort((graph.indices, -graph.weights, sources))
    with noted_path(path) as part, part.open("w", encoding="utf-8", newline="\n") as out:
        for start in range(0, len(order), _LINES):
            edges = order[start : start + _LINES]
            columns = zip(
                map(names.__getitem__, sources[edges].tolist()),
                map(names.__getitem__, graph.indices[edges].tolist()),
                graph.weights[edges].tolist(),
            )
            out.writelines(map("%s\t%s\t%.9g\n".__mod__, columns))


def _names(graph: SimilarityGraph, ids: Ids) -> list[str]:
    names = [str(name) for name in ids]
    if len(names) != graph.num_nodes:
        raise GraphError(
            "There must be one id for every node.",
            received=f"{len(names)} ids, {graph.num_nodes} nodes",
        )
    for name in names:
        if not name or any(c in name for c in "\t\n\r"):
            raise GraphError(
                "An id in a TSV must not be empty nor hold a tab or line break.",
                received=repr(name),
            )
    return names
