"""Checks that every function of this room makes on the arrays it is given."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfgraphreg.data.dataset import UNLABELED
from tfgraphreg.errors import DataError


def as_labels(name: str, labels: npt.ArrayLike, count: int) -> np.ndarray:
    """`labels` as `[count]` int64 class numbers or `[count, C]` int8 multi-hot rows.

    Raises:
        DataError: If the shape, the type or a value cannot be that.
    """
    labels = np.asarray(labels)
    if labels.ndim not in (1, 2) or len(labels) != count:
        raise DataError(
            f"`{name}` must have one label, or one multi-hot row, for each of {count} items.",
            received=f"shape={labels.shape}",
        )
    if labels.size and labels.dtype.kind not in "biu" and (labels != np.floor(labels)).any():
        raise DataError(f"`{name}` must be whole numbers.", received=f"dtype={labels.dtype}")
    labels = labels.astype(np.int64)
    if labels.size and labels.min() < UNLABELED:
        raise DataError(
            f"`{name}` must be class numbers from 0 on, or {UNLABELED} for unlabeled.",
            received=f"{labels.min()}",
        )
    if labels.ndim == 2:
        if labels.size and labels.max() > 1:
            raise DataError(
                f"Multi-hot `{name}` must be 0, 1 or {UNLABELED}.", received=f"{labels.max()}"
            )
        return labels.astype(np.int8)
    return labels


def is_labeled(labels: np.ndarray) -> np.ndarray:
    """`[N]` bool: which of `[N]` class numbers or `[N, C]` multi-hot rows are not unlabeled."""
    return labels != UNLABELED if labels.ndim == 1 else (labels != UNLABELED).any(axis=1)
