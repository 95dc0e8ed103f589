"""Training on several workers: what the chief does for the run, and what the others do.

Every worker loads the data, builds the graph and trains on its rows of each batch. The chief alone
opens the run folder, measures and exports; each other worker keeps its checkpoints in a folder
beside it, `<run>.worker1` and so on.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tfgraphreg import storage
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.errors import ConfigError, DataError, RunError
from tfgraphreg.progress import Progress
from tfgraphreg.recipes.defaults import fill_in
from tfgraphreg.recipes.given import Given
from tfgraphreg.recipes.graphs import file_mark
from tfgraphreg.recipes.material import Material, prepare
from tfgraphreg.recipes.versions import versions
from tfgraphreg.runs.folder import RunFolder, continued_after
from tfgraphreg.runs.run import Run
from tfgraphreg.settings import GIVEN
from tfgraphreg.training.cluster import Cluster, ending_together
from tfgraphreg.training.history import HISTORY

if TYPE_CHECKING:
    from tfgraphreg.compat import keras

logger = logging.getLogger(__name__)

_LOCK = ".lock"


def check_workable(config: TrainConfig) -> None:
    """Refuses what several workers cannot do.

    Raises:
        ConfigError: If the config asks for it.
    """
    if config.backbone.startswith(GIVEN):
        raise ConfigError(
            "A network that was passed cannot be trained on several workers: its variables were "
            "made before the workers met.",
            cure="Name a backbone, or use another `strategy`.",
        )
    if config.propagate != "none":
        raise ConfigError(
            "`propagate` is not made for several workers: each would draw its own labels.",
            received=f"propagate={config.propagate}, strategy=multiworker",
            cure="Propagate first with the command propagate, or use another `strategy`.",
        )


def lead(
    config: TrainConfig,
    cluster: Cluster,
    run: RunFolder,
    *,
    graph_file: str | None,
    finished: bool,
) -> None:
    """Meets the other workers as the chief, and starts training with them.

    Args:
        config: What all do.
        cluster: The workers.
        run: The chief's run folder, opened.
        graph_file: See `graphs.file_mark`.
        finished: Whether there is nothing left to do, of which the others only learn.
    """
    answer = {
        "run": str(run.path),
        "begun": (run.path / "checkpoints").exists(),
        "epochs": continued_after(run.path),
        "finished": finished,
    }
    others = len(cluster.addresses) - 1
    if others:
        logger.info(f"Waiting for {others} other worker{'s' if others > 1 else ''}")
    cluster.meet(_mark(config, graph_file), answer, wait=config.worker_wait)
    if not finished:
        _join()


def follow(config: TrainConfig, cluster: Cluster, given: Given, progress: Progress) -> Run:
    """Trains as a worker that is not the chief.

    Raises:
        TFGraphRegError: If a setting, the data, the graph or a folder is in the way, or another
            worker is gone.
    """
    logger.info(f"Worker {cluster.rank}: waiting for the chief at {cluster.addresses[0]}")
    answer = cluster.meet(_mark(config, file_mark(config)), None, wait=config.worker_wait)
    # The time in the chief's default name is not this worker's.
    path = storage.user_path(config.run_dir or str(answer.get("run", "")))
    if answer.get("finished"):
        logger.info(f"Run {path} is finished already.")
        return Run(path, config, {}, [])
    place = RunFolder(path.with_name(f"{path.name}.worker{cluster.rank}"), config)
    with ending_together(cluster), _alone_in(place):
        if not answer.get("begun"):
            _clear(place.path)
        _join()
        material = prepare(config, progress, given)
        from tfgraphreg.recipes.learn import learn

        begun = ([*_whole_numbers(answer.get("epochs")), config.epochs])[0]
        settled = fill_in(config, len(material.dataset.train), epochs=begun)
        learned = learn(settled, place, material, progress, cluster=cluster)
    logger.info(f"Worker {cluster.rank} is done; the chief measures and exports.")
    return Run(path, config, {}, learned.rows, learned.model)


def check_same_material(together: Callable[[int], list[int]], material: Material) -> None:
    """Refuses workers that would train on different data; called by all of them.

    Raises:
        DataError: If images, labels or graph are not the same.
    """
    train, graph = material.dataset.train, material.graph
    parts: list[Any] = [train.ids.tolist(), train.labels, list(train.images.shape)]
    if graph is not None:
        parts += [graph.indptr, graph.indices]
    if len(set(together(int(storage.fingerprint(parts)[:15], 16)))) > 1:
        raise DataError(
            "The workers do not have the same images, labels or graph.",
            cure="Give all the same files; build the graph once and name it by `graph`.",
        )


def without_workers(base: keras.Model, config: TrainConfig, dataset: Dataset) -> keras.Model:
    """A copy of a trained classifier that is this process's own; called by all workers.

    Averages of batch normalization are read from all workers at once, which the chief alone cannot
    do after the others have ended.
    """
    from tfgraphreg.recipes.network import untrained

    weights = base.get_weights()
    own = untrained(config, dataset)
    own.set_weights(weights)
    return own


def _mark(config: TrainConfig, graph_file: str | None) -> str:
    """What must be the same on all workers."""
    return storage.fingerprint([config.result_fields(), versions(), graph_file])


def _join() -> None:
    from tfgraphreg.training.strategy import join_workers

    strategy = join_workers()
    logger.info(f"Training on {strategy.num_replicas_in_sync} replicas of all workers")


@contextlib.contextmanager
def _alone_in(place: RunFolder) -> Iterator[None]:
    """Keeps a second process out of the worker's folder."""
    try:
        place.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage.write_error(error, place.path) from error
    try:
        with storage.one_writer(place.path / _LOCK, place.path / HISTORY, wait=False):
            yield
    except BlockingIOError as error:
        raise RunError(
            f"Another process is at work in {place.path}.",
            cure="Wait until it ends, or name another `run_dir`.",
        ) from error


def _clear(path: pathlib.Path) -> None:
    """Removes what an earlier run of the same name left of its state."""
    shutil.rmtree(path / "checkpoints", ignore_errors=True)
    (path / HISTORY).unlink(missing_ok=True)


def _whole_numbers(values: Any) -> list[int]:
    return [v for v in values if type(v) is int] if isinstance(values, list) else []
