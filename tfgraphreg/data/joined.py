"""All images of a dataset as one split, for what looks at them together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.data.lazy import LazyImages

SPLITS = ("train", "validation", "test")


def joined(dataset: Dataset) -> tuple[Split, np.ndarray]:
    """The training, validation and test images, one after the other, without their extras.

    Returns:
        The N images, still unread if some of them are, and `[N]` the split of each by name.
    """
    parts = {name: getattr(dataset, name) for name in SPLITS}
    parts = {name: split for name, split in parts.items() if len(split)}
    images = [split.images for split in parts.values()]
    in_memory = all(isinstance(each, np.ndarray) for each in images)
    together = np.concatenate(images) if in_memory else JoinedImages(images)
    split = Split(
        together,
        np.concatenate([split.labels for split in parts.values()]),
        np.concatenate([split.ids for split in parts.values()]),
    )
    return split, np.repeat(list(parts), [len(split) for split in parts.values()])


class JoinedImages(LazyImages):
    """Images of several stores of one image shape, one after the other.

    Args:
        parts: Each `[n, height, width, channels]` uint8, an array or lazy.
        rows: Which images, counted through all parts; by default all of them.
    """

    def __init__(self, parts: Sequence, *, rows: np.ndarray | None = None):
        self._parts = list(parts)
        self._starts = np.cumsum([0, *map(len, self._parts)])
        everything = np.arange(self._starts[-1]) if rows is None else rows
        super().__init__(tuple(self._parts[0].shape[1:]), everything)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        part = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(part):
            mine = part == number
            out[mine] = self._parts[number][rows[mine] - self._starts[number]]
        return out

    def take_rows(self, indices: np.ndarray) -> JoinedImages:
        """The images at `indices`, still unread."""
        return JoinedImages(self._parts, rows=self.rows[indices])
