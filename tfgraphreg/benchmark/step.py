"""What XLA, mixed precision, one fused pass and caching bring to a training step."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from typing import Any

from tfgraphreg.benchmark.material import BACKBONE, default_graphs, fashion_mnist
from tfgraphreg.benchmark.results import Found, Table, times_text
from tfgraphreg.benchmark.timing import Figure, Turn, ratio, take_turns
from tfgraphreg.config import TrainConfig

_BASE = "packed, k=1: float32, one fused pass"


def measure(*, quick: bool, progress: Callable[[str, int, int], None]) -> Found:
    """Variants of one step in turns, then records in memory against records on disk."""
    images, steps, rounds = (6_000, 6, 3) if quick else (20_000, 25, 10)
    dataset = fashion_mnist(images)
    graph = default_graphs(dataset, (10,), progress)[10]
    found = Found(
        f"The network `{BACKBONE}` on {images:,} images of Fashion-MNIST, batches of 128 with "
        "one neighbor each."
    )
    _variants(found, dataset, graph, quick, steps, rounds, progress)
    _caching(found, dataset, graph, rounds, progress)
    return found


def _variants(
    found: Found, dataset: Any, graph: Any, quick: bool, steps: int, rounds: int, progress: Any
) -> None:
    from tfgraphreg.benchmark import trainers as t

    def config(**settings: Any) -> TrainConfig:
        return TrainConfig(
            backbone=BACKBONE, epochs=t.EPOCHS, batch_size=128, packer="stream", **settings
        )

    made = {
        _BASE: t.ours(config(), dataset, graph),
        "two passes, as NSL's wrapper does": t.nsl_wrapper(config(), dataset, graph),
        "--jit-compile (XLA)": t.ours(config(jit_compile=True), dataset, graph),
    }
    for precision in () if quick else ("mixed_bfloat16", "mixed_float16"):
        half = config(precision=precision)
        made[f"--precision {precision}"] = t.ours(half, dataset, graph)
    for trainer in made.values():
        trainer.run(2)
    turns = {name: Turn(functools.partial(trainer.run, steps)) for name, trainer in made.items()}
    seconds = take_turns(turns, rounds, progress)
    table = Table(
        "Variants of the training step",
        ["variant", "milliseconds a step", "times the first row"],
        notes=[
            "On a CPU neither XLA nor a 16-bit format is switched on by default; on a GPU they "
            "may pay, so both are flags."
        ],
    )
    for name in made:
        figure = Figure.of(1000 * s / steps for s in seconds[name].values())
        table.rows.append([name, times_text(figure), times_text(ratio(seconds, name, _BASE))])
    found.tables.append(table)
    fused = ratio(seconds, _BASE, "two passes, as NSL's wrapper does")
    found.ratio("step.fused / two passes", fused, better="lower")


def _caching(found: Found, dataset: Any, graph: Any, rounds: int, progress: Any) -> None:
    from tfgraphreg.benchmark import trainers as t
    from tfgraphreg.neighbors.packed import packed_batches
    from tfgraphreg.neighbors.packing import pack_neighbors

    steps = len(dataset.train) // 128
    with tempfile.TemporaryDirectory() as folder:
        packed = pack_neighbors(
            dataset.train, graph, max_neighbors=1, folder=folder, key={}, packer="stream"
        )
        window = {"batch_size": 128, "seed": 0, "epochs": t.EPOCHS}
        half = packed.size // 2
        sources = {
            "parsed once, kept in memory (up to 1 GiB)": packed_batches(packed, **window),
            "read and parsed in each epoch": packed_batches(packed, memory_bytes=half, **window),
        }
        turns = {n: Turn(t.batches_alone(batches, steps)) for n, batches in sources.items()}
        for turn in turns.values():
            turn.work()
        seconds = take_turns(turns, min(rounds, 5), progress)
    memory, disk = sources
    table = Table(
        "Packed records by themselves",
        ["records", "images a second", "times as long as in memory"],
    )
    for name in sources:
        speed = Figure.of(steps * 128 / s for s in seconds[name].values())
        table.rows.append([name, f"{speed.median:,.0f}", times_text(ratio(seconds, name, memory))])
    found.tables.append(table)
    found.ratio("step.memory / disk", ratio(seconds, memory, disk), better="lower")
