"""The values that hold what is known of parts of images: boxes and masks.

Boxes are `(x_min, y_min, x_max, y_max)` in pixels and are edges, as in
`tfgraphreg.evaluation.detection`: the box of the single pixel in row 3 and column 5 is
`(5, 3, 6, 4)`. Shapes: N images, C classes, M objects of one image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.errors import DataError

BACKGROUND, IGNORED = 0, 255
"""The values of a mask where there is no object, and where pixels do not count."""
BACKGROUND_NAME = "background"


def names_of_masks(dataset: Dataset) -> tuple[str, ...]:
    """The names of mask values: the background, then the classes."""
    return (BACKGROUND_NAME, *dataset.class_names)


@dataclasses.dataclass(frozen=True)
class Objects:
    """The M objects of one image.

    Attributes:
        boxes: `[M, 4]` float32, inside the image, each with an area.
        classes: `[M]` int64 class numbers, 0 to C - 1.
        difficult: `[M]` bool: objects that count neither for nor against a detector. Default:
            none.

    Raises:
        DataError: If the parts differ in length, or a box is not finite or has no area.
    """

    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self):
        boxes = np.asarray(self.boxes, np.float32).reshape(-1, 4)
        classes = np.asarray(self.classes, np.int64).reshape(-1)
        difficult = np.asarray(self.difficult, bool).reshape(-1)
        if not len(difficult):
            difficult = np.zeros(len(boxes), bool)
        if not len(boxes) == len(classes) == len(difficult):
            raise DataError(
                "Every object needs a box, a class and a mark whether it is difficult.",
                received=f"{len(boxes)} boxes, {len(classes)} classes, {len(difficult)} marks",
            )
        # A comparison with NaN is false.
        bad = ~((boxes[:, 2:] > boxes[:, :2]).all(axis=1) & np.isfinite(boxes).all(axis=1))
        if bad.any():
            raise DataError(
                "A box must be finite (x_min, y_min, x_max, y_max) with an area.",
                received=f"{boxes[np.argmax(bad)].tolist()}",
            )
        for name, value in (("boxes", boxes), ("classes", classes), ("difficult", difficult)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.classes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalSplit(Split):
    """N images with their objects, and with masks where there are any.

    Everything that takes a `Split` takes it too. Its labels are multi-hot rows that say which
    classes are in an image (see `multi_hot`).

    Attributes:
        objects: N values of `Objects`.
        masks: `[N, height, width]` uint8: 0 background, 1 + class number, 255 ignored, as in
            Pascal VOC; an image without a mask is 255 throughout. None if there are no masks.

    Raises:
        DataError: If objects or masks do not fit the images.
    """

    objects: Sequence[Objects]
    masks: Any = None

    def __post_init__(self):
        super().__post_init__()
        shape = tuple(self.images.shape[:3])
        if len(self.objects) != shape[0]:
            raise DataError(
                "Every image needs a list of its objects, which may be empty.",
                received=f"{shape[0]} images, {len(self.objects)} lists",
            )
        if self.masks is not None and (
            tuple(self.masks.shape) != shape or self.masks.dtype != np.uint8
        ):
            raise DataError(
                f"Masks must be uint8 of the size of the images, {list(shape)}.",
                received=f"{self.masks.dtype} of shape {list(self.masks.shape)}",
            )

    def take(self, indices: Sequence[int] | np.ndarray) -> LocalSplit:
        """The items at `indices`, in that order. A lazy split's images stay unread."""
        indices = np.asarray(indices, np.int64)
        whole = Split(self.images, self.labels, self.ids, self.extras).take(indices)
        return LocalSplit(
            whole.images,
            whole.labels,
            whole.ids,
            whole.extras,
            objects=tuple(self.objects[i] for i in indices),
            masks=None if self.masks is None else self.masks[indices],
        )


def multi_hot(objects: Sequence[Objects], classes: int) -> np.ndarray:
    """`[N, C]` int8 labels of images by their objects: 1 where one of them is not difficult."""
    labels = np.zeros((len(objects), classes), np.int8)
    for row, found in zip(labels, objects):
        row[found.classes[~found.difficult]] = 1
    return labels


def local_splits(
    dataset: Dataset, *, masks: bool = False
) -> tuple[LocalSplit, LocalSplit, LocalSplit]:
    """The training, validation and test split of a dataset with objects.

    Args:
        dataset: The dataset.
        masks: Whether masks are needed too.

    Raises:
        DataError: If it has no objects, or no masks where these are needed.
    """
    splits = (dataset.train, dataset.validation, dataset.test)
    found = [split for split in splits if isinstance(split, LocalSplit)]
    if len(found) < len(splits) or (masks and any(split.masks is None for split in found)):
        raise DataError(
            f"The dataset has no {'masks' if masks else 'boxes'} of objects.",
            received=f"dataset={dataset.name}",
            cure="Use `dataset=scenes`, which needs no files of your own.",
        )
    return found[0], found[1], found[2]
