"""The main recipe: from a config to a trained, measured and exported model."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.backbones.check import check_backbone
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.catalog import find_loader
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.distances import DISTANCES
from tfgraphreg.errors import ConfigError
from tfgraphreg.formats.catalog import check_formats, parse_formats
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.defaults import choose_backbone, fill_in, settled_precision
from tfgraphreg.recipes.given import Given
from tfgraphreg.recipes.graphs import check_graph, file_mark
from tfgraphreg.recipes.material import Material, prepare
from tfgraphreg.recipes.start import RUN, check_start
from tfgraphreg.recipes.tasks import check_task, task_of
from tfgraphreg.recipes.versions import versions
from tfgraphreg.recipes.workers import check_workable, follow, lead
from tfgraphreg.runs.folder import (
    METRICS,
    RunFolder,
    continued_after,
    gone_if_it_fails,
    keep_inputs,
    open_run,
    working_on,
)
from tfgraphreg.runs.run import Run
from tfgraphreg.settings import GIVEN
from tfgraphreg.training.cluster import ending_together, find_cluster
from tfgraphreg.training.history import HISTORY, SHOWN, read_history

if TYPE_CHECKING:
    from tfgraphreg.recipes.learn import Learned

logger = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    *,
    dataset: Dataset | None = None,
    graph: SimilarityGraph | None = None,
    vectors: np.ndarray | None = None,
    model: Any = None,
    progress: Progress = silent,
) -> Run:
    """Trains, evaluates and exports as the config says.

    Args:
        config: What to do. Where an object is passed, the setting that would name it keeps its
            default; the run folder then records the object by its content.
        dataset: Data of one's own, in place of `config.dataset`.
        graph: A graph over the training images, in their order, in place of `config.graph`.
        vectors: `[N, D]` for the N training images, in their order; the graph is built from these
            in place of `config.graph_features`.
        model: A `keras.Model` from images `[B, H, W, C]` with values 0 to 255 to features
            `[B, F]`, in place of `config.backbone`, with the weights that it has. It is trained
            as it is, not copied.
        progress: Called while work goes on.

    Returns:
        The finished run. A run that was finished before is read from its folder. On a worker
        that is not the chief `metrics` is empty: it measures, exports and writes nothing.

    Raises:
        TFGraphRegError: If a setting, the data, the graph or the folder is in the way.
    """
    started = time.perf_counter()
    if not isinstance(config, TrainConfig):
        raise ConfigError(
            "`config` must be a TrainConfig.", received=f"an object of type {type(config).__name__}"
        )
    given = Given(dataset=dataset, graph=graph, vectors=vectors, model=model)
    config = given.in_config(config)
    check_names(config)
    cluster = None
    if config.strategy == "multiworker":
        cluster = find_cluster()
        check_workable(config)
        if not cluster.chief:
            return follow(config, cluster, given, progress)
    run = open_run(config)
    with working_on(run), gone_if_it_fails(run), ending_together(cluster):
        graph_file = file_mark(config)
        keep_inputs(run, graph_file=graph_file)
        done = run.finished()
        finished = done is not None and (run.export_path / "saved_model.pb").exists()
        if cluster is not None:
            lead(config, cluster, run, graph_file=graph_file, finished=finished)
        if done is not None and finished:
            logger.info(f"Run {run.path} is finished already.")
            done = _in_all_formats(run, done, dataset, progress)
            return Run(run.path, run.config, done, read_history(run.path / HISTORY))
        logger.info(f"Run: {run.path}")
        # TensorFlow is loaded only now, since much can be wrong before.
        from tfgraphreg.recipes.learn import same_precision

        task = task_of(config, cluster)
        material = prepare(config, progress, given, check=task.check_data, nodes=task.nodes)
        # Epochs of an interrupted run count, as they do for train_seconds.
        earlier = sum(row["seconds"] for row in read_history(run.path / HISTORY))
        begun = (continued_after(run.path) or [config.epochs])[0]
        settled = fill_in(config, len(material.dataset.train), epochs=begun)
        with same_precision():
            learned = task.learn(settled, run, material, progress)
            measured = task.finish(config, run, material, learned, progress)
        metrics = {**measured, **_about(config, run, material, learned)}
        metrics["graph_file"] = graph_file
        metrics["continued_after"] = continued_after(run.path)
        metrics["total_seconds"] = time.perf_counter() - started + earlier
        storage.write_json(run.path / METRICS, metrics, noted=True)
        from tfgraphreg.training.tensorboard import log_test

        log_test(run.path / "tensorboard", metrics)
        metrics = _in_all_formats(run, metrics, material.dataset, progress)
    seconds = metrics["total_seconds"]
    logger.info(f"Trained {metrics['train_seconds']:.0f} s, {seconds:.0f} s in all.")
    logger.info(f"Model: {metrics['export']}    Curves: tensorboard --logdir {run.path.parent}")
    return Run(run.path, run.config, metrics, learned.rows, learned.model)


def check_names(config: TrainConfig) -> None:
    """Refuses unknown names and missing packages before anything is loaded or written."""
    check_formats(parse_formats(config.export_format))
    check_task(config)
    if not config.backbone.startswith(GIVEN):
        start = check_start(config) if config.weights.startswith(RUN) else config.weights
        check_backbone(
            choose_backbone(config),
            weights=start,
            image_size=config.image_size,
            freeze=config.freeze,
        )
    DISTANCES.get(config.distance)
    DISTANCES.get(config.graph_metric)
    if not config.dataset.startswith(GIVEN):
        find_loader(config.dataset)
    if config.uses_graph:
        check_graph(config)


def _in_all_formats(
    run: RunFolder, metrics: dict[str, Any], dataset: Dataset | None, progress: Progress
) -> dict[str, Any]:
    """The metrics of a finished run whose model lies there in all formats that are asked for."""
    from tfgraphreg.recipes.exports import export_run, missing_formats

    names = missing_formats(run, metrics)
    return export_run(run, names, dataset=dataset, progress=progress) if names else metrics


def _about(
    config: TrainConfig, run: RunFolder, material: Material, learned: Learned
) -> dict[str, Any]:
    """How a run was trained, and with what."""
    rows = learned.rows
    return {
        "train_seconds": sum(row["seconds"] for row in rows),
        "epoch_seconds": [row["seconds"] for row in rows],
        "replicas": learned.replicas,
        "backbone": learned.backbone,
        "batch_size": learned.batch_size,
        "precision": settled_precision(config),
        "parameters": learned.parameters,
        "graph": material.graph_summary,
        "rounds": learned.rounds,
        "source": material.dataset.source,
        "versions": versions(),
        "seed": config.seed,
        "final": {k: v for k, v in rows[-1].items() if k.endswith(SHOWN)},
        "export": str(run.export_path),
    }
