"""The values that hold data: images, labels, ids, and where they came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import DataError

UNLABELED = -1


def has_label(labels: np.ndarray) -> np.ndarray:
    """`[N]` bool: which of `[N]` class numbers, or `[N, C]` multi-hot rows, are not -1."""
    return (labels if labels.ndim == 1 else labels[:, 0]) != UNLABELED


def class_numbers(labels: np.ndarray) -> np.ndarray:
    """`[N]` int64 class numbers of `[N, C]` one-hot rows; -1 where a row is unlabeled.

    Rows of zeros and rows of -1 are unlabeled.

    Raises:
        DataError: If a row names several classes, or holds anything but 0, 1 and -1.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.isin(labels, (-1, 0, 1)).all():
        raise DataError(
            "One-hot labels must have the shape [N, C] and hold zeros and ones.",
            received=f"shape={labels.shape}",
        )
    several = (labels == 1).sum(axis=1) > 1
    if several.any():
        raise DataError(
            "One-hot rows must name one class each.",
            received=f"{int(several.sum())} rows with several, the first is row "
            f"{int(np.argmax(several))}",
            cure="Keep such labels as they are: they are multi-hot.",
        )
    return np.where((labels == 1).any(axis=1), labels.argmax(axis=1), UNLABELED)


@dataclasses.dataclass(frozen=True)
class Split:
    """N images with their labels and ids.

    Attributes:
        images: `[N, height, width, channels]` uint8 with 1 or 3 channels: a NumPy array, a
            memory map, or anything with `shape`, `dtype`, `len()` and indexing by an int64
            array (see `tfgraphreg.data.lazy`), so that a split need not fit in memory.
        labels: `[N]` int64 class numbers, -1 where unlabeled; or `[N, C]` int8 multi-hot rows
            with -1 in every column where unlabeled.
        ids: `[N]` strings, unique and stable from run to run.
        extras: Further arrays with N rows by name, such as ``"difficult"`` (`[N, C]` bool: the
            item counts neither for nor against that class) and ``"boxes"`` of VOC.
    """

    images: Any
    labels: np.ndarray
    ids: np.ndarray
    extras: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        n = len(self.images)
        if len(self.labels) != n or len(self.ids) != n:
            raise DataError(
                "A split needs one label and one id for every image.",
                received=f"{n} images, {len(self.labels)} labels, {len(self.ids)} ids",
            )
        if len(self.images.shape) != 4 or self.images.shape[-1] not in (1, 3):
            raise DataError(
                "Images must have the shape [N, height, width, 1 or 3].",
                received=f"shape={tuple(self.images.shape)}",
            )
        if len(np.unique(self.ids)) != n:
            unique, count = np.unique(self.ids, return_counts=True)
            raise DataError(
                "Every image needs an id of its own.",
                received=f"id {str(unique[count > 1][0])!r} more than once",
                cure="Rename one of the files or give it another id.",
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.images.shape[1:]))
        return f"Split({len(self)} images of {size}, {int(self.labeled.sum())} labeled)"

    @property
    def multilabel(self) -> bool:
        """Whether labels are multi-hot rows."""
        return self.labels.ndim == 2

    @property
    def labeled(self) -> np.ndarray:
        """`[N]` bool: which items have a label."""
        return has_label(self.labels)

    def take(self, indices: Sequence[int] | np.ndarray) -> Split:
        """The items at `indices`, in that order. A lazy split's images stay unread."""
        indices = np.asarray(indices)
        lazy_take = getattr(self.images, "take_rows", None)
        images = lazy_take(indices) if lazy_take else self.images[indices]
        extras = {name: values[indices] for name, values in self.extras.items()}
        return Split(images, self.labels[indices], self.ids[indices], extras)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A named dataset of three splits.

    Attributes:
        name: As the user typed it.
        train: Images to train on; the nodes of the graph.
        validation: Images to choose by; may be empty.
        test: Images to report on.
        class_names: C names, in the order of the label numbers.
        source: In words, where the bytes came from.
        checksum: A digest of the images of all splits, for fingerprints; labels do not count.
        notes: Sentences that the user should read, such as which images were left out.
        left_out: Ids of images that exist but are in no split.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    source: str
    checksum: str
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __repr__(self) -> str:
        sizes = [f"{len(getattr(self, name))} {name}" for name in ("train", "validation", "test")]
        return f"Dataset({self.name!r}: {', '.join(sizes)} images, {self.num_classes} classes)"

    @property
    def ids_beside_train(self) -> list[str]:
        """Ids of all images but the training ones."""
        return [*self.validation.ids.tolist(), *self.test.ids.tolist(), *self.left_out]

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.class_names)

    @property
    def multilabel(self) -> bool:
        """Whether an image may belong to several classes."""
        return self.train.multilabel

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of every image."""
        return tuple(self.train.images.shape[1:])
