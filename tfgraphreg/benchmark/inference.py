"""A served model that was trained with a graph, against one that was trained without."""

from __future__ import annotations

import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg.benchmark.material import BACKBONE, default_graphs, fashion_mnist
from tfgraphreg.benchmark.results import Found, Table, times_text
from tfgraphreg.benchmark.timing import Figure, Turn, ratio, ratios, take_turns
from tfgraphreg.config import TrainConfig

_PLAIN, _GRAPH = "trained plainly", "trained with a graph"
_BASE = "limit: the network without a SavedModel"


def measure(*, quick: bool, progress: Callable[[str, int, int], None]) -> Found:
    """Latency of `serving_default` with one image and with 128."""
    from tfgraphreg.benchmark import trainers as t
    from tfgraphreg.compat import tf
    from tfgraphreg.export import export

    images = 2_000
    dataset = fashion_mnist(images)
    graph = default_graphs(dataset, (10,), progress)[10]
    found = Found(f"The network `{BACKBONE}` exported as SavedModel, Fashion-MNIST (28x28).")
    calls: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        fixed: dict[str, Any] = {"backbone": BACKBONE, "epochs": t.EPOCHS, "batch_size": 128}
        for name, config in (
            (_PLAIN, TrainConfig(**fixed, alpha=0)),
            (_GRAPH, TrainConfig(**fixed, packer="stream")),
        ):
            trainer = t.ours(config, dataset, graph if config.alpha else None)
            trainer.run(4)
            path = pathlib.Path(folder) / name.replace(" ", "-")
            base = trainer.model.base_model
            export(base, path, class_names=dataset.class_names)
            loaded = tf.saved_model.load(str(path))
            calls[name] = loaded.signatures["serving_default"]
            calls[f"{name} (model)"] = loaded  # A signature does not keep its model alive.
    live = tf.function(lambda image: base(image, training=False), reduce_retracing=True)
    table = Table(
        "Latency of a SavedModel",
        ["images in a call", *(f"{n}, ms" for n in (_BASE, _PLAIN, _GRAPH)), "graph / plain"],
    )
    rounds = 60 if quick else 200
    for rows in (1, 128):
        batch = tf.constant(np.asarray(dataset.test.images[:rows]))
        turns = {
            _BASE: _turn(lambda batch=batch: live(batch)["embedding"]),  # type: ignore[misc]
            **{
                name: _turn(
                    lambda batch=batch, call=calls[name]: call(image=batch)["embedding"]  # type: ignore[misc]
                )
                for name in (_PLAIN, _GRAPH)
            },
        }
        for turn in turns.values():
            turn.work()
        seconds = take_turns(turns, rounds, lambda *_: None)
        both = ratio(seconds, _GRAPH, _PLAIN)
        figures = [Figure.middle_half(1000 * s for s in seconds[n].values()) for n in turns]
        cells = [times_text(figure) for figure in figures]
        quartiles = Figure.middle_half(ratios(seconds, _GRAPH, _PLAIN))
        table.rows.append([str(rows), *cells, times_text(quartiles)])
        found.ratio(f"inference.graph / plain, {rows}", both, better="lower", goal=1.05)
    table.notes.append(f"Median of {rounds} turns of 10 calls, and the range of their middle half.")
    found.tables.append(table)
    return found


def _turn(call: Callable[[], Any]) -> Turn:
    def work() -> float:
        start = time.perf_counter()
        for _ in range(10):
            call().numpy()
        return (time.perf_counter() - start) / 10

    return Turn(work)
