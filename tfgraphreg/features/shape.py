"""Shape: histograms of oriented gradients and Hu's moments; and all three descriptors at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfgraphreg.features.color import color_histograms, gray
from tfgraphreg.features.registry import FEATURES, Feature
from tfgraphreg.features.texture import texture

_CELLS = 4


def shape(images: np.ndarray, _: Any = None) -> np.ndarray:
    """`[B, D]`: `hog` and `hu`, each of length one, so that neither drowns the other."""
    values = gray(images)
    return np.concatenate([_unit(hog(values)), _unit(hu(values))], axis=1)


def hog(values: np.ndarray) -> np.ndarray:
    """`[B, 324]` histograms of oriented gradients (Dalal and Triggs, 2005), by scikit-image.

    The image is cut into 4 x 4 cells of 9 directions, in overlapping blocks of 2 x 2 cells;
    images of 4 pixels or less a side have one block of one cell, 9 numbers.

    Args:
        values: `[B, H, W]` gray in [0, 1].
    """
    from skimage.feature import hog as skimage_hog

    height, width = values.shape[1:]
    cells, block = (_CELLS, 2) if min(height, width) > _CELLS else (1, 1)
    cell = (height // cells, width // cells)
    return np.stack(
        [
            skimage_hog(v, orientations=9, pixels_per_cell=cell, cells_per_block=(block, block))
            for v in values
        ]
    )


def hu(values: np.ndarray) -> np.ndarray:
    """`[B, 7]` Hu moments (1962), as sign(h) log10(1 + |h| / 1e-10) / 10.

    The logarithm brings seven numbers of very different size to one scale.
    """
    from skimage.measure import moments_central, moments_hu, moments_normalized

    rows = np.zeros((len(values), 7))
    for row, image in zip(rows, values):
        if image.any():
            found = moments_hu(moments_normalized(moments_central(image)))
            row[:] = np.sign(found) * np.log10(1 + np.abs(np.nan_to_num(found)) / 1e-10) / 10
    return rows


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def global_features(images: np.ndarray, _: Any = None) -> np.ndarray:
    """`[B, D]`: color, texture and shape side by side, each of length one."""
    parts = (color_histograms(images), texture(images), shape(images))
    return np.concatenate([_unit(part) for part in parts], axis=1)


FEATURES.register("shape", Feature("shape", shape, heavy=True, summary="HOG and Hu moments"))
FEATURES.register(
    "global",
    Feature("global", global_features, heavy=True, summary="color, texture and shape together"),
)
