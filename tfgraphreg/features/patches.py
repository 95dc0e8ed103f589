"""Features of small patches, learned by k-means without any label.

Coates, Lee and Ng, An Analysis of Single-Layer Networks in Unsupervised Feature Learning, AISTATS
2011, with their best settings of patch size, whitening and activation; pooled 4 x 4 and reduced to
200 numbers, since a graph compares them all with all.

Shapes: N images, B images of one block, S patches of one image, P numbers of a patch, K centers,
M = cells * K pooled numbers, D width.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
from scipy import linalg
from threadpoolctl import threadpool_limits

from tfgraphreg.errors import DataError
from tfgraphreg.features.registry import FEATURES, Feature, blocks
from tfgraphreg.storage import atomic_path, read_arrays

SIDE = 6  # of a patch in pixels; less where an image is smaller
CENTERS = 256
CELLS = 4  # pooling cells a side
COMPONENTS = 200
_CONTRAST = 0.003  # added to the variance of a patch of pixels in [0, 1]
_WHITENING = 0.05  # added to the eigenvalues of the covariance of patches of unit variance
_LONGEST = 48  # larger images are averaged down to at most so many pixels a side
_FIT_PATCHES = 200_000
_FIT_IMAGES = 10_000
_ROUNDS = 25
_CHUNK = 1024
_PART = 16  # images that a thread takes at a time
_ARRAYS = ("mean", "whiten", "centers", "center", "axes")


@dataclasses.dataclass(frozen=True)
class Patches:
    """The fitted transform from images to patch features; call it with images.

    Attributes:
        shape: `(height, width, channels)` of the images that it takes.
        mean: `[P]` float32, of normalized patches.
        whiten: `[P, P]` float32, symmetric (ZCA).
        centers: `[K, P]` float32, of whitened patches.
        center: `[M]` float32, mean of the pooled activations.
        axes: `[M, D]` float32, principal axes, each divided by the square root of the standard
            deviation along it.
    """

    shape: tuple[int, int, int]
    mean: np.ndarray
    whiten: np.ndarray
    centers: np.ndarray
    center: np.ndarray
    axes: np.ndarray

    def __call__(self, images: Any) -> np.ndarray:
        """`[N, D]` float32 features of `[N, H, W, C]` uint8 images, which are read in blocks.

        Raises:
            DataError: If the images are not of the shape that the transform was fitted to.
        """
        shape = tuple(getattr(images, "shape", ()))
        if shape[1:] != self.shape or images.dtype != np.uint8:
            raise DataError(
                f"Images must be uint8 of the shape (N, {', '.join(map(str, self.shape))}), like "
                "those that these patches were fitted to.",
                received=f"shape={shape}, dtype={getattr(images, 'dtype', None)}",
            )
        rows = np.empty((len(images), self.axes.shape[1]), np.float32)
        done = 0
        for block in _chunks(images, np.arange(len(images))):
            pooled = _pooled(block, self.mean, self.whiten, self.centers)
            rows[done : done + len(block)] = (pooled - self.center) @ self.axes
            done += len(block)
        return rows

    def save(self, path: os.PathLike[str] | str) -> None:
        """Writes everything to one npz file, whole or not at all."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        with atomic_path(path) as part, part.open("wb") as out:
            np.savez(out, shape=np.asarray(self.shape, np.int64), **arrays)

    @classmethod
    def load(cls, path: os.PathLike[str] | str) -> Patches:
        """Reads what `save` wrote.

        Raises:
            DataError: If the file is missing, damaged or something else.
        """
        try:
            arrays = read_arrays(path, "shape", *_ARRAYS)
            height, width, channels = map(int, arrays.pop("shape"))
            made = cls((height, width, channels), *arrays.values())
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{path} cannot be read as saved patches ({error}).") from error
        made._check(path)
        return made

    def _check(self, path: os.PathLike[str] | str) -> None:
        arrays = [getattr(self, name) for name in _ARRAYS]
        right = len(self.shape) == 3 and min(self.shape) > 0 and self.centers.ndim == 2
        if right:
            small = _small_shape(self.shape)
            patch = _patch_side(small) ** 2 * small[2]
            cells = int(np.prod([min(CELLS, n) for n in _places(small)]))
            pooled = cells * len(self.centers)
            expected = [(patch,), (patch, patch), (len(self.centers), patch), (pooled,)]
            right = [a.shape for a in arrays[:4]] == expected
            right = right and self.axes.ndim == 2 and self.axes.shape[0] == pooled
        if not right or not all(a.dtype == np.float32 and np.isfinite(a).all() for a in arrays):
            raise DataError(
                f"{path} does not hold saved patches: its arrays do not fit together.",
                received=", ".join(f"{n} {a.shape}" for n, a in zip(_ARRAYS, arrays)),
            )


