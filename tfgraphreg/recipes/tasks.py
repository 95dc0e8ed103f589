"""What the tasks of `train` do differently; everything else of a run is common to them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError
from tfgraphreg.recipes.start import RUN
from tfgraphreg.settings import GIVEN, shown

if TYPE_CHECKING:
    from tfgraphreg.data.dataset import Dataset
    from tfgraphreg.recipes.figures import Pictures
    from tfgraphreg.recipes.learn import Learned
    from tfgraphreg.training.cluster import Cluster

CLASSIFY = "classify"
_WHOM = {
    CLASSIFY: "classifiers",
    "segment": "models of masks",
    "detect": "models of boxes",
}


def _images(dataset: Dataset) -> Dataset:
    return dataset


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of `train`.

    Attributes:
        check_data: `(dataset)` raises DataError if it cannot be learned from.
        learn: `(config, run, material, progress)` trains; the config is filled in.
        finish: `(config, run, material, learned, progress)` measures, exports and draws; gives the
            numbers of metrics.json that depend on the model.
        measure_again: `(config, run, dataset, progress)` measures the run's SavedModel; gives the
            numbers, and figures by name as they are made. None for classifiers.
        nodes: `(dataset)` gives one whose training items are the nodes of the graph.
    """

    check_data: Callable[[Dataset], None]
    learn: Callable[..., Learned]
    finish: Callable[..., dict[str, Any]]
    measure_again: Callable[..., tuple[dict[str, Any], Pictures]] | None = None
    nodes: Callable[[Dataset], Dataset] = _images


def task_of(config: TrainConfig, cluster: Cluster | None = None) -> Task:
    """The task of a config, which several workers may share. TensorFlow is loaded."""
    if config.task == "segment":
        from tfgraphreg.recipes import segment

        return Task(segment.check_data, segment.learn_masks, segment.finish, segment.measure_again)
    if config.task == "detect":
        from tfgraphreg.recipes import detect
        from tfgraphreg.recipes.regions import as_regions

        check = functools.partial(detect.check_data, only_class=config.only_class)
        return Task(check, detect.learn_boxes, detect.finish, detect.measure_again, as_regions)
    from tfgraphreg.recipes import classify, learn

    together = functools.partial(learn.learn, cluster=cluster)
    return Task(lambda dataset: None, together, classify.finish)


def check_task(config: TrainConfig) -> None:
    """Refuses what no task but classification can start from, before anything is loaded.

    Raises:
        ConfigError: If weights are those of a run, the network is one that was passed, or several
            workers are to train.
    """
    if config.task == CLASSIFY:
        return
    if config.strategy == "multiworker":
        raise ConfigError(
            "Several workers train classifiers only.",
            received=f"strategy={config.strategy}, task={config.task}",
            cure="Use `strategy=mirrored` or leave it out.",
        )
    if config.weights.startswith(RUN):
        raise ConfigError(
            "Only the classifier of another run can be gone on with.",
            received=f"weights={config.weights}, task={config.task}",
            cure="Use `weights=none` or `weights=imagenet`, or `task=classify`.",
        )
    if config.backbone.startswith(GIVEN):
        raise ConfigError(
            "A model that is passed gives features of whole images, not of their parts.",
            received=shown("task", config.task),
            cure="Name a `backbone`, or use `task=classify`.",
        )


def check_options(task: str, given: Mapping[str, Any], takes: Mapping[str, Sequence[str]]) -> None:
    """Refuses options of a command about a run or model for which they have no effect.

    Args:
        task: What the model was trained for.
        given: Options by name; None and False are not given.
        takes: The tasks for which each option has an effect.

    Raises:
        ConfigError: If an option is given that has none.
    """
    for name, tasks in takes.items():
        value = given[name]
        if value is not None and value is not False and task not in tasks:
            raise ConfigError(
                f"`{name}` has an effect only for {' and '.join(_WHOM[each] for each in tasks)}.",
                received=f"{name}={value}, a model of the task {task}",
                cure="Leave it out.",
            )
