"""Training images that a person, or an audit, wants left out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from tfgraphreg.data.dataset import Dataset
from tfgraphreg.data.tables import read_table
from tfgraphreg.errors import DataError, did_you_mean
from tfgraphreg.reading import known_as
from tfgraphreg.storage import fingerprint

DROP = "drop"
# A person may leave a cell empty.
_ACTIONS = (DROP, "keep", "check", "")
_CURE = "It needs the columns id and action, as audit.csv of `tfgraphreg audit` has."


def read_drops(path: os.PathLike[str] | str) -> list[str]:
    """The ids of the rows of a CSV file whose `action` is drop, each once.

    Raises:
        DataError: If the file cannot be read, lacks a column, or holds another action than drop,
            keep and check.
    """
    rows = read_table(path, ("id", "action"), cure=_CURE)
    return list(dict.fromkeys(name for name, action in rows if is_drop(action, name, path)))


def is_drop(action: str, name: str, path: os.PathLike[str] | str) -> bool:
    """Whether the action in a row says to drop the image.

    Raises:
        DataError: If it is none of drop, keep and check.
    """
    word = action.strip().lower()
    if word not in _ACTIONS:
        raise DataError(
            f"{path} has an action that is none of drop, keep and check.",
            received=f"{action[:60]!r} for {name[:120]!r}",
        )
    return word == DROP


def without(dataset: Dataset, path: os.PathLike[str] | str) -> Dataset:
    """The dataset without the training images that a CSV file says to drop.

    Images that are in no split anyhow, as behind a limit, are passed over.

    Raises:
        DataError: If the file cannot be used, names an image that nobody knows or one that is not
            for training, or leaves none.
    """
    known = known_ids(dataset)
    return leave_out(dataset, [known_as(name, known) for name in read_drops(path)], path)


def known_ids(dataset: Dataset) -> set[str]:
    """The ids of all images, also of those in no split."""
    return {*dataset.train.ids.tolist(), *dataset.ids_beside_train}


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
    known = known_ids(dataset)
    unknown = [name for name in ids if name not in known]
    if unknown:
        raise DataError(
            f"{path} drops or relabels {len(unknown)} images that are not in this dataset.",
            received=repr(unknown[0][:120]),
            cure=did_you_mean(unknown[0], known),
        )
    measured_by = set(dataset.ids_beside_train).difference(dataset.left_out)
    measured = [name for name in ids if name in measured_by]
    if measured:
        raise DataError(
            f"Only training images can be dropped or relabeled, and {path} names "
            f"{len(measured)} others.",
            received=repr(measured[0][:120]),
            cure="Write keep there, or use the `seed` and the `validation_fraction` of the audit.",
        )
