"""Finds labels and names among the features of a tensorflow-datasets dataset."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np

from tfgraphreg.errors import DataError

# Features that hold a name of the image's own, in order of preference.
_NAMES = ("image/filename", "file_name", "filename", "image/id", "id")


class LabelReader:
    """One class number an image.

    Attributes:
        class_names: C names.
        multilabel: Whether a label is a row of C numbers.
    """

    multilabel = False

    def __init__(self, class_names: tuple[str, ...], key: str):
        self.class_names = class_names
        self._key = key

    def label(self, example: dict) -> Any:
        """The label of an example."""
        return example[self._key]

    def extras(self, example: dict) -> dict[str, np.ndarray]:
        """What else is kept of an example."""
        return {}

    def stack_extras(self, rows: list[dict]) -> dict[str, np.ndarray]:
        """The extras of N examples as arrays with N rows."""
        return {}


class MultiHotReader(LabelReader):
    """Any number of classes an image, as a row of C zeros and ones."""

    multilabel = True

    def label(self, example: dict) -> np.ndarray:
        """`[C]` int8."""
        return multi_hot(example[self._key], len(self.class_names))


def multi_hot(classes: np.ndarray, num_classes: int) -> np.ndarray:
    """`[C]` int8 with 1 at the given classes."""
    row = np.zeros(num_classes, np.int8)
    row[np.asarray(classes, np.int64)] = 1
    return row


def find_labels(features: Any) -> LabelReader:
    """The reader for a dataset's class labels: a `ClassLabel`, or a sequence of them.

    The feature named `label` or `labels` comes first, then any other.

    Raises:
        DataError: If no feature is a class label.
    """
    keys = sorted(features, key=lambda key: (key not in ("label", "labels"), key))
    for key in keys:
        feature = features[key]
        inner = getattr(feature, "feature", None)
        if hasattr(feature, "int2str") and feature.num_classes:
            return LabelReader(_names(feature), key)
        if inner is not None and hasattr(inner, "int2str") and inner.num_classes:
            return MultiHotReader(_names(inner), key)
    raise DataError(
        "The dataset has no class labels.",
        received=f"features {', '.join(features)}",
        cure="Choose a dataset for classification.",
    )


def _names(label: Any) -> tuple[str, ...]:
    return tuple(label.int2str(i) for i in range(label.num_classes))


def file_name(example: dict) -> str:
    """The name that an example has of its own, or an empty string."""
    for key in _NAMES:
        value = example.get(key)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if value is not None:
            return str(value)
    return ""


def make_ids(prefix: str, names: list[str]) -> np.ndarray:
    """`[N]` ids: by the images' own names if these are all different, else by number."""
    printable = all(n and not any(unicodedata.category(c) == "Cc" for c in n) for n in names)
    if printable and len(set(names)) == len(names):
        return np.array([f"{prefix}/{name}" for name in names])
    width = max(5, len(str(len(names) - 1)))
    return np.array([f"{prefix}/{i:0{width}d}" for i in range(len(names))])
