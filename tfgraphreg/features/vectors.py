"""Vectors of the user's own, from a file: those of CLIP, DINO, KerasHub, a text tower.

Shapes: N images, M rows of the file, D width.
"""

from __future__ import annotations

import os
import pathlib
import zipfile
from collections.abc import Collection, Sequence

import numpy as np

from tfgraphreg.errors import DataError, did_you_mean, first_line
from tfgraphreg.reading import known_as
from tfgraphreg.storage import UNREADABLE_NPZ, read_arrays

SUFFIXES = (".npy", ".npz", ".parquet")
_MOST_BYTES = 64 << 30
_WIDEST = 1 << 16
_CURE = "Write vectors [N, D] and ids [N], for example np.savez(FILE, vectors=..., ids=...)."


def read_vectors(
    path: os.PathLike[str] | str, ids: Sequence[str] | np.ndarray, *, others: Collection[str] = ()
) -> np.ndarray:
    """The vectors of the images called `ids`.

    Args:
        path: ``.npy`` with `[N, D]` numbers in the order of `ids`; ``.npz`` with `vectors`
            `[M, D]` and, unless they are in the order of `ids`, `ids` `[M]` strings; or
            ``.parquet`` with a column `vector` of lists of D numbers and likewise a column `id`.
        ids: `[N]` ids of the images, each once.
        others: Ids of images that exist besides, whose rows are passed over.

    Returns:
        `[N, D]` float32, in the order of `ids`.

    Raises:
        DataError: If the file cannot be read, is not such a file, lacks an image, has one twice
            or one that nobody knows, or holds a number that is not finite.
    """
    path = pathlib.Path(path)
    check_vectors_file(path)
    try:
        vectors, names = _READERS[path.suffix](path)
    except UNREADABLE_NPZ as error:
        raise DataError(f"{path} cannot be read ({first_line(error)}).", cure=_CURE) from error
    _check_form(path, vectors, names)
    rows = _rows_in_order(path, len(vectors), names, ids, others)
    if rows is not None:
        vectors = vectors[rows]
    # What float32 cannot hold becomes infinite and is refused.
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(vectors, np.float32)
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise DataError(
            f"The vectors in {path} must be finite numbers.",
            received=f"NaN or infinity for {int(bad.sum())} images, the first is "
            f"{str(ids[int(np.argmax(bad))])[:120]!r}",
        )
    return vectors


def check_vectors_file(path: os.PathLike[str] | str) -> None:
    """Refuses a file that cannot hold vectors, without reading it.

    Raises:
        DataError: If it is none of `SUFFIXES`, or no file.
    """
    path = pathlib.Path(path)
    if path.suffix not in SUFFIXES:
        raise DataError(
            f"A file of vectors must end with one of {', '.join(SUFFIXES)}.",
            received=str(path)[:300],
            cure=_CURE,
        )
    if not path.is_file():
        raise DataError("The file of vectors does not exist.", received=str(path)[:300])


def _read_npy(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
    # A memory map checks the size that the header claims against that of the file.
    return np.load(path, mmap_mode="r", allow_pickle=False), None


def _read_npz(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
    with zipfile.ZipFile(path) as archive:
        _check_size(sum(member.file_size for member in archive.infolist()))
    arrays = read_arrays(path)
    if "vectors" not in arrays:
        raise ValueError(f"it has no array `vectors` but {', '.join(arrays)[:200]}")
    return arrays["vectors"], arrays.get("ids")


def _read_parquet(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        _check_size(sum(group.total_byte_size for group in groups))
        columns = file.schema_arrow.names
        if "vector" not in columns:
            raise ValueError(f"it has no column `vector` but {', '.join(columns)[:200]}")
        table = file.read([name for name in ("vector", "id") if name in columns])
        lists = table["vector"].combine_chunks()
        if lists.null_count or not hasattr(lists, "flatten"):
            raise ValueError("its column `vector` must be a list of numbers in every row")
        flat = lists.flatten()
        if flat.null_count or (len(table) and len(flat) % len(table)):
            raise ValueError("the lists in its column `vector` must have one length")
        width = len(flat) // max(len(table), 1)
        if not all(length == width for length in set(lists.value_lengths().to_pylist())):
            raise ValueError("the lists in its column `vector` must have one length")
        vectors = flat.to_numpy(zero_copy_only=False).reshape(len(table), width)
        names = table["id"].to_pylist() if "id" in columns else None
    except pyarrow.ArrowException as error:
        raise ValueError(first_line(error)) from error
    return vectors, None if names is None else np.asarray(names)


_READERS = {".npy": _read_npy, ".npz": _read_npz, ".parquet": _read_parquet}


def _check_size(size: int) -> None:
    if size > _MOST_BYTES:
        raise ValueError(f"it claims {size} bytes, more than {_MOST_BYTES}")


def _check_form(path: pathlib.Path, vectors: np.ndarray, names: np.ndarray | None) -> None:
    fits = vectors.ndim == 2 and 1 <= vectors.shape[1] <= _WIDEST
    if not fits or vectors.dtype.kind not in "fiu":
        raise DataError(
            f"The vectors in {path} must be numbers of the shape [N, D], D from 1 to {_WIDEST}.",
            received=f"shape={vectors.shape}, dtype={vectors.dtype}",
            cure=_CURE,
        )
    if names is not None and (names.shape != (len(vectors),) or names.dtype.kind != "U"):
        raise DataError(
            f"The ids in {path} must be one string for each vector.",
            received=f"shape={names.shape}, dtype={names.dtype}, {len(vectors)} vectors",
            cure=_CURE,
        )


def _rows_in_order(
    path: pathlib.Path,
    count: int,
    names: np.ndarray | None,
    ids: Sequence[str] | np.ndarray,
    others: Collection[str],
) -> np.ndarray | None:
    """`[N]` the row of each id, or None where the rows are in that order already."""
    if names is None:
        if count != len(ids):
            raise DataError(
                f"{path} has no ids, so its vectors must be those of the training images in "
                "their order.",
                received=f"{count} vectors, {len(ids)} training images",
                cure=_CURE,
            )
        return None
    wanted = [str(name) for name in ids]
    known = {*wanted, *map(str, others)}
    row: dict[str, int] = {}
    for place, name in enumerate(known_as(name, known) for name in names.tolist()):
        if row.setdefault(name, place) != place:
            raise DataError(f"{path} has two vectors for one image.", received=repr(name[:120]))
    missing = [name for name in wanted if name not in row]
    if missing:
        raise DataError(
            f"{path} lacks the vectors of {len(missing)} of {len(ids)} training images.",
            received=f"no vector of {missing[0][:120]!r}",
            cure=did_you_mean(missing[0], row),
        )
    unknown = set(row) - known
    if unknown:
        name = min(unknown)
        raise DataError(
            f"{path} has vectors of {len(unknown)} images that are not in this dataset.",
            received=repr(name[:120]),
            cure=did_you_mean(name, known),
        )
    return np.array([row[name] for name in wanted], np.int64)
