"""Training images that a person, or an audit, wants left out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from tfgraphreg.data.dataset import Dataset
from tfgraphreg.data.tables import read_table
from tfgraphreg.errors import DataError, did_you_mean
from tfgraphreg.storage import fingerprint

DROP = "drop"
_CURE = "It needs the columns id and action, as audit.csv of `tfgraphreg audit` has."


def read_drops(path: os.PathLike[str] | str) -> list[str]:
    """The ids of the rows of a CSV file whose `action` is drop, each once.

    Raises:
        DataError: If the file cannot be read, or lacks a column.
    """
    rows = read_table(path, ("id", "action"), cure=_CURE)
    return list(dict.fromkeys(name for name, action in rows if action.strip() == DROP))


def without(dataset: Dataset, path: os.PathLike[str] | str) -> Dataset:
    """The dataset without the training images that a CSV file says to drop.

    Images that are in no split anyhow, as behind a limit, are passed over.

    Raises:
        DataError: If the file cannot be used, names an image that nobody knows or one that is not
            for training, or leaves none.
    """
    return leave_out(dataset, read_drops(path), path)


def leave_out(dataset: Dataset, ids: Sequence[str], path: os.PathLike[str] | str) -> Dataset:
    """The dataset without the named training images; `path` says in messages who named them.

    Raises:
        DataError: As `without`.
    """
    check_training(dataset, ids, path)
    gone = set(dataset.train.ids.tolist()).intersection(ids)
    if not gone:
        return dataset
    kept = np.flatnonzero(~np.isin(dataset.train.ids, list(gone)))
    if not len(kept):
        raise DataError(f"{path} drops every training image.", received=f"{len(gone)} images")
    return dataclasses.replace(
        dataset,
        train=dataset.train.take(kept),
        checksum=fingerprint([dataset.checksum, DROP, sorted(gone)]),
        notes=(*dataset.notes, f"{len(gone)} training images were left out by {path}."),
        left_out=(*dataset.left_out, *sorted(gone)),
    )


def check_training(dataset: Dataset, ids: Sequence[str], path: os.PathLike[str] | str) -> None:
    """Refuses ids of images that a table may not change.

    Raises:
        DataError: If one is unknown, or of an image to measure by.
    """
    beside = set(dataset.ids_beside_train)
    known = beside.union(dataset.train.ids.tolist())
    unknown = [name for name in ids if name not in known]
    if unknown:
        raise DataError(
            f"{path} drops or relabels {len(unknown)} images that are not in this dataset.",
            received=repr(unknown[0][:120]),
            cure=did_you_mean(unknown[0], known),
        )
    measured_by = beside - set(dataset.left_out)
    measured = [name for name in ids if name in measured_by]
    if measured:
        raise DataError(
            f"Only training images can be dropped or relabeled, and {path} names "
            f"{len(measured)} others.",
            received=repr(measured[0][:120]),
            cure="Write keep there, or use the `seed` and the `validation_fraction` of the audit.",
        )