def fit_patches(images: Any, *, seed: int = 0) -> Patches:
    """Learns centers and principal axes from images; no label is looked at.

    Centers come from at most 200,000 random patches, axes from at most 10,000 random images, drawn
    with `seed`: memory does not grow with N, and of stored images only those are read.

    Args:
        images: `[N, H, W, C]` uint8 with 1 or 3 channels, N at least 1. Above 48 pixels a side
            they are averaged down first; below 6, patches are as large as the shorter side.
        seed: Of the draws and of k-means.
    """
    rng = np.random.default_rng(seed)
    chosen = np.arange(len(images))
    if len(images) > _FIT_IMAGES:
        chosen = np.sort(rng.choice(len(images), _FIT_IMAGES, replace=False))
    # BLAS threads that share cores with other work wait for each other, which costs tenfold.
    with threadpool_limits(1):
        patches = _some_patches(images, chosen, rng)
        mean, whiten = _whitening(patches)
        centers = _centers((patches - mean) @ whiten, seed)
        center, axes = _axes(images, chosen, mean, whiten, centers)
    height, width, channels = map(int, images.shape[1:])
    return Patches((height, width, channels), mean, whiten, centers, center, axes)


def _chunks(images: Any, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """The images at `chosen`, in order, at most 1024 at a time and at most a few MB."""
    if len(chosen) == len(images):
        for block in blocks(images):
            for start in range(0, len(block), _CHUNK):
                yield block[start : start + _CHUNK]
        return
    size = max(1, min(_CHUNK, (8 << 20) // int(np.prod(images.shape[1:]))))
    for start in range(0, len(chosen), size):
        yield np.asarray(images[chosen[start : start + size]])


def _some_patches(images: Any, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`[at most 200,000, P]` normalized patches, equally many of each chosen image."""
    found = []
    for block in _chunks(images, chosen):
        small = _shrunk(block)
        rows, columns = _places(small.shape[1:])
        each = max(1, min(rows * columns, _FIT_PATCHES // len(chosen)))
        for image in small:
            places = rng.choice(rows * columns, each, replace=False)
            found.append(_normalized(image, _patch_side(image.shape))[places])
    return np.concatenate(found)


def _whitening(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = patches.mean(axis=0, dtype=np.float64)
    covariance = patches.T.astype(np.float64) @ patches / len(patches) - np.outer(mean, mean)
    values, vectors = np.linalg.eigh(covariance)
    whiten = (vectors / np.sqrt(np.maximum(values, 0) + _WHITENING)) @ vectors.T
    return mean.astype(np.float32), whiten.astype(np.float32)


def _centers(white: np.ndarray, seed: int) -> np.ndarray:
    """`[K, P]` by k-means; fewer than 256 where there are not four times as many patches."""
    import faiss

    count = max(1, min(CENTERS, len(white) // 4))
    kmeans = faiss.Kmeans(
        white.shape[1],
        count,
        niter=_ROUNDS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(white),
    )
    kmeans.train(np.ascontiguousarray(white, np.float32))
    return np.ascontiguousarray(kmeans.centroids, np.float32)


def _axes(
    images: Any, chosen: np.ndarray, mean: np.ndarray, whiten: np.ndarray, centers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scaled principal axes of the pooled activations of the chosen images."""
    pooled = (_pooled(block, mean, whiten, centers) for block in _chunks(images, chosen))
    center, values, vectors = _principal(pooled, len(chosen))
    # Directions almost without variance hold rounding errors; where all are so, one zero is left.
    kept = max(1, int((values > max(1e-6 * values[0], 1e-12)).sum()))
    scales = np.power(values[:kept], -0.25) if values[0] > 1e-12 else np.zeros(1)
    vectors = vectors[:, :kept]
    signs = np.sign(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(kept)])
    axes = vectors * np.where(signs, signs, 1) * scales
    return center.astype(np.float32), axes.astype(np.float32)


def _principal(rows: Iterator[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean `[M]`, largest variances `[D]` and their directions `[M, D]` of `count` rows.

    The covariance is summed block by block; of fewer rows than columns their own inner products
    are decomposed, which is the same at less cost.
    """
    first = next(rows)
    width = first.shape[1]
    kept = max(1, min(COMPONENTS, width, count - 1))
    if count <= width:
        together = np.concatenate([first, *rows]).astype(np.float64)
        center = together.mean(axis=0)
        together -= center
        values, inner = _largest(together @ together.T / count, kept)
        return center, values, together.T @ inner / np.sqrt(np.maximum(values, 1e-12) * count)
    total, products = np.zeros(width), np.zeros((width, width))
    for block in itertools.chain([first], rows):
        total += block.sum(axis=0, dtype=np.float64)
        products += block.T @ block
    center = total / count
    return center, *_largest(products / count - np.outer(center, center), kept)


def _largest(symmetric: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    last = len(symmetric) - 1
    values, vectors = linalg.eigh(symmetric, subset_by_index=(last - count + 1, last))
    return values[::-1], vectors[:, ::-1]


def _small_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    step = _step(shape)
    return -(-shape[0] // step), -(-shape[1] // step), shape[2]


def _step(shape: tuple[int, ...]) -> int:
    return -(-max(shape[:2]) // _LONGEST)


def _patch_side(shape: tuple[int, ...]) -> int:
    return min(SIDE, *shape[:2])


def _places(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of patches in an image of `shape`."""
    side = _patch_side(shape)
    return shape[0] - side + 1, shape[1] - side + 1


def _shrunk(images: np.ndarray) -> np.ndarray:
    """`[B, h, w, C]` float32 in [0, 1], at most 48 pixels a side, by means of squares of pixels."""
    values = images.astype(np.float32) / np.float32(255)
    step = _step(images.shape[1:])
    for axis in (1, 2) if step > 1 else ():
        starts = np.arange(0, values.shape[axis], step)
        sums = np.add.reduceat(values, starts, axis=axis)
        widths = np.diff(np.append(starts, values.shape[axis])).astype(np.float32)
        values = sums / np.expand_dims(widths, tuple({0, 1, 2, 3} - {axis}))
    return np.ascontiguousarray(values)


def _pooled(
    images: np.ndarray, mean: np.ndarray, whiten: np.ndarray, centers: np.ndarray
) -> np.ndarray:
    """`[B, M]` float32: square roots of the mean activations in each cell of each image.

    Threads take whole images and BLAS stays in its thread: matrices are small, and the result of
    an image does not depend on the others of its block.
    """
    small = _shrunk(images)
    rows, columns = _places(small.shape[1:])
    cells = (min(CELLS, rows), min(CELLS, columns))
    side, norms = _patch_side(small.shape[1:]), np.square(centers).sum(axis=1)
    pooled = np.zeros((len(small), cells[0] * cells[1], len(centers)), np.float32)

    def fill(part: slice) -> None:
        for image, out in zip(small[part], pooled[part]):
            white = (_normalized(image, side) - mean) @ whiten
            _triangle(white, white @ centers.T, norms, rows, columns, *cells, out)

    parts = [slice(start, start + _PART) for start in range(0, len(small), _PART)]
    with threadpool_limits(1), concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, parts))
    return np.sqrt(pooled, out=pooled).reshape(len(small), -1)


@numba.njit(nogil=True, cache=True)
def _normalized(image: np.ndarray, side: int) -> np.ndarray:
    """`[S, P]` float32: every patch of an image, less its mean, over its standard deviation."""
    height, width, channels = image.shape
    rows, columns = height - side + 1, width - side + 1
    size = side * side * channels
    patches = np.empty((rows * columns, size), np.float32)
    for row in range(rows):
        for column in range(columns):
            patch = patches[row * columns + column]
            place = 0
            total = np.float32(0)
            for i in range(side):
                for j in range(side):
                    for c in range(channels):
                        value = image[row + i, column + j, c]
                        patch[place] = value
                        total += value
                        place += 1
            mean = total / np.float32(size)
            squares = np.float32(0)
            for place in range(size):
                patch[place] -= mean
                squares += patch[place] * patch[place]
            scale = np.float32(1) / np.sqrt(squares / np.float32(size) + np.float32(_CONTRAST))
            for place in range(size):
                patch[place] *= scale
    return patches


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "arcp", "contract"})
def _triangle(
    white: np.ndarray,
    products: np.ndarray,
    norms: np.ndarray,
    rows: int,
    columns: int,
    cell_rows: int,
    cell_columns: int,
    out: np.ndarray,
) -> None:
    """Adds to `out` `[cells, K]` the mean of max(0, mean distance - distance) over each cell.

    Args:
        white: `[S, P]` whitened patches, row by row of the image.
        products: `[S, K]` inner products of patches and centers; overwritten by distances.
        norms: `[K]` squared lengths of the centers.
        rows: Of patches, and `columns` of them: S = rows * columns.
        columns: See `rows`.
        cell_rows: Cells from top to bottom, at most `rows`.
        cell_columns: Cells from left to right, at most `columns`.
        out: `[cell_rows * cell_columns, K]` float32, zeros.
    """
    count = len(norms)
    sizes = np.zeros(cell_rows * cell_columns, np.float32)
    for row in range(rows):
        for column in range(columns):
            place = row * columns + column
            cell = (row * cell_rows // rows) * cell_columns + column * cell_columns // columns
            sizes[cell] += np.float32(1)
            squares = np.float32(0)
            for value in white[place]:
                squares += value * value
            distances = products[place]
            total = np.float32(0)
            for k in range(count):
                square = squares + norms[k] - np.float32(2) * distances[k]
                distances[k] = np.sqrt(max(square, np.float32(0)))
                total += distances[k]
            mean = total / np.float32(count)
            into = out[cell]
            for k in range(count):
                into[k] += max(mean - distances[k], np.float32(0))
    for cell in range(len(sizes)):
        for k in range(count):
            out[cell, k] /= sizes[cell]


FEATURES.register(
    "patches",
    Feature(
        "patches",
        lambda images, fitted: fitted(images),
        lambda images, seed: fit_patches(images, seed=seed),
        version=2,
        summary="200 numbers learned from 6x6 patches by k-means, without labels",
    ),
)


def _measured_best(shape: tuple[int, ...]) -> str:
    """`patches` where a whole patch fits into an image; see the tables in docs/graphs.md."""
    return "patches" if min(shape[:2]) >= SIDE else "pca"


FEATURES.register(
    "auto", Feature("auto", choose=_measured_best, summary="patches, or pca of tiny images")
)
