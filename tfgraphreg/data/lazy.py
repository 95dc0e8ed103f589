"""Images that are read when they are asked for, so that a split need not fit in memory."""

from __future__ import annotations

import abc
import concurrent.futures
import functools
import os
import pathlib
import shutil
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfgraphreg.data.decoding import BadImage, decode_image
from tfgraphreg.errors import DataError, first_line
from tfgraphreg.progress import Progress, silent
from tfgraphreg.storage import UNREADABLE_NPZ, atomic_path

# The CRC-32 of a row of pixels, seeded with that of the file's name, so that a swapped file is
# refused too.
_CHECK = np.dtype("<u4")
# Images that are decoded or written at a time when all of them are processed.
_CHUNK = 512


@functools.cache
def workers() -> concurrent.futures.ThreadPoolExecutor:
    """The threads that decode images. Decoders release Python's lock, so threads are enough."""
    count = min(32, (os.cpu_count() or 1) + 2)
    return concurrent.futures.ThreadPoolExecutor(count, thread_name_prefix="decode")


class LazyImages(abc.ABC):
    """`[N, height, width, channels]` uint8 images that behave like a read-only NumPy array.

    `images[7]` is one image; `images[2:5]`, `images[[4, 1]]` and a boolean mask give arrays.
    `take_rows` chooses rows without reading them. `numpy.asarray(images)` reads everything.

    Attributes:
        shape: `(N, height, width, channels)`.
        dtype: uint8.
        rows: `[N]` int64: which row of the underlying store each image is.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, image_shape: tuple[int, int, int], rows: np.ndarray):
        self.rows = np.asarray(rows, np.int64)
        self.shape = (len(self.rows), *image_shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, (int, np.integer)):
            return self._read(self.rows[[int(index)]])[0]
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.size == 0:
                index = index.astype(np.int64)
        return self._read(self.rows[index])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Lazy images cannot become an array without being read.")
        out = np.empty(self.shape, np.uint8)
        for start in range(0, len(self), _CHUNK):
            out[start : start + _CHUNK] = self[start : start + _CHUNK]
        return out if dtype is None else out.astype(dtype)

    @property
    def nbytes(self) -> int:
        """Bytes that all the images take once they are read."""
        return int(np.prod(self.shape))

    @abc.abstractmethod
    def _read(self, rows: np.ndarray) -> np.ndarray:
        """`[n, height, width, channels]` images at rows of the store."""

    @abc.abstractmethod
    def take_rows(self, indices: np.ndarray) -> LazyImages:
        """The images at `indices`, still unread."""

    def cache_to(
        self, path: os.PathLike[str] | str, *, progress: Progress = silent
    ) -> StoredImages:
        """Writes all images to a .npy file, or finds them there, and returns them lazily.

        The file appears whole or not at all, and one that is no longer of the right length or shape
        is written again. Only one chunk is in memory at a time.

        Raises:
            DataError: If the disk is too small or not writable, or an image cannot be decoded.
        """
        path = pathlib.Path(path)
        stored = stored_images(path, self.shape)
        if stored is None:
            chunks = (self[i : i + _CHUNK] for i in range(0, len(self), _CHUNK))
            store_images(path, self.shape, chunks, progress=progress)
            stored = StoredImages(path)
        return stored


class DecodedImages(LazyImages):
    """Images that are decoded in parallel threads and resized whenever they are asked for."""

    @abc.abstractmethod
    def _decode(self, row: int) -> np.ndarray:
        """`[height, width, channels]` image at a row of the store. DataError if it has changed."""

    def _read(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def fill(place: int) -> None:
            out[place] = self._decode(int(rows[place]))

        for _ in workers().map(fill, range(len(rows))):
            pass
        return out


class FileImages(DecodedImages):
    """Image files.

    Args:
        paths: `[N]` files.
        size: `(height, width)`.
        channels: 1 or 3.
    """

    def __init__(
        self,
        paths: Sequence[str] | np.ndarray,
        size: tuple[int, int],
        channels: int,
        *,
        rows: np.ndarray | None = None,
    ):
        self._paths = np.asarray(paths)
        super().__init__((*size, channels), np.arange(len(paths)) if rows is None else rows)

    def _decode(self, row: int) -> np.ndarray:
        path = str(self._paths[row])
        try:
            return decode_image(path, self.shape[1:3], self.shape[3])
        except BadImage as error:
            raise DataError(
                f"The image {path} {error}.",
                cure="It has changed since the check at the start: run again.",
            ) from error

    def take_rows(self, indices: np.ndarray) -> FileImages:
        """The images at `indices`, still unread."""
        size, channels = self.shape[1:3], self.shape[3]
        return FileImages(self._paths, size, channels, rows=self.rows[indices])


class StoredImages(LazyImages):
    """Images that `store_images` wrote: a .npy file with a check number a row behind the pixels.

    Rows are read with ordinary file reads and not through a memory map, whose touched pages
    would count as this process's memory. A row that is not as it was written is refused when it is
    read, which costs a tenth of a second a gigabyte.

    Raises:
        DataError: If the file cannot be read, or is not as long as its header says.
    """

    def __init__(self, path: os.PathLike[str] | str, *, rows: np.ndarray | None = None):
        self.path = pathlib.Path(path)
        try:
            mapped = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except UNREADABLE_NPZ as error:
            raise DataError(
                f"The file of images {self.path} cannot be read.",
                received=first_line(error),
                cure="Delete it and run again.",
            ) from error
        if mapped.dtype != np.uint8 or mapped.ndim != 4 or not mapped.flags.c_contiguous:
            raise DataError(
                f"{self.path} does not hold images.",
                received=f"{mapped.dtype} of shape {mapped.shape}",
                cure="Delete it and run again.",
            )
        self._start = mapped.offset
        end = self._start + mapped.nbytes
        if self.path.stat().st_size != end + _CHECK.itemsize * len(mapped):
            raise self._damaged()
        self._checks = np.fromfile(self.path, _CHECK, offset=end)
        self._seed = zlib.crc32(os.fsencode(self.path.name))
        self._file = open(self.path, "rb")  # noqa: SIM115, it lives as long as this object
        super().__init__(mapped.shape[1:], np.arange(len(mapped)) if rows is None else rows)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        if len(rows) == 0:
            return out
        size = int(np.prod(self.shape[1:]))
        # Neighboring rows are read together.
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        ends = np.append(starts[1:], len(rows))
        flat = out.data.cast("B")
        for start, end in zip(starts.tolist(), ends.tolist()):
            part = flat[start * size : end * size]
            if self._pread_into(part, self._start + int(rows[start]) * size) != len(part):
                raise self._damaged()
        for place, row in enumerate(rows.tolist()):
            content = flat[place * size : (place + 1) * size]
            if zlib.crc32(content, self._seed) != self._checks[row]:
                raise self._damaged()
        return out

    def _damaged(self) -> DataError:
        return DataError(
            f"The file of images {self.path} is not as it was written.",
            cure="Delete it and run again.",
        )

    def _pread_into(self, part: memoryview, offset: int) -> int:
        done = 0
        while done < len(part):
            got = os.preadv(self._file.fileno(), [part[done:]], offset + done)
            if got == 0:
                break
            done += got
        return done

    def take_rows(self, indices: np.ndarray) -> StoredImages:
        """The images at `indices`, still unread."""
        return StoredImages(self.path, rows=self.rows[indices])


def stored_images(
    path: os.PathLike[str] | str, shape: tuple[int, int, int, int]
) -> StoredImages | None:
    """The images in a cache file; None if it is missing, cut, or of another shape."""
    if not pathlib.Path(path).is_file():
        return None
    try:
        stored = StoredImages(path)
    except DataError:
        return None
    return stored if stored.shape == tuple(shape) else None


def store_images(
    path: os.PathLike[str] | str,
    shape: tuple[int, int, int, int],
    chunks: Iterable[np.ndarray],
    *,
    progress: Progress = silent,
) -> None:
    """Writes chunks of images to one .npy file, which appears whole or not at all.

    Args:
        path: The file.
        shape: `(N, height, width, channels)` of all chunks together.
        chunks: uint8 arrays `[n, height, width, channels]`.
        progress: Called after every chunk.

    Raises:
        DataError: If the disk is too small or not writable, or the chunks do not add up.
    """
    path = pathlib.Path(path)
    needed = int(np.prod(shape))
    seed, checks = zlib.crc32(os.fsencode(path.name)), []
    with atomic_path(path) as part:
        free = shutil.disk_usage(part.parent).free
        if free < needed + 2**20:
            raise DataError(
                f"The disk is too small for the images in {path}.",
                received=f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free",
                cure="Free some space, name another cache folder or choose smaller images.",
            )
        done = 0
        with open(part, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))}
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in chunks:
                if chunk.shape[1:] != tuple(shape[1:]) or chunk.dtype != np.uint8:
                    raise DataError(
                        f"A chunk of images for {path} has the wrong shape or type.",
                        received=f"{chunk.dtype} {chunk.shape}",
                    )
                file.write(np.ascontiguousarray(chunk).data)
                checks += [zlib.crc32(row.tobytes(), seed) for row in chunk]
                done += len(chunk)
                progress("writing images", done, shape[0])
            file.write(np.array(checks, _CHECK).tobytes())
        if done != shape[0]:
            raise DataError(
                f"The images for {path} did not all come.", received=f"{done} of {shape[0]}"
            )
