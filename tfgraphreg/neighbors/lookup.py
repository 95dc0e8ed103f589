"""Rows of an array by index, inside tf.data: natively if they fit in memory, else by NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

# Arrays up to this size become one tensor: rows are then gathered without any Python.
MEMORY_BYTES = 1 << 30


def row_lookup(rows: Any, *, memory_bytes: int = MEMORY_BYTES) -> Callable[[Any], Any]:
    """A function from an int64 tensor of indices `[...]` to rows `[..., *row shape]`.

    Args:
        rows: `[N, ...]` array, memory map, or anything with `shape`, `dtype` and indexing by an
            int64 array.
        memory_bytes: A larger array, and anything that is not an array, is read batch by batch.
    """
    from tfgraphreg.compat import tf

    shape = tuple(int(n) for n in rows.shape)
    dtype = tf.as_dtype(rows.dtype)
    if isinstance(rows, np.ndarray) and rows.nbytes <= memory_bytes:
        with tf.device("CPU:0"):
            table = tf.constant(np.ascontiguousarray(rows), dtype)
        return lambda indices: tf.gather(table, indices)

    def read(indices: np.ndarray) -> np.ndarray:
        # A duplicate row is read, and decoded, once.
        names, places = np.unique(indices, return_inverse=True)
        return np.asarray(rows[names], rows.dtype)[places.reshape(indices.shape)]

    def lookup(indices):
        found = tf.numpy_function(read, [indices], dtype)
        return tf.ensure_shape(found, [*indices.shape, *shape[1:]])

    return lookup
