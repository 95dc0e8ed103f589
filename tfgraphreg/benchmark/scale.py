"""The graph by worker processes of Dask, beside the builder in memory; and what more would take."""

from __future__ import annotations

import pathlib
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfgraphreg.benchmark.material import components, fashion_mnist, more_images
from tfgraphreg.benchmark.results import Found, Table, seconds_text
from tfgraphreg.benchmark.timing import Figure, in_process, largest_memory
from tfgraphreg.progress import Progress, silent
from tfgraphreg.shards.engine import Engine
from tfgraphreg.shards.neighbors import QUERIES

_K, _WIDTH = 10, 128
_WORKERS = (1, 2)
_LARGER = (10_000_000, 100_000_000, 1_000_000_000)
_EDGE_BYTES = 20  # while edges are joined where the command runs


def measure(*, quick: bool, progress: Callable[[str, int, int], None]) -> Found:
    """Graphs of 10,000 to a million rows, then the cost of larger ones by what was measured."""
    sizes = (6_000, 20_000) if quick else (10_000, 100_000, 1_000_000)
    found = Found(
        f"The graph of {_K} neighbors of rows of width {_WIDTH}: Fashion-MNIST as principal "
        "components, beyond 60,000 with changed copies of the images. In memory by all cores; by "
        "one and two worker processes of Dask on this machine, of one thread each."
    )
    answers = _answers(sizes, progress)
    found.tables.append(_seconds(answers))
    found.tables.append(_stages(answers))
    if not quick:
        found.tables.append(_larger(answers))
    for size, by in answers.items():
        times = Figure.of([by[_WORKERS[-1]]["seconds"] / by[0]["seconds"]])
        found.ratio(f"scale.two workers / in memory, {size:,}", times, better="lower")
    return found


def _answers(sizes: Sequence[int], progress: Any) -> dict[int, dict[int, dict[str, Any]]]:
    """What was measured by size, and by the number of workers; 0: in memory."""
    answers: dict[int, dict[int, dict[str, Any]]] = {}
    images = fashion_mnist().train.images
    steps = [(size, workers) for size in sizes for workers in (0, *_WORKERS)]
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder) / "features.npy")
        for number, (size, workers) in enumerate(steps):
            how = f"by {workers} worker(s)" if workers else "in memory"
            progress(f"graph of {size:,} {how}", number, len(steps))
            if not workers:
                np.save(path, components(more_images(images, size), _WIDTH))
                answer, _, memory = in_process("graph:one_graph", path=path)
                answer["memory"] = memory
            else:
                answer, _, _ = in_process("scale:one_sharded_graph", path=path, workers=workers)
            answers.setdefault(size, {})[workers] = answer
    return answers


def _seconds(answers: dict[int, dict[int, dict[str, Any]]]) -> Table:
    columns = ["items", "search", "in memory", "recall", "largest memory"]
    for workers in _WORKERS:
        name = f"{workers} worker" + "s" * (workers > 1)
        columns += [name, "recall", "largest memory of a worker"]
    table = Table(
        "How a graph grows with N, in memory and by workers",
        columns,
        notes=[
            "Seconds from features in memory to the graph; those of workers hold the writing of "
            "shards, and not the start of the workers, which took "
            f"{_starting(answers)}. The method is what `auto` chooses.",
        ],
    )
    for size, by in answers.items():
        cells = [f"{size:,}", by[_WORKERS[0]]["method"]]
        for answer in by.values():
            seconds = seconds_text(Figure.of([answer["seconds"]]))
            cells += [seconds, f"{answer['recall']:.4f}", f"{answer['memory'] / 2**30:.2f} GiB"]
        table.rows.append(cells)
    return table


def _starting(answers: dict[int, dict[int, dict[str, Any]]]) -> str:
    times = [by[workers]["starting"] for by in answers.values() for workers in _WORKERS]
    return seconds_text(Figure.of(times))


def _stages(answers: dict[int, dict[int, dict[str, Any]]]) -> Table:
    size, by = max(answers.items())
    table = Table(
        f"Where the seconds go, {size:,} items",
        ["stage", *(f"{w} worker" + "s" * (w > 1) for w in _WORKERS)],
        notes=[
            "index: rows are assigned to lists; sample for the recall: true neighbors of 500 rows, "
            "and how many lists must be read to find them; neighbors: the search. The rest is "
            "done where the command runs: shards, centers of the lists, the joining of edges.",
        ],
    )
    stages = list(by[_WORKERS[0]]["stages"])
    for stage in stages:
        table.rows.append(
            [stage, *(seconds_text(Figure.of([by[w]["stages"][stage]])) for w in _WORKERS)]
        )
    rest = [by[w]["seconds"] - sum(by[w]["stages"].values()) for w in _WORKERS]
    table.rows.append(["the rest", *(seconds_text(Figure.of([seconds])) for seconds in rest)])
    return table


