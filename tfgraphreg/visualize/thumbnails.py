"""Small copies of images, for pages and indexes that keep one for each item."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfgraphreg.errors import DataError

_CHUNK = 512


def thumbnails(images: Any, *, most: int) -> np.ndarray:
    """`[N, height, width, channels]` uint8: the images, halved until no side is above `most`.

    Args:
        images: `[N, height, width, channels]` uint8, or anything that a slice reads; at most
            512 are read at a time.
        most: Pixels, at least 1.

    Raises:
        DataError: If shape or type are others.
    """
    if images.dtype != np.uint8 or len(images.shape) != 4:
        raise DataError(
            "`images` must be uint8 images [items, height, width, channels].",
            received=f"dtype={images.dtype}, shape={tuple(images.shape)}",
        )
    parts = [
        _halved(np.asarray(images[start : start + _CHUNK]), most)
        for start in range(0, max(len(images), 1), _CHUNK)
    ]
    return np.concatenate(parts)


def _halved(images: np.ndarray, most: int) -> np.ndarray:
    while max(images.shape[1:3]) > most:
        count, height, width, channels = images.shape
        y, x = min(2, height), min(2, width)
        blocks = images[:, : height // y * y, : width // x * x]
        blocks = blocks.reshape(count, height // y, y, width // x, x, channels)
        images = (blocks.sum(axis=(2, 4), dtype=np.uint16) + y * x // 2) // (y * x)
    return images.astype(np.uint8)
