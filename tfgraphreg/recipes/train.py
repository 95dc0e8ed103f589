"""The main recipe: from a config to a trained, measured and exported model."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import numpy as np

from tfgraphreg import __version__, storage
from tfgraphreg.backbones.check import check_backbone
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.catalog import find_loader
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.distances import DISTANCES
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.defaults import choose_backbone, fill_in
from tfgraphreg.recipes.graphs import check_graph, file_mark, search_note, training_graph
from tfgraphreg.runs.folder import (
    METRICS,
    RunFolder,
    gone_if_it_fails,
    keep_inputs,
    open_run,
    working_on,
)
from tfgraphreg.runs.outputs import load_data, within_budget
from tfgraphreg.training.history import HISTORY, read_history

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Material:
    """What a run works on: the data as trained on, the true training labels, the graph."""

    dataset: Dataset
    true_labels: np.ndarray
    graph: SimilarityGraph | None
    graph_summary: dict[str, Any] | None


def train(config: TrainConfig, *, progress: Progress = silent) -> dict[str, Any]:
    """Trains, evaluates and exports as the config says. Returns what metrics.json holds.

    Raises:
        TFGraphRegError: If a setting, the data, the graph or the folder is in the way.
    """
    started = time.perf_counter()
    check_names(config)
    run = open_run(config)
    with working_on(run), gone_if_it_fails(run):
        graph_file = file_mark(config)
        keep_inputs(run, graph_file=graph_file)
        done = run.finished()
        if done is not None and (run.export_path / "saved_model.pb").exists():
            logger.info(f"Run {run.path} is finished already.")
            return done
        logger.info(f"Run: {run.path}")
        material = prepare(config, progress)
        from tfgraphreg.recipes.learn import learn

        # Epochs of an interrupted run count, as they do for train_seconds.
        earlier = sum(row["seconds"] for row in read_history(run.path / HISTORY))
        settled = fill_in(config, len(material.dataset.train))
        learned = learn(settled, run, material, progress)
        metrics = _measure_and_export(config, run, material, learned, progress)
        metrics["graph_file"] = graph_file
        metrics["total_seconds"] = time.perf_counter() - started + earlier
        storage.write_json(run.path / METRICS, metrics, noted=True)
    seconds = metrics["total_seconds"]
    logger.info(f"Trained {metrics['train_seconds']:.0f} s, {seconds:.0f} s in all.")
    logger.info(f"Model: {metrics['export']}    Curves: tensorboard --logdir {run.path.parent}")
    return metrics


def prepare(config: TrainConfig, progress: Any) -> Material:
    """Loads the data and, if there is a graph term, the graph."""
    dataset, true_labels = prepare_data(config, progress)
    graph = summary = None
    if config.regularized:
        graph, summary = prepare_graph(config, dataset, true_labels, progress)
    return Material(dataset, true_labels, graph, summary)


def prepare_data(config: TrainConfig, progress: Any) -> tuple[Dataset, np.ndarray]:
    """The data as trained on, and the training labels before any was hidden; logs what it is."""
    dataset = load_data(config, progress)
    true_labels = dataset.train.labels
    dataset = within_budget(config, dataset)
    logger.info(
        f"Data: {dataset.name}, {len(dataset.train)} training images "
        f"({int(dataset.train.labeled.sum())} labeled), {len(dataset.validation)} for validation, "
        f"{len(dataset.test)} for the test; from {dataset.source}"
    )
    for note in dataset.notes:
        logger.info(f"  {note}")
    return dataset, true_labels


def prepare_graph(
    config: TrainConfig, dataset: Dataset, true_labels: np.ndarray, progress: Any
) -> tuple[SimilarityGraph, dict[str, Any]]:
    """The graph over the training images and its summary; logs what it is like."""
    graph = training_graph(config, dataset, progress)
    summary = describe_graph(graph, true_labels)
    agreement = summary["edge_label_agreement"]
    logger.info(
        f"Graph: {summary['nodes']} nodes, {summary['edges']} edges"
        + ("" if agreement is None else f", {agreement:.1%} of them join images of one class")
    )
    for sentence in filter(None, [search_note(graph), *summary.pop("warnings")]):
        logger.info(f"  {sentence}")
    return graph, summary


def describe_graph(graph: SimilarityGraph, labels: np.ndarray) -> dict[str, Any]:
    """Nodes, edges and label agreement, with `warnings` where the graph term would be zero."""
    from tfgraphreg.graph.diagnostics import diagnose

    found = diagnose(graph, labels)
    kept = ("nodes", "edges", "edge_label_agreement", "isolated", "components", "hubness_skew")
    warnings = [found["why_zero"]] if found["why_zero"] else []
    return {**{name: found[name] for name in kept}, "warnings": warnings}


def check_names(config: TrainConfig) -> None:
    """Refuses unknown names before anything is loaded or written."""
    check_backbone(
        choose_backbone(config),
        weights=config.weights,
        image_size=config.image_size,
        freeze=config.freeze,
    )
    DISTANCES.get(config.distance)
    DISTANCES.get(config.graph_metric)
    find_loader(config.dataset)
    if config.regularized:
        check_graph(config)


def _measure_and_export(
    config: TrainConfig, run: RunFolder, material: Material, learned: Any, progress: Progress
) -> dict[str, Any]:
    from tfgraphreg.recipes.evaluate import measure
    from tfgraphreg.recipes.serve import export_and_check

    measured = measure(
        learned.model, material.dataset, material.true_labels, config.distance, progress
    )
    export_and_check(run, learned.model, material.dataset)
    rows = learned.rows
    return {
        **measured,
        "train_seconds": sum(row["seconds"] for row in rows),
        "epoch_seconds": [row["seconds"] for row in rows],
        "replicas": learned.replicas,
        "backbone": learned.backbone,
        "batch_size": learned.batch_size,
        "parameters": learned.parameters,
        "graph": material.graph_summary,
        "source": material.dataset.source,
        "versions": versions(),
        "seed": config.seed,
        "final": {k: v for k, v in rows[-1].items() if k.endswith(("loss", "accuracy"))},
        "export": str(run.export_path),
    }


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"tfgraphreg": __version__, "python": platform.python_version()}
    for name in (
        "tensorflow",
        "tf-keras",
        "keras",
        "neural-structured-learning",
        "keras-cv",
        "numpy",
        "faiss-cpu",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