def _larger(answers: dict[int, dict[int, dict[str, Any]]]) -> Table:
    """The cost of sets beyond this machine, from the largest that was measured."""
    size, by = max(answers.items())
    one = by[_WORKERS[0]]
    reach, row = one["lists_read"], 4 * _WIDTH
    table = Table(
        "What larger sets would take: a model, not measured",
        [
            "items",
            "core hours as built",
            "read from disk",
            "core hours, queries sent to lists",
            "sent between workers",
            "memory where the command runs",
        ],
        notes=[
            f"From {one['seconds']:.0f} core seconds for {size:,} items by one worker. As built, "
            "every 8,192 queries read all rows and all lists from disk, so time grows with N * N. "
            f"If each query were sent to the {reach} lists that it reads instead, of the "
            "2 sqrt(N) that there are, time would grow with N * sqrt(N), and each row would be "
            f"sent {reach} times: the change to make from ten million items on. A worker needs "
            f"{one['memory'] / 2**30:.1f} GiB at every size. The last column is {_EDGE_BYTES} "
            f"bytes for each of N * {_K} edges: from 100 million items on they too should stay "
            "in shards.",
        ],
    )
    for larger in _LARGER:
        times = larger / size
        as_built, routed = (one["seconds"] * times**power / 3600 for power in (2.0, 1.5))
        table.rows.append(
            [
                f"{larger:,}",
                f"{as_built:,.0f}",
                _bytes_text(larger / QUERIES * larger * row * 2),
                f"{routed:,.0f}",
                _bytes_text(larger * reach * row),
                _bytes_text(larger * _K * _EDGE_BYTES),
            ]
        )
    return table


def _bytes_text(count: float) -> str:
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    power = min(int(np.log10(max(count, 1)) // 3), len(units) - 1)
    return f"{count / 1000**power:,.3g} {units[power]}"


def one_sharded_graph(path: str, workers: int) -> dict[str, Any]:
    """Builds the graph of the features in a file by workers.

    Returns:
        `seconds` from rows in memory to the graph; `starting`, those until the workers are there;
        `stages`, seconds by name; `memory` of the largest worker in bytes; `lists_read` by a
        query, 0 if all rows are; `method` and `recall`.
    """
    from tfgraphreg.shards.dask_engine import dask_engine
    from tfgraphreg.shards.graph import sharded_knn_graph
    from tfgraphreg.shards.store import RowShards, shard_starts

    features = np.load(path)
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        begun = time.perf_counter()
        with dask_engine(None, workers=workers) as engine:
            watched = _Watched(engine)
            engine.map(_memory, [(n,) for n in range(4 * workers)], "starting", silent)
            starting = time.perf_counter() - begun
            begun = time.perf_counter()
            starts = shard_starts(len(features), features[0].nbytes)
            rows = RowShards(scratch, "rows", starts, features.shape[1:], str(features.dtype))
            for shard in range(rows.count):
                rows.write(shard, features[slice(*rows.bounds(shard))])
            graph = sharded_knn_graph(watched, rows, k=_K, scratch=scratch)
            seconds = time.perf_counter() - begun
            each = engine.map(_memory, [(n,) for n in range(4 * workers)], "memory", silent)
        about = graph.about or {}
    return {
        "seconds": seconds,
        "starting": starting,
        "stages": watched.seconds,
        "memory": max(each),
        "lists_read": watched.lists_read,
        "method": about["method"],
        "recall": about["recall"],
    }


def _memory(number: int) -> int:
    """The largest memory of the worker that is asked; it is busy for a while, so others are too."""
    time.sleep(0.1)
    return largest_memory()


class _Watched:
    """An engine that keeps the seconds of every stage, and how many lists a search must read."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self.seconds: dict[str, float] = {}
        self.lists_read = 0

    def map(
        self,
        function: Callable[..., Any],
        parts: Sequence[tuple[Any, ...]],
        what: str,
        progress: Progress,
    ) -> list[Any]:
        """See `Engine`."""
        begun = time.perf_counter()
        results = self._engine.map(function, parts, what, progress)
        tried = re.fullmatch(r"recall of (\d+) lists", what)
        if tried:
            self.lists_read = int(tried[1])
        name = "sample for the recall" if tried else what
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun
        return results

    def share(self, value: Any) -> Any:
        """See `Engine`."""
        return self._engine.share(value)
