"""The examples that batches are made of: inputs, labels, and which labels are missing."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.data.dataset import UNLABELED, Split
from tfgraphreg.errors import DataError, first_line
from tfgraphreg.neighbors.lookup import MEMORY_BYTES

IMAGE = "image"
INPUT = "x"
_BLOCK = 1024


@dataclasses.dataclass(frozen=True)
class Examples:
    """N examples, in the order of the graph's nodes.

    Attributes:
        inputs: By feature name: `[N, ...]` arrays, or anything with `shape`, `dtype` and indexing
            by an int64 array.
        labels: `[N]` or `[N, C]`; a missing label is 0 here.
        missing: `[N]` bool: which labels are missing.
        weights: `[N]` float32 sample weights, or None.
        ids: `[N]` strings that break ties between neighbors of equal weight, or None.
        given: `[N]` bool: the labels that are no pseudo-labels, to draw `labeled_batch` rows from;
            None: all that are not missing.
        marked: Whether batches show a missing label as -1. Otherwise they show a 0, which every
            loss can take, with sample weight 0.
    """

    inputs: Mapping[str, Any]
    labels: np.ndarray
    missing: np.ndarray
    weights: np.ndarray | None = None
    ids: np.ndarray | None = None
    marked: bool = False
    given: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, data: Any, *, size: int | None = None) -> Examples:
        """Examples of a `Split`, of arrays `(x, y)` or `(x, y, sample_weight)`, or of a dataset.

        Args:
            data: A split; a tuple of arrays, where `x` may be a dictionary of arrays and `y` None;
                or a finite `tf.data.Dataset` of single examples `(x, y)` or
                `(x, y, sample_weight)`.
            size: N, for a `tf.data.Dataset`.

        Raises:
            DataError: If the parts differ in length, or labels are missing in part only.
        """
        if isinstance(data, cls):
            return data
        if isinstance(data, Split):
            return cls._of_arrays({IMAGE: data.images}, data.labels, None, data.ids)
        if hasattr(data, "element_spec"):
            data = _read_dataset(data, size)
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            raise DataError(
                "`data` must be (x, y), (x, y, sample_weight), a Split or a tf.data.Dataset.",
                received=f"{type(data).__name__}"
                + (f" of {len(data)}" if isinstance(data, (tuple, list)) else ""),
                cure="Use (x, None) if there are no labels.",
            )
        x, y, weights = (*data, None)[:3]
        inputs = x if isinstance(x, Mapping) else {INPUT: x}
        if not inputs:
            raise DataError("`x` must not be an empty dictionary.")
        return cls._of_arrays({k: _array(v) for k, v in inputs.items()}, y, weights, None)

    @classmethod
    def _of_arrays(cls, inputs: Mapping[str, Any], y: Any, weights: Any, ids: Any) -> Examples:
        first = next(iter(inputs.values()))
        n = len(first)
        y = np.full(n, UNLABELED, np.int64) if y is None else _labels(y)
        weights = None if weights is None else np.asarray(weights, np.float32)
        sizes = {**{name: len(v) for name, v in inputs.items()}, "y": len(y)}
        if weights is not None:
            sizes["sample_weight"] = len(weights)
        if len(set(sizes.values())) > 1:
            raise DataError(
                "Inputs, labels and sample weights must have one row for each example.",
                received=", ".join(f"{name}: {size}" for name, size in sizes.items()),
                cure="Give several inputs as a dictionary, by name.",
            )
        if weights is not None and (weights.ndim != 1 or not np.isfinite(weights).all()):
            raise DataError(
                "`sample_weight` must be one finite number for each example.",
                received=f"shape={weights.shape}",
            )
        missing = _missing(y)
        shown = np.where(missing.reshape(-1, *[1] * (y.ndim - 1)), np.zeros((), y.dtype), y)
        if y.dtype == np.float64:
            shown = shown.astype(np.float32)
        elif y.dtype.kind in "iub":
            shown = shown.astype(np.int64)
        return cls(inputs, shown, missing, weights, ids)

    @property
    def class_of(self) -> np.ndarray:
        """`[N]` int64: a number for the class, or set of classes, of each example; -1 if none."""
        labels = self.labels
        if labels.ndim == 1 and labels.dtype.kind == "i":
            numbers = labels
        elif labels.ndim == 2 and np.isin(labels, (0, 1)).all():
            numbers = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
        else:
            return np.full(len(self), UNLABELED)
        return np.where(self.missing, UNLABELED, numbers)

    def targets(self) -> tuple[np.ndarray, np.ndarray | None]:
        """What batches show: labels, and sample weights `[N]` float32 where there are any."""
        if self.marked:
            mask = self.missing.reshape(-1, *[1] * (self.labels.ndim - 1))
            labels = np.where(mask, np.asarray(UNLABELED, self.labels.dtype), self.labels)
            return labels, self.weights
        if self.weights is None and not self.missing.any():
            return self.labels, None
        weights = np.ones(len(self), np.float32) if self.weights is None else self.weights
        return self.labels, weights


def _array(values: Any) -> Any:
    """`values` if it can be indexed lazily, else an array; float64 becomes float32, as in fit."""
    lazy = hasattr(values, "shape") and hasattr(values, "dtype") and hasattr(values, "__getitem__")
    if not (lazy and isinstance(values, np.memmap)):
        known = lazy and not isinstance(values, np.ndarray) and hasattr(values, "take_rows")
        values = values if known else _one_array(values)
    if isinstance(values, np.ndarray) and values.dtype == np.float64:
        values = values.astype(np.float32)
    if isinstance(values, np.ndarray) and values.dtype.kind in "US":
        values = values.astype(object)
    if not values.shape:
        raise DataError("`x` must have one row for each example.", received="a single number")
    return values


def _one_array(values: Any) -> np.ndarray:
    """An input as an array of numbers or of text."""
    cure = "Give inputs of several types or shapes as a dictionary, by name: dict(table)."
    try:
        found = np.asarray(values)
    except ValueError as error:  # Rows of different lengths.
        raise DataError(
            "An input must be one array.", received=first_line(error), cure=cure
        ) from error
    if found.dtype.kind == "O" and not all(isinstance(v, (str, bytes)) for v in found.flat):
        kinds = sorted({type(value).__name__ for value in found.flat})
        raise DataError(
            "An input must be an array of numbers or of text.", received=", ".join(kinds), cure=cure
        )
    return found


def _labels(y: Any) -> np.ndarray:
    """Labels as an array of numbers `[N, ...]`."""
    if isinstance(y, Mapping):
        raise DataError(
            "Labels must be one array of numbers, not a dictionary by output.",
            received=f"a dictionary with the keys {', '.join(map(str, y))}",
            cure="Pass the labels of one output and name it: compile(loss={NAME: ...}).",
        )
    cure = "Number the classes from 0; if the model has several outputs, name the one that they "
    cure += "belong to: compile(loss={NAME: ...})."
    try:
        found = np.asarray(y)
    except ValueError as error:
        raise DataError(
            "Labels must be one array.", received=first_line(error), cure=cure
        ) from error
    if found.ndim == 0 or found.dtype.kind not in "iubf":
        received = type(y).__name__ if found.dtype.kind == "O" else f"dtype={found.dtype}"
        raise DataError("Labels must be one array of numbers.", received=received, cure=cure)
    return found


def _missing(y: np.ndarray) -> np.ndarray:
    """`[N]` bool: rows of -1 (whole numbers, or one-hot rows of floats) or NaN (other floats)."""
    flat = y.reshape(len(y), -1)
    if y.dtype.kind == "f":
        marked = np.isnan(flat)
        if y.ndim > 1 and np.isin(flat, (-1, 0, 1)).all():
            marked = marked | (flat == UNLABELED)
    else:
        marked = flat == UNLABELED
    whole = marked.all(axis=1)
    partly = marked.any(axis=1) & ~whole
    # Rows that mix -1 with other values are regression targets, not missing labels.
    if partly.any() and y.dtype.kind == "f" and not np.isnan(flat).any():
        return np.zeros(len(y), bool)
    if partly.any():
        raise DataError(
            "The label of a row must be there or be missing as a whole.",
            received=f"{int(partly.sum())} rows missing in part, the first is row "
            f"{int(np.argmax(partly))}",
            cure="Put -1 (or NaN for floats) into every column of a row without a label.",
        )
    return whole


def _read_dataset(dataset: Any, size: int | None) -> tuple[Any, ...]:
    """The arrays of a finite dataset; those over the limit lie in a file of the cache folder."""
    from tfgraphreg.compat import tf

    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise DataError(
            "The elements of a tf.data.Dataset must be (x, y) or (x, y, sample_weight).",
            received=str(spec),
        )
    counted = int(dataset.cardinality())
    if counted == tf.data.INFINITE_CARDINALITY or (size is None and counted < 0):
        raise DataError(
            "The tf.data.Dataset must be finite.", received="an endless one", cure="Use take(N)."
        )
    n = counted if size is None else size
    flat_specs = tf.nest.flatten(spec)
    for one in flat_specs:
        if not one.shape.is_fully_defined():
            raise DataError(
                "Examples of a tf.data.Dataset must all have one known shape.",
                received=str(one.shape),
                cure="If it gives batches, add .unbatch().",
            )
    tables = [_table(n, one) for one in flat_specs]
    filled = 0
    for block in dataset.batch(_BLOCK).prefetch(tf.data.AUTOTUNE):
        rows = [part.numpy() for part in tf.nest.flatten(block)]
        if filled + len(rows[0]) > n:
            filled += len(rows[0])
            break
        for table, part in zip(tables, rows):
            table[filled : filled + len(part)] = part
        filled += len(rows[0])
    if filled != n:
        raise DataError(
            "The tf.data.Dataset must give one example for each node of the graph.",
            received=f"{'more than ' if filled > n else ''}{min(filled, n)} examples, {n} nodes",
            cure="Give single examples in the order of the nodes, without batch() or repeat().",
        )
    return tf.nest.pack_sequence_as(spec, tables)


def _table(n: int, spec: Any) -> np.ndarray:
    dtype = spec.dtype.as_numpy_dtype
    shape = (n, *spec.shape.as_list())
    if dtype is object or int(np.prod(shape)) * np.dtype(dtype).itemsize <= MEMORY_BYTES:
        return np.empty(shape, dtype)
    folder = storage.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    # The file has no name: it disappears with the array, even if the process is killed.
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype, "w+", shape=shape)
