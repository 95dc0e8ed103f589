"""A run opened again: its data, and what its exported model makes of the images."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfgraphreg.config import TrainConfig
from tfgraphreg.data.catalog import has_own_size, load_dataset
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.data.dropped import without
from tfgraphreg.data.given_labels import with_labels, with_labels_of_unlabeled
from tfgraphreg.data.relabeled import relabeled
from tfgraphreg.data.splits import keep_labels, labels_beyond_budget
from tfgraphreg.runs.folder import RunFolder


@dataclasses.dataclass(frozen=True)
class RunOutputs:
    """What the model of a run gives for its images.

    Attributes:
        run: The run.
        dataset: Its data, with all labels, also those that it was trained without.
        train: `embedding` `[N, D]` and `probabilities` `[N, C]` of the training images.
        test: The same of the test images.
    """

    run: RunFolder
    dataset: Dataset
    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]


def load_data(config: TrainConfig, progress: Any) -> Dataset:
    """The dataset of a config, with all its labels, corrected, and without what it drops.

    Raises:
        DataError: If it cannot be loaded.
    """
    # Images of one size reach the model as they are, so that its export takes them so.
    dataset = load_dataset(
        config.dataset,
        data_dir=config.data_dir,
        seed=config.seed,
        validation_fraction=config.validation_fraction,
        limit=config.limit,
        image_size=None if has_own_size(config.dataset) else config.image_size,
        on_bad_image=config.on_bad_image,
        cache_images=config.cache_images,
        progress=progress,
    )
    if config.relabel is not None:
        return relabeled(dataset, config.relabel)
    return dataset if config.drop is None else without(dataset, config.drop)


def within_budget(config: TrainConfig, dataset: Dataset) -> Dataset:
    """The dataset as the config trains on it: with the `labels` of a file, or few a class."""
    if config.labels is not None:
        return with_labels(dataset, config.labels)
    if config.labels_per_class is None:
        return dataset
    few = keep_labels(dataset.train, config.labels_per_class, seed=config.seed)
    said = labels_beyond_budget(dataset.validation, config.labels_per_class)
    notes = (*dataset.notes, said) if said else dataset.notes
    return dataclasses.replace(dataset, train=few, notes=notes)


def measured_by(config: TrainConfig, dataset: Dataset) -> Dataset:
    """The dataset with every training label that is known: its own, then those of `labels`."""
    return with_labels_of_unlabeled(dataset, config.labels) if config.labels else dataset


def run_outputs(run: RunFolder, progress: Any) -> RunOutputs:
    """Loads the run's data and SavedModel, and asks the model about every image.

    Raises:
        ModelError: If the run has no usable SavedModel.
        DataError: If its data cannot be loaded.
    """
    from tfgraphreg.export import Predictor

    predictor = Predictor(run.export_path)
    dataset = measured_by(run.config, load_data(run.config, progress))
    both = [
        ask(predictor, split.images, dataset.multilabel, f"embedding {name} images", progress)
        for name, split in (("training", dataset.train), ("test", dataset.test))
    ]
    return RunOutputs(run, dataset, *both)


def ask(model: Any, images: Any, multilabel: bool, what: str, progress: Any) -> dict:
    """Probabilities and embeddings that a classifier, live or a `Predictor`, gives."""

    def tell(done: int, *_: int) -> None:
        progress(what, done, len(images))

    from tfgraphreg.export import Predictor

    if isinstance(model, Predictor):
        return model(images, progress=tell)
    from tfgraphreg.model.classifier import infer

    return infer(model, images, multilabel=multilabel, progress=tell)
