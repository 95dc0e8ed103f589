"""What each way to use neighbors learns at the same alpha, over several seeds."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg.benchmark.material import BACKBONE
from tfgraphreg.benchmark.results import Found, Table
from tfgraphreg.benchmark.timing import Figure
from tfgraphreg.config import TrainConfig

_CONTENDERS: dict[str, dict[str, Any]] = {
    "paired": {"neighbors": "paired"},
    "packed, k=1": {"neighbors": "packed", "packer": "stream"},
    "gathered, k=1": {"neighbors": "gathered"},
    "plain": {"alpha": 0.0},
}
_MEASURES = ("test_accuracy", "mean_average_precision", "mean_edge_distance")


def measure(
    *, quick: bool, progress: Callable[[str, int, int], None], runs: str = "runs/benchmark"
) -> Found:
    """Trains every contender with every seed, by the command's own recipe.

    Runs that are finished are not made again, so an interrupted measurement goes on.
    """
    seeds = range(2 if quick else 5)
    limit, epochs = (6_000, 1) if quick else (None, 5)
    values: dict[str, dict[str, list[float]]] = {}
    jobs = [(name, seed) for name in _CONTENDERS for seed in seeds]
    for done, (name, seed) in enumerate(jobs):
        progress(f"{name}, seed {seed}", done, len(jobs))
        folder = pathlib.Path(runs) / f"{name.replace(', ', '-')}-{limit or 'all'}-{seed}"
        config = TrainConfig(
            backbone=BACKBONE,
            seed=seed,
            limit=limit,
            epochs=epochs,
            resume=True,
            run_dir=str(folder),
            export_dir=str(folder / "export"),
            **_CONTENDERS[name],
        )
        for measured, value in _one_run(config).items():
            values.setdefault(name, {}).setdefault(measured, []).append(value)
    return _report(values, len(seeds), epochs, limit)


def _one_run(config: TrainConfig) -> dict[str, float]:
    from tfgraphreg.recipes.train import train
    from tfgraphreg.runs.folder import RunFolder

    metrics = train(config).metrics
    run = RunFolder(pathlib.Path(str(config.run_dir)), config)
    found = {name: metrics[name] for name in _MEASURES if name in metrics}
    found["mean_edge_distance"] = _edge_distance(run)
    return found


def _edge_distance(run: Any) -> float:
    """Mean cosine distance of the embedding over all edges of the default graph."""
    from tfgraphreg.benchmark.material import default_graphs, fashion_mnist
    from tfgraphreg.distances import DISTANCES
    from tfgraphreg.export import Predictor

    dataset = fashion_mnist(run.config.limit)
    graph = default_graphs(dataset, (10,), lambda *_: None)[10]
    embedding = Predictor(run.export_path)(dataset.train.images)["embedding"]
    sources = graph.sources()
    distance = DISTANCES.get("cosine")
    return float(np.mean(distance.array(embedding[sources], embedding[graph.indices])))


def _report(values: Any, seeds: int, epochs: int, limit: int | None) -> Found:
    found = Found(
        f"The network `{BACKBONE}`, {limit or 60_000:,} training images of Fashion-MNIST, "
        f"{epochs} epochs, alpha 0.1, cosine distance, seeds 0 to {seeds - 1}; retrieval of the "
        "test images among the training images."
    )
    table = Table(
        "What is learned",
        ["contender", *(m.replace("_", " ") for m in _MEASURES)],
        notes=[
            f"Mean over {seeds} seeds and standard deviation. The edge distance is the mean "
            "cosine distance of the embedding over all edges of the graph of 10 neighbors, "
            "after training."
        ],
    )
    for name, measured in values.items():
        cells = [
            f"{np.mean(measured[m]):.4f} ± {np.std(measured[m], ddof=1):.4f}" for m in _MEASURES
        ]
        table.rows.append([name, *cells])
    found.tables.append(table)
    paired, packed = values["paired"], values["packed, k=1"]
    for name in _MEASURES:
        better = "lower" if name == "mean_edge_distance" else "higher"
        each = Figure.of(a / b for a, b in zip(paired[name], packed[name]))
        found.ratio(
            f"quality.{name} paired / packed",
            each,
            better=better,
            goal=1.0 if better == "lower" else None,
        )
    return found
