"""The table of descriptors and the one function that applies them.

Shapes: N images, B images of one block, D width of the descriptor.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfgraphreg.errors import DataError
from tfgraphreg.progress import Progress
from tfgraphreg.registry import Registry
from tfgraphreg.storage import UNREADABLE_NPZ, fingerprint, is_sealed, sealed_path

_BLOCK_BYTES = 8 << 20
_SHARED_FROM = 2000  # images from which starting more processes pays


@dataclasses.dataclass(frozen=True)
class Feature:
    """A descriptor of images.

    Attributes:
        name: Its registered name.
        compute: Function of a `[B, H, W, C]` uint8 block and what `fit` gave (None without);
            gives `[B, D]`. It must treat every image alone.
        fit: Function of the `[N, H, W, C]` images and a seed, for descriptors that learn from
            them; None where there is nothing to learn.
        heavy: Whether to spread blocks over processes.
        version: Raised when results change, so that cached ones are not used.
        summary: One line for lists.
        choose: For a name that stands for others: function of the images' `(H, W, C)` that gives
            the name of the feature to take. Nothing else of the record is then used.
    """

    name: str
    compute: Callable[[np.ndarray, Any], np.ndarray] | None = None
    fit: Callable[[Any, int], Any] | None = None
    heavy: bool = False
    version: int = 1
    summary: str = ""
    choose: Callable[[tuple[int, ...]], str] | None = None


FEATURES: Registry[Feature] = Registry("graph feature")


def extract_features(
    name: str,
    images: Any,
    *,
    fit: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
    cache_dir: os.PathLike[str] | str | None = None,
    fingerprint_key: Any = None,
    workers: int | None = None,
) -> np.ndarray:
    """Describes every image by a row of numbers.

    Args:
        name: A registered feature.
        images: `[N, H, W, C]` uint8, an array or anything with `shape`, `dtype` and slices; it is
            read in blocks of a few MB.
        fit: Images that a learned descriptor such as `pca` learns from; `images` by default.
        seed: Of whatever is drawn at random.
        progress: Called as ``progress(what, images done, N)``.
        cache_dir: Folder for results; used only together with `fingerprint_key`.
        fingerprint_key: A JSON-like value that names the content of `images` and `fit`. Results
            are reused for an equal key, name, seed and shape, and never otherwise.
        workers: Processes for slow descriptors; all cores by default.

    Returns:
        `[N, D]` float32.

    Raises:
        UnknownNameError: If there is no such feature.
        DataError: If the images are not of the stated kind, or there are none.
    """
    feature = find_feature(name, images)

    def compute() -> np.ndarray:
        state = None
        if feature.fit is not None:
            if fit is not None:
                _check(fit)
            state = feature.fit(images if fit is None else fit, seed)
        return _rows(feature, images, state, progress, workers)

    if cache_dir is None or fingerprint_key is None:
        return compute()
    parts = [feature.name, feature.version, seed, fingerprint_key, list(images.shape)]
    parts.append(None if fit is None else list(fit.shape))
    file = pathlib.Path(cache_dir) / f"features-{feature.name}-{fingerprint(parts)}.npy"
    return cached_rows(file, len(images), compute)


def find_feature(name: str, images: Any) -> Feature:
    """The descriptor of a name, for these images.

    Raises:
        UnknownNameError: If there is no such feature.
        DataError: If the images are not of the stated kind, or there are none.
    """
    feature = FEATURES.get(name)
    _check(images)
    if feature.choose is not None:
        feature = FEATURES.get(feature.choose(tuple(images.shape[1:])))
    return feature


def cached_rows(
    path: os.PathLike[str] | str, count: int, compute: Callable[[], np.ndarray]
) -> np.ndarray:
    """The `[count, D]` float32 rows in the file `path`, or those of `compute`, kept there.

    A file that is not as it was written, by its digest, is written again.
    """
    path = pathlib.Path(path)
    rows = _load(path, count)
    if rows is None:
        rows = compute()
        with sealed_path(path) as part, part.open("wb") as out:
            np.save(out, rows)
    return rows


def _check(images: Any) -> None:
    shape, dtype = tuple(getattr(images, "shape", ())), getattr(images, "dtype", None)
    if len(shape) != 4 or shape[-1] not in (1, 3) or dtype != np.uint8:
        raise DataError(
            "Images must be uint8 of the shape [N, height, width, 1 or 3].",
            received=f"shape={shape}, dtype={dtype}",
        )
    if not shape[0]:
        raise DataError("There is no image to describe.", received="0 images")


def _load(path: pathlib.Path, count: int) -> np.ndarray | None:
    """Cached rows, or None where there are none that can be used."""
    if not is_sealed(path):
        return None
    try:
        rows = np.load(path, allow_pickle=False)
    except UNREADABLE_NPZ:
        return None
    return rows if rows.ndim == 2 and len(rows) == count and rows.dtype == np.float32 else None


def blocks(images: Any) -> Iterator[np.ndarray]:
    """`images` as `[B, H, W, C]` uint8 arrays of a few MB."""
    size = max(1, _BLOCK_BYTES // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, len(images), size):
        yield np.asarray(images[start : start + size])


def _rows(
    feature: Feature,
    images: Any,
    state: Any,
    progress: Progress | None,
    workers: int | None,
) -> np.ndarray:
    workers, compute = workers or os.cpu_count() or 1, feature.compute
    assert compute is not None, "`extract_features` computes only such features"
    if feature.heavy and workers > 1 and len(images) >= _SHARED_FROM:
        import joblib

        jobs = (joblib.delayed(compute)(part, state) for part in _small_blocks(images))
        results = joblib.Parallel(n_jobs=workers, return_as="generator", pre_dispatch="2*n_jobs")(
            jobs
        )
    else:
        results = (compute(part, state) for part in blocks(images))
    rows: np.ndarray | None = None
    done = 0
    for result in results:
        if rows is None:
            rows = np.empty((len(images), result.shape[1]), np.float32)
        rows[done : done + len(result)] = result
        done += len(result)
        if progress:
            progress(f"features {feature.name}", done, len(images))
    assert rows is not None, "there is an image"
    return rows


def _small_blocks(images: Any) -> Iterator[np.ndarray]:
    for block in blocks(images):
        for start in range(0, len(block), 512):
            yield block[start : start + 512]
