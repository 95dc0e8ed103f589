"""Pixels, and their principal components."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfgraphreg.features.registry import FEATURES, Feature, blocks

_COMPONENTS = 100
_WIDEST_COVARIANCE = 4096
_SAMPLE = 10_000
_SAMPLE_BYTES = 512 << 20
_CHUNK = 256


@dataclasses.dataclass(frozen=True)
class Projection:
    """A fitted principal component analysis.

    Attributes:
        mean: `[P]` float32, P pixels.
        axes: `[P, D]` float32, orthonormal columns by decreasing variance; the largest entry of
            each is positive.
    """

    mean: np.ndarray
    axes: np.ndarray


def flat(images: np.ndarray) -> np.ndarray:
    """`[B, H * W * C]` float32 in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def fit_pca(images: Any, seed: int, *, components: int = _COMPONENTS) -> Projection:
    """Principal components of pixels: at most `components`, fewer than images and pixels allow.

    Up to 4096 pixels the covariance of all images is summed block by block and decomposed, which
    is exact and needs memory for one block only. Wider images use a randomized SVD (Halko,
    Martinsson and Tropp, 2011) of images drawn with `seed`: at most 10,000 of them, and no more
    than take 512 MB (892 at 224 x 224 x 3), but at least twice the components.
    """
    pixels = int(np.prod(images.shape[1:]))
    components = max(1, min(components, pixels, len(images) - 1))
    if pixels <= _WIDEST_COVARIANCE:
        mean, axes = _by_covariance(images, pixels, components)
    else:
        mean, axes = _by_sample(images, components, seed)
    signs = np.sign(axes[np.argmax(np.abs(axes), axis=0), np.arange(axes.shape[1])])
    return Projection(mean.astype(np.float32), (axes * np.where(signs, signs, 1)).astype("f4"))


def _by_covariance(images: Any, pixels: int, components: int) -> tuple[np.ndarray, np.ndarray]:
    total, products = np.zeros(pixels), np.zeros((pixels, pixels))
    for block in blocks(images):
        rows = flat(block).astype(np.float64)
        total += rows.sum(axis=0)
        products += rows.T @ rows
    mean = total / len(images)
    _, axes = np.linalg.eigh(products / len(images) - np.outer(mean, mean))
    return mean, axes[:, ::-1][:, :components]


def _by_sample(images: Any, components: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.utils.extmath import randomized_svd

    affordable = _SAMPLE_BYTES // (4 * int(np.prod(images.shape[1:])))
    count = min(_SAMPLE, len(images), max(affordable, 2 * components))
    chosen = np.sort(np.random.default_rng(seed).choice(len(images), count, replace=False))
    rows = np.empty((count, int(np.prod(images.shape[1:]))), np.float32)
    for start in range(0, count, _CHUNK):
        part = chosen[start : start + _CHUNK]
        rows[start : start + len(part)] = flat(np.asarray(images[part]))
    mean = rows.mean(axis=0, dtype=np.float64)
    rows -= mean.astype(np.float32)
    _, _, axes = randomized_svd(rows, min(components, count), random_state=seed)
    return mean, axes.T


def _pca(images: np.ndarray, projection: Projection) -> np.ndarray:
    return (flat(images) - projection.mean) @ projection.axes


FEATURES.register(
    "pixels", Feature("pixels", lambda images, _: flat(images), summary="pixels in [0, 1]")
)
FEATURES.register(
    "pca",
    Feature("pca", _pca, fit_pca, summary="at most 100 principal components of the pixels"),
)
