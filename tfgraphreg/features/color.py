"""Color histograms in RGB, HSV and Lab."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfgraphreg.features.registry import FEATURES, Feature

BINS = 16
_RANGES = {
    "rgb": ((0, 1), (0, 1), (0, 1)),
    "hsv": ((0, 1), (0, 1), (0, 1)),
    "lab": ((0, 100), (-128, 128), (-128, 128)),
}


def rgb(images: np.ndarray) -> np.ndarray:
    """`[B, H, W, 3]` float64 in [0, 1]; gray images have three equal channels."""
    return np.broadcast_to(images, (*images.shape[:3], 3)) / 255.0


def gray(images: np.ndarray) -> np.ndarray:
    """`[B, H, W]` float64 in [0, 1]: the channel, or the luminance of scikit-image."""
    if images.shape[-1] == 1:
        return images[..., 0] / 255.0
    from skimage.color import rgb2gray

    return rgb2gray(images)


def color_histograms(images: np.ndarray, _: Any = None) -> np.ndarray:
    """`[B, 144]`: 16 bins for each of the channels of RGB, HSV and Lab; each histogram sums to one.

    Rows are not negative, so that distances of histograms apply.
    """
    from skimage.color import rgb2hsv, rgb2lab

    colors = rgb(images)
    spaces = {"rgb": colors, "hsv": rgb2hsv(colors), "lab": rgb2lab(colors)}
    return np.concatenate(
        [
            histograms(spaces[name][..., channel], BINS, *limits)
            for name, ranges in _RANGES.items()
            for channel, limits in enumerate(ranges)
        ],
        axis=1,
    )


def histograms(values: np.ndarray, bins: int, low: float, high: float) -> np.ndarray:
    """`[B, bins]` shares of the values of each item that fall in equal bins from low to high."""
    count = len(values)
    place = np.clip(((values - low) * (bins / (high - low))).astype(np.int64), 0, bins - 1)
    place = place.reshape(count, -1)
    keys = place + np.arange(count)[:, None] * bins
    return np.bincount(keys.ravel(), minlength=count * bins).reshape(count, bins) / place.shape[1]


FEATURES.register(
    "color", Feature("color", color_histograms, summary="histograms of RGB, HSV and Lab")
)
