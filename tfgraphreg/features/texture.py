"""Texture: local binary patterns, co-occurrence statistics, Gabor energies."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tfgraphreg.features.color import gray
from tfgraphreg.features.registry import FEATURES, Feature

_POINTS, _RADIUS = 8, 1
_LEVELS = 8
_DISTANCES, _ANGLES = (1, 3), (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
_STATISTICS = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
_FREQUENCIES = (0.1, 0.2, 0.4)


def texture(images: np.ndarray, _: Any = None) -> np.ndarray:
    """`[B, 46]`: `lbp` (10), `glcm` (12) and `gabor` (24) side by side."""
    values = gray(images)
    return np.concatenate([lbp(values), glcm(values), gabor(values)], axis=1)


def lbp(values: np.ndarray) -> np.ndarray:
    """`[B, 10]` histograms of uniform local binary patterns of 8 points at radius 1.

    Ojala, Pietikäinen and Mäenpää (2002), in scikit-image's form; each row sums to one.

    Args:
        values: `[B, H, W]` gray in [0, 1].
    """
    from skimage.feature import local_binary_pattern

    rows = np.empty((len(values), _POINTS + 2))
    for row, image in zip(rows, np.round(values * 255).astype(np.uint8)):
        codes = local_binary_pattern(image, _POINTS, _RADIUS, method="uniform")
        row[:] = np.bincount(codes.astype(np.int64).ravel(), minlength=_POINTS + 2) / image.size
    return rows


def glcm(values: np.ndarray) -> np.ndarray:
    """`[B, 12]` Haralick statistics of the gray level co-occurrences at distances 1 and 3.

    Haralick, Shanmugam and Dinstein (1973): 8 levels, mean over four directions; contrast,
    dissimilarity, homogeneity, energy, correlation and angular second moment in [0, 1] or
    [-1, 1] after division by their largest value.
    """
    from skimage.feature import graycomatrix, graycoprops

    largest = {"contrast": (_LEVELS - 1) ** 2, "dissimilarity": _LEVELS - 1}
    rows = np.empty((len(values), len(_STATISTICS) * len(_DISTANCES)))
    for row, image in zip(rows, quantized(values, _LEVELS)):
        counts = graycomatrix(image, _DISTANCES, _ANGLES, _LEVELS, symmetric=True, normed=True)
        found = [graycoprops(counts, s).mean(axis=1) / largest.get(s, 1) for s in _STATISTICS]
        row[:] = np.concatenate(found)
    return rows


def quantized(values: np.ndarray, levels: int) -> np.ndarray:
    """Gray in [0, 1] as uint8 numbers below `levels`, in equal steps."""
    return np.minimum(values * levels, levels - 1).astype(np.uint8)


def gabor(values: np.ndarray) -> np.ndarray:
    """`[B, 24]` mean and standard deviation of Gabor magnitudes, 3 frequencies x 4 directions.

    Kernels are scikit-image's `gabor_kernel`; images continue periodically at their borders.
    """
    spectrum = np.fft.fft2(values - values.mean(axis=(1, 2), keepdims=True))
    found = []
    for kernel in _gabor_spectra(values.shape[1:]):
        size = np.abs(np.fft.ifft2(spectrum * kernel))
        found += [size.mean(axis=(1, 2)), size.std(axis=(1, 2))]
    return np.stack(found, axis=1)


@functools.lru_cache(maxsize=4)
def _gabor_spectra(shape: tuple[int, int]) -> list[np.ndarray]:
    from skimage.filters import gabor_kernel

    spectra = []
    for frequency in _FREQUENCIES:
        for angle in _ANGLES:
            kernel = gabor_kernel(frequency, theta=angle)
            padded = np.zeros(shape, complex)
            # A kernel larger than the image wraps around, as the image does.
            rows = (np.arange(kernel.shape[0]) - kernel.shape[0] // 2) % shape[0]
            columns = (np.arange(kernel.shape[1]) - kernel.shape[1] // 2) % shape[1]
            np.add.at(padded, (rows[:, None], columns[None, :]), kernel)
            spectra.append(np.fft.fft2(padded))
    return spectra


FEATURES.register(
    "texture",
    Feature("texture", texture, heavy=True, summary="LBP, co-occurrence statistics, Gabor"),
)
