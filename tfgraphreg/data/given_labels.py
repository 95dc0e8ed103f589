"""Labels of training images from a file, as `suggest` collects them."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from tfgraphreg.data.dataset import UNLABELED, Dataset
from tfgraphreg.data.splits import classes_without_labels
from tfgraphreg.data.tables import read_table
from tfgraphreg.errors import DataError, did_you_mean
from tfgraphreg.reading import known_as

_CURE = "Write the columns id and label, as the page of `tfgraphreg suggest` saves them."


def with_labels(dataset: Dataset, path: os.PathLike[str] | str) -> Dataset:
    """The dataset with the training labels of a CSV file (id, label) and no others.

    Rows with an empty label are passed over, as are images that are in no split.

    Raises:
        DataError: If the file cannot be used, names an image or class that nobody knows, one image
            twice with two labels, or one that is not for training; or if the dataset has several
            classes an image.
    """
    if dataset.multilabel:
        raise DataError(
            "Labels from a file need one class an image.", received=f"dataset={dataset.name}"
        )
    place = {name: i for i, name in enumerate(dataset.train.ids.tolist())}
    number = {name: c for c, name in enumerate(dataset.class_names)}
    beside = set(dataset.ids_beside_train)
    known = beside | place.keys()
    found: dict[str, str] = {}
    for name, label in read_table(path, ("id", "label"), cure=_CURE):
        name, label = known_as(name, known), known_as(label, number)
        if label and found.setdefault(name, label) != label:
            raise DataError(
                f"{path} has two labels for one image.",
                received=f"{name[:120]!r}: {found[name][:60]!r} and {label[:60]!r}",
            )
    labels = np.full(len(place), UNLABELED, np.int64)
    for name, label in found.items():
        if label not in number:
            raise DataError(
                f"{path} has a label that is no class of {dataset.name}.",
                received=f"{label[:120]!r} of {name[:120]!r}",
                cure=did_you_mean(label, number),
            )
        if name in place:
            labels[place[name]] = number[label]
        elif name not in beside:
            raise DataError(
                f"{path} labels an image that is not in this dataset.",
                received=repr(name[:120]),
                cure=did_you_mean(name, place),
            )
    measured_by = beside - set(dataset.left_out)
    outside = [name for name in found if name in measured_by]
    if outside:
        raise DataError(
            f"Only training images can be labeled, and {path} labels {len(outside)} others.",
            received=repr(outside[0][:120]),
            cure="Use the `seed` and the `validation_fraction` of `tfgraphreg suggest`.",
        )
    if not (labels >= 0).any():
        raise DataError(f"{path} labels no training image.", received=f"{len(found)} labels")
    train = dataclasses.replace(dataset.train, labels=labels)
    note = f"{int((labels >= 0).sum())} training labels are those of {path}; no other is used."
    before, now = (classes_without_labels(s, dataset.class_names) for s in (dataset.train, train))
    notes = [each for each in dataset.notes if each != before]
    return dataclasses.replace(dataset, train=train, notes=(*notes, note, *filter(None, [now])))


def with_labels_of_unlabeled(dataset: Dataset, path: os.PathLike[str] | str) -> Dataset:
    """The dataset with all its labels; training images that have none get those of a CSV file.

    By these a run is measured: what the data say counts, where they say something.

    Raises:
        DataError: As `with_labels`.
    """
    train = dataset.train
    if train.labeled.all():
        return dataset
    given = with_labels(dataset, path).train.labels
    labels = np.where(train.labeled, train.labels, given)
    return dataclasses.replace(dataset, train=dataclasses.replace(train, labels=labels))
