"""Packing against `nsl.tools.pack_nbrs` and against writing the same bytes once."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg.benchmark.material import (
    fashion_mnist,
    more_images,
    random_neighbors,
    split_of,
)
from tfgraphreg.benchmark.results import Found, Table, seconds_text, times_text
from tfgraphreg.benchmark.timing import Figure, Turn, in_process, ratio, take_turns

_K = 3
_MEMORY = 1.5  # GiB that packing a million images may use.


def measure(*, quick: bool, progress: Callable[[str, int, int], None]) -> Found:
    """60,000 images with 3 neighbors beside NSL's packer; then up to a million."""
    size = 6_000 if quick else 60_000
    dataset = fashion_mnist(size)
    found = Found(f"{size:,} images of Fashion-MNIST (28x28), {_K} neighbors each.")
    _against_nsl(found, dataset.train, 3 if quick else 5, progress)
    _growth(found, (6_000, 20_000) if quick else (10_000, 100_000, 1_000_000), quick, progress)
    return found


def _against_nsl(found: Found, split: Any, rounds: int, progress: Any) -> None:
    from tfgraphreg.compat import nsl
    from tfgraphreg.graph.tsv import write_tsv
    from tfgraphreg.neighbors.packing import pack_neighbors, record_writer
    from tfgraphreg.neighbors.records import example_records

    graph = random_neighbors(len(split), _K)
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        examples, edges, out = (str(folder / n) for n in ("examples", "graph.tsv", "nsl"))
        with record_writer(pathlib.Path(examples)) as writer:
            for record in example_records(split):
                writer.write(record)
        write_tsv(graph, list(split.ids), edges)
        sizes: dict[str, int] = {}

        def ours() -> None:
            shutil.rmtree(folder / "packed", ignore_errors=True)
            packed = pack_neighbors(
                split, graph, max_neighbors=_K, folder=folder / "packed", key={}, packer="stream"
            )
            sizes["ours"] = packed.size

        def theirs() -> None:
            nsl.tools.pack_nbrs(
                examples,
                "",
                edges,
                out,
                add_undirected_edges=False,
                max_nbrs=_K,
                id_feature_name="id",
            )
            sizes["nsl"] = os.path.getsize(out)

        ours()
        content = os.urandom(1 << 20)

        def write() -> None:
            with open(folder / "bytes", "wb") as file:
                for _ in range(sizes["ours"] >> 20):
                    file.write(content)

        turns = {"ours": Turn(ours), "nsl": Turn(theirs), "limit": Turn(write)}
        seconds = take_turns(turns, rounds, progress)
    names = {
        "ours": "this project, --packer stream",
        "nsl": "nsl.tools.pack_nbrs",
        "limit": "limit: the same bytes written once",
    }
    table = Table(
        f"Packing of {len(split):,}, k={_K}",
        ["contender", "seconds", "megabytes", "NSL takes times as long"],
        notes=[
            "This project's time includes the checksums of what it wrote and the fingerprint of "
            "graph and labels, by which the result is found again; NSL's begins with examples and "
            "graph written already.",
        ],
    )
    for name, text in names.items():
        times = Figure.of(seconds["nsl"][r] / seconds[name][r] for r in seconds[name])
        table.rows.append(
            [
                text,
                seconds_text(Figure.of(seconds[name].values())),
                f"{sizes.get(name, sizes['ours']) / 1e6:.0f}",
                times_text(times),
            ]
        )
    found.tables.append(table)
    found.ratio("packing.nsl / ours", ratio(seconds, "nsl", "ours"), better="higher", goal=5.0)


def _growth(found: Found, sizes: tuple[int, ...], quick: bool, progress: Any) -> None:
    most = 6_000 if quick else 100_000  # NSL keeps all examples in memory.
    table = Table(
        f"How packing grows with N (28x28, k={_K})",
        ["images", "seconds", "largest memory", "NSL: seconds", "NSL: largest memory"],
        notes=[
            "Each in a process of its own. Images are read from a memory-mapped file, whose pages "
            f"count as memory while they are mapped. NSL is measured up to {most:,} images.",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        images = fashion_mnist().train.images
        for size in sizes:
            progress(f"packing {size:,}", sizes.index(size), len(sizes))
            path = str(pathlib.Path(folder) / "images.npy")
            np.save(path, more_images(images, size))
            cells = [f"{size:,}"]
            for packer in ("stream", "nsl") if size <= most else ("stream",):
                answer, _, memory = in_process("packing:one_packing", path=path, packer=packer)
                gib = memory / 2**30
                cells += [seconds_text(Figure.of([answer])), f"{gib:.2f} GiB"]
                if packer == "stream":
                    found.ratio(
                        f"packing.memory {size:,} / bound",
                        Figure.of([gib / _MEMORY]),
                        better="lower",
                        goal=1.0,
                    )
            table.rows.append(cells + [""] * (5 - len(cells)))
    found.tables.append(table)


def one_packing(path: str, packer: str) -> float:
    """Seconds of packing the images in a file with random neighbors."""
    from tfgraphreg.compat import load_nsl
    from tfgraphreg.neighbors.packing import pack_neighbors

    load_nsl()
    split = split_of(np.load(path, mmap_mode="r"))
    graph = random_neighbors(len(split), _K)
    with tempfile.TemporaryDirectory(dir=pathlib.Path(path).parent) as folder:
        start = time.perf_counter()
        pack_neighbors(split, graph, max_neighbors=_K, folder=folder, key={}, packer=packer)
        return time.perf_counter() - start
