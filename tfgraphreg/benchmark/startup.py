"""From the command to the first training step."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tfgraphreg.benchmark.results import Found, Table, seconds_text, times_text
from tfgraphreg.benchmark.timing import Figure, in_process

_CONTENDERS = {
    "this project, paired": "paired",
    "this project, alpha 0": "plain",
    "limit: TensorFlow and plain Keras": "keras",
}


def measure(*, quick: bool, progress: Callable[[str, int, int], None]) -> Found:
    """Fresh processes in turns, each of which stops after one step."""
    rounds = 1 if quick else 5
    contenders = {n: k for n, k in _CONTENDERS.items() if not (quick and k == "plain")}
    laps: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    in_process("startup:one_start", kind="paired", started=time.time())  # Fills the caches.
    for number in range(rounds):
        for name, kind in contenders.items():
            progress("start", number, rounds)
            found, _, _ = in_process("startup:one_start", kind=kind, started=time.time())
            laps[name].append(found)
    return _report(laps, rounds)


def _report(laps: dict[str, list[dict[str, float]]], rounds: int) -> Found:
    from tfgraphreg.benchmark.material import BACKBONE

    found = Found(
        "Fashion-MNIST, 60,000 images, data and graph prepared by an earlier run, network "
        f"`{BACKBONE}`, batches of 128; each start is a new process."
    )
    table = Table(
        "From the command to the end of the first step",
        ["part", *laps],
        notes=[
            f"Seconds, median of {rounds} starts in turns. Torch, scikit-learn, KerasCV and "
            "the datasets' packages are not imported for this run."
        ],
    )
    parts = list(dict.fromkeys(part for each in laps.values() for lap in each for part in lap))
    for part in parts:
        cells = []
        for each in laps.values():
            values = [lap[part] for lap in each if part in lap]
            cells.append(seconds_text(Figure.of(values)) if values else "")
        table.rows.append([part, *cells])
    totals = {name: [sum(lap.values()) for lap in each] for name, each in laps.items()}
    table.rows.append(["in all", *(seconds_text(Figure.of(v)) for v in totals.values())])
    ours, *_, limit = totals.values()
    times = Figure.of(a / b for a, b in zip(ours, limit))
    table.notes.append(f"Paired takes {times_text(times)} times as long as plain Keras.")
    found.tables.append(table)
    found.ratio("startup.paired / keras", times, better="lower")
    return found


def one_start(kind: str, started: float) -> dict[str, float]:
    """Seconds of each part of a start, beginning with the interpreter itself."""
    laps = {}
    last = started

    def lap(name: str) -> None:
        nonlocal last
        now = time.time()
        laps[name], last = now - last, now

    from tfgraphreg import compat

    lap("Python")
    tf = compat.load_tensorflow()
    lap("import of TensorFlow and Keras")
    _first_step(kind, tf, lap)
    return laps


def _first_step(kind: str, tf: Any, lap: Callable[[str], None]) -> None:
    from tfgraphreg import compat
    from tfgraphreg.benchmark.material import BACKBONE, fashion_mnist

    if kind == "keras":
        images, labels = (getattr(fashion_mnist().train, n) for n in ("images", "labels"))
        lap("data and graph")
        from tfgraphreg.compat import keras

        layers = [keras.layers.Rescaling(1 / 255.0, input_shape=images.shape[1:])]
        for number, width in enumerate((32, 64, 128)):
            layers += [keras.layers.MaxPooling2D(padding="same")] if number else []
            layers += [
                keras.layers.Conv2D(width, 3, padding="same", use_bias=False),
                keras.layers.BatchNormalization(),
                keras.layers.ReLU(),
            ]
        head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(64)]
        model = keras.Sequential([*layers, *head, keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss, metrics=["accuracy"])
        lap("network and optimizer")
        rows = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(60_000).batch(128)
    else:
        from tfgraphreg.config import TrainConfig
        from tfgraphreg.recipes.material import prepare

        compat.load_nsl()
        lap("import of NSL")
        term = {"alpha": 0.0} if kind == "plain" else {"neighbors": "paired"}
        config = TrainConfig(backbone=BACKBONE, batch_size=128, **term)
        material = prepare(config, lambda *_: None)
        lap("data and graph")
        from tfgraphreg.compat import keras
        from tfgraphreg.recipes.batches import batch_source
        from tfgraphreg.recipes.network import build_model

        model = build_model(config, material.dataset)
        model.compile(optimizer=keras.optimizers.Adam(1e-3))
        model.optimizer.build(model.trainable_variables)
        lap("network and optimizer")
        rows = batch_source(config, material.dataset, material.graph)(0)
    batches = iter(rows)
    next(batches)
    lap("first batch")
    model.make_train_function()(batches)
    lap("tracing and the first step")
