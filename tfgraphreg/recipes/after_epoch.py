"""What happens after each epoch: the model is settled, measured and drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg.compat import keras
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.errors import TrainingError
from tfgraphreg.evaluation.spread import embedding_spread, evenly_spaced
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.model.classifier import EMBEDDING, infer
from tfgraphreg.recipes.defaults import settled_batch_size
from tfgraphreg.recipes.pseudo import LabelRounds
from tfgraphreg.runs.folder import RunFolder
from tfgraphreg.training.batch_norm import ENOUGH_STEPS, BatchNormAverages
from tfgraphreg.training.history import Row
from tfgraphreg.training.tensorboard import TensorBoardLog, neighbor_sheet

# Training images by which the spread of the embedding is measured after an epoch.
_SPREAD_IMAGES = 500


def settling(
    config: TrainConfig,
    base: keras.Model,
    dataset: Dataset,
    steps: int,
    *,
    ask: Callable[[Any], list[np.ndarray]] | None = None,
) -> Callable[[], None]:
    """Returns what prepares the model for inference after an epoch, and raises if it diverged.

    Args:
        config: The config.
        base: A model of raw images.
        dataset: Its training images are looked at.
        steps: Of the whole training.
        ask: What the model says of images, in arrays that must be finite; None: as a classifier.
    """
    batch_size = settled_batch_size(config)
    averages = None
    if steps < ENOUGH_STEPS:
        averages = BatchNormAverages(base, dataset.train.images, batch_size=batch_size)
    some = dataset.train.images[:batch_size]

    def settle() -> None:
        if averages:
            averages.measure()
        answers = ask(some) if ask else infer(base, some, multilabel=dataset.multilabel).values()
        finite = all(np.isfinite(values).all() for values in answers)
        if not (finite and all(np.isfinite(values).all() for values in base.get_weights())):
            raise TrainingError(
                "Training diverged: the network no longer gives finite numbers.",
                cure="Try a smaller `learning_rate` or `alpha` in another `run_dir`. What this run "
                "saved before is kept.",
            )

    return settle


def _validation(base: keras.Model, dataset: Dataset) -> Callable[[], Row] | None:
    split = dataset.validation
    if not len(split):
        return None

    def validate() -> Row:
        scores = infer(base, split.images, multilabel=dataset.multilabel)["probabilities"]
        if dataset.multilabel:
            return {"val_accuracy": float(np.mean((scores > 0.5) == (split.labels > 0)))}
        picked = scores[np.arange(len(split)), split.labels]
        return {
            "val_loss": float(-np.mean(np.log(np.maximum(picked, 1e-12)))),
            "val_accuracy": float(np.mean(scores.argmax(1) == split.labels)),
        }

    return validate


def measuring(base: keras.Model, dataset: Dataset, rounds: LabelRounds | None) -> Callable[[], Row]:
    """Returns what gives the numbers of an epoch's row besides its losses."""
    validate = _validation(base, dataset)
    train = dataset.train
    chosen = evenly_spaced(len(train), _SPREAD_IMAGES)

    def measure() -> Row:
        some = infer(base, train.images[chosen], multilabel=dataset.multilabel)
        return {
            **(validate() if validate else {}),
            **embedding_spread(some[EMBEDDING]),
            **(rounds.row() if rounds else {}),
        }

    return measure


def tensorboard_log(
    config: TrainConfig, run: RunFolder, dataset: Dataset, graph: SimilarityGraph | None
) -> TensorBoardLog:
    """The run's TensorBoard log, with a sheet of images and their neighbors in the graph."""
    sheet = None
    if graph is not None:
        neighbors, _ = graph.top(min(5, config.graph_neighbors), ids=dataset.train.ids)
        sheet = neighbor_sheet(dataset.train.images, neighbors, seed=config.seed)
    names = ("backbone", "alpha", "distance", "neighbors", "max_neighbors", "seed", "batch_size")
    hparams = {name: getattr(config, name) for name in names}
    return TensorBoardLog(run.path / "tensorboard", hparams=hparams, sheet=sheet)
