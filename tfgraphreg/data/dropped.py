"""Training images that a person, or an audit, wants left out."""

from __future__ import annotations

import dataclasses
import os

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
    found: dict[str, None] = {}
    for name, action in read_table(path, ("id", "action"), cure=_CURE):
        word = action.strip().lower()
        if word not in _ACTIONS:
            raise DataError(
                f"{path} has an action that is none of {', '.join(_ACTIONS[:3])}.",
                received=f"{action[:60]!r} for {name[:120]!r}",
            )
        if word == DROP:
            found[name] = None
    return list(found)


def without(dataset: Dataset, path: os.PathLike[str] | str) -> Dataset:
    """The dataset without the training images that a CSV file says to drop.

    Images that are in no split anyhow, as behind a limit, are passed over.

    Raises:
        DataError: If the file cannot be used, names an image that nobody knows or one that is not
            for training, or leaves none.
    """
    training = set(dataset.train.ids.tolist())
    beside = set(dataset.ids_beside_train)
    known = training | beside
    ids = [known_as(name, known) for name in read_drops(path)]
    unknown = [name for name in ids if name not in known]
    if unknown:
        raise DataError(
            f"{path} drops {len(unknown)} images that are not in this dataset.",
            received=repr(unknown[0][:120]),
            cure=did_you_mean(unknown[0], known),
        )
    measured_by = beside - set(dataset.left_out)
    measured = [name for name in ids if name in measured_by]
    if measured:
        raise DataError(
            f"Only training images can be dropped, and {path} drops {len(measured)} others.",
            received=repr(measured[0][:120]),
            cure="Write keep there, or use the `seed` and the `validation_fraction` of the audit.",
        )
    gone = training.intersection(ids)
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
