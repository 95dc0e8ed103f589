"""Rows of images by index, inside tf.data: natively if they fit in memory, else by NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

# Arrays up to this size become one tensor: rows are then gathered without any Python.
MEMORY_BYTES = 1 << 30


def image_lookup(images: Any, *, memory_bytes: int = MEMORY_BYTES) -> Callable[[Any], Any]:
    """A function from an int64 tensor of indices `[...]` to uint8 images `[..., H, W, C]`.

    Args:
        images: `[N, H, W, C]` uint8 array, memory map, or anything that is indexed like one.
        memory_bytes: A larger array, and anything that is no array, is read batch by batch.
    """
    from tfgraphreg.compat import tf

    shape = tuple(int(n) for n in images.shape)
    if isinstance(images, np.ndarray) and images.nbytes <= memory_bytes:
        with tf.device("CPU:0"):
            table = tf.constant(np.ascontiguousarray(images), tf.uint8)
        return lambda indices: tf.gather(table, indices)

    def read(indices: np.ndarray) -> np.ndarray:
        # An image that is asked for twice is read, and perhaps decoded, once.
        names, places = np.unique(indices, return_inverse=True)
        return np.asarray(images[names], np.uint8)[places.reshape(indices.shape)]

    def lookup(indices):
        rows = tf.numpy_function(read, [indices], tf.uint8)
        return tf.ensure_shape(rows, [*indices.shape, *shape[1:]])

    return lookup
