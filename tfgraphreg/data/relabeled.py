"""Training images that an audit, or a person after it, gives another class."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from tfgraphreg.data.dataset import Dataset
from tfgraphreg.data.dropped import check_training, is_drop, known_ids, leave_out
from tfgraphreg.data.tables import read_table
from tfgraphreg.errors import DataError, did_you_mean
from tfgraphreg.reading import known_as

LABEL_ERROR = "label_error"
_COLUMNS = ("id", "issue", "suggested", "action")
_CURE = f"It needs the columns {', '.join(_COLUMNS)}, as audit.csv of `tfgraphreg audit` has."


def relabeled(dataset: Dataset, path: os.PathLike[str] | str) -> Dataset:
    """The dataset with the classes that a CSV file suggests for its label errors.

    Of rows whose `action` is drop, a label_error gives the image the class in `suggested`; any
    other issue leaves the image out, also where the same image has a label_error besides. Images
    that are in no split anyhow, as behind a limit, are passed over.

    Raises:
        DataError: If the file cannot be used, names an image or a class that nobody knows, or an
            image that is not for training; if it suggests two classes for one image, or leaves no
            image; or if the dataset has several classes an image.
    """
    if dataset.multilabel:
        raise DataError(
            "Only images of one class each can be relabeled.", received=f"dataset={dataset.name}"
        )
    number = {name: c for c, name in enumerate(dataset.class_names)}
    known = known_ids(dataset)
    dropped: list[str] = []
    wanted: dict[str, int] = {}
    for name, issue, label, action in read_table(path, _COLUMNS, cure=_CURE):
        if not is_drop(action, name, path):
            continue
        name, label = known_as(name, known), known_as(label, number)
        if issue.strip() != LABEL_ERROR:
            dropped.append(name)
        elif label not in number:
            raise DataError(
                f"{path} suggests a label that is no class of {dataset.name}.",
                received=f"{label[:120]!r} of {name[:120]!r}",
                cure=did_you_mean(label, number),
            )
        elif wanted.setdefault(name, number[label]) != number[label]:
            raise DataError(
                f"{path} suggests two classes for one image.", received=repr(name[:120])
            )
    check_training(dataset, list(wanted), path)
    dataset = leave_out(dataset, dropped, path)
    place = {name: i for i, name in enumerate(dataset.train.ids.tolist())}
    labels = dataset.train.labels.copy()
    there = [name for name in wanted if name in place]
    labels[[place[name] for name in there]] = [wanted[name] for name in there]
    changed = int(np.sum(labels != dataset.train.labels))
    if not changed:
        return dataset
    return dataclasses.replace(
        dataset,
        train=dataclasses.replace(dataset.train, labels=labels),
        notes=(*dataset.notes, f"{changed} training images have the class that {path} suggests."),
    )
