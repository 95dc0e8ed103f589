"""Rows in files, which every worker can read by number.

Shapes: N rows in all, of any further shape.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.errors import DataError, first_line

_SHARD_BYTES = 32 << 20
_SHARD_ROWS = 8192


def shard_starts(rows: int, row_bytes: int) -> tuple[int, ...]:
    """First row of each shard, and N at the end: at most 32 MiB and 8192 rows in one."""
    size = max(1, min(_SHARD_ROWS, _SHARD_BYTES // max(1, row_bytes)))
    return (*range(0, rows, size), rows)


@dataclasses.dataclass(frozen=True)
class RowShards:
    """`[N, ...]` rows in `.npy` files; reads only what is asked for.

    Behaves like a read-only array with an index of row numbers, so that it can be the images of a
    `Split`. The files may be written in any order by any process, each whole or not at all.

    Attributes:
        folder: Where the files lie, at the same path for all workers.
        name: Of the files, without number.
        starts: See `shard_starts`.
        row_shape: The further shape.
        kind: Name of the element type.
    """

    folder: pathlib.Path
    name: str
    starts: tuple[int, ...]
    row_shape: tuple[int, ...]
    kind: str

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, *row_shape)`."""
        return (len(self), *self.row_shape)

    @property
    def dtype(self) -> np.dtype:
        """The element type."""
        return np.dtype(self.kind)

    @property
    def count(self) -> int:
        """The number of files."""
        return len(self.starts) - 1

    def bounds(self, shard: int) -> tuple[int, int]:
        """First row and last row + 1 of a file."""
        return self.starts[shard], self.starts[shard + 1]

    def write(self, shard: int, rows: np.ndarray) -> None:
        """Writes a file, or replaces it by the same.

        Raises:
            DataError: If the rows are not those of this shard, or the disk is full.
        """
        first, last = self.bounds(shard)
        expected = (last - first, *self.row_shape)
        if rows.shape != expected or rows.dtype != self.dtype:
            raise DataError(
                f"The rows of part {shard} do not fit.",
                received=f"{rows.shape} of {rows.dtype}, not {expected} of {self.dtype}",
            )
        with storage.atomic_path(self._path(shard)) as part, part.open("wb") as out:
            np.save(out, rows)

    def range(self, first: int, last: int) -> np.ndarray:
        """`[last - first, ...]` rows in order."""
        return self[np.arange(first, min(last, len(self)))]

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, (int, np.integer)):
            return self[np.array([index])][0]
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        index = np.asarray(index, np.int64)
        out = np.empty((len(index), *self.row_shape), self.dtype)
        shards = np.searchsorted(self.starts, index, side="right") - 1
        for shard in np.unique(shards):
            here = shards == shard
            out[here] = self._open(int(shard))[index[here] - self.starts[shard]]
        return out

    def _path(self, shard: int) -> pathlib.Path:
        return self.folder / f"{self.name}-{shard:05d}.npy"

    def _open(self, shard: int) -> np.ndarray:
        path = self._path(shard)
        try:
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(
                f"A worker cannot read {path} ({first_line(error)}).",
                cure="All workers must see the folder of `--out` at the same path.",
            ) from error
        first, last = self.bounds(shard)
        if rows.shape != (last - first, *self.row_shape) or rows.dtype != self.dtype:
            raise DataError(f"{path} does not hold the rows that it should.")
        return rows
