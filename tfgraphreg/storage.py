"""Files and folders that appear whole or not at all: the one door to what is kept on disk.

`paths` writes single files and `integrity` recognizes them; callers import both from here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import json
import os
import pathlib
import shutil
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfgraphreg import leftovers
from tfgraphreg.errors import first_line
from tfgraphreg.integrity import (
    check_note,
    file_digest,
    fingerprint,
    is_sealed,
    note_of,
    noted_path,
    sealed_path,
    write_noted,
)
from tfgraphreg.leftovers import lock_folder
from tfgraphreg.paths import (
    atomic_path,
    cache_folder,
    umask,
    user_path,
    write_error,
    write_text,
)

__all__ = [
    "EXPORT_META",
    "UNREADABLE_NPZ",
    "atomic_folder",
    "atomic_path",
    "cache_folder",
    "check_note",
    "file_digest",
    "fingerprint",
    "is_sealed",
    "lock",
    "lock_folder",
    "noted_path",
    "one_writer",
    "plain",
    "read_arrays",
    "remove_leftovers",
    "remove_leftovers_in",
    "scratch_folder",
    "sealed_path",
    "steady_folder",
    "user_path",
    "write_error",
    "write_json",
    "write_noted",
    "write_text",
]

# Lies beside a SavedModel and says what this project knows of it.
EXPORT_META = "tfgraphreg.json"

# What np.load raises of an archive that is damaged, or whose arrays claim impossible sizes.
UNREADABLE_NPZ = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    MemoryError,
    RuntimeError,
    OverflowError,
    AttributeError,
    SyntaxError,
    IndexError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@contextlib.contextmanager
def atomic_folder(path: os.PathLike[str] | str) -> Iterator[pathlib.Path]:
    """Gives a temporary folder beside `path`, which replaces `path` when the block ends well.

    On Linux the two folders change places in one step, so that a reader, and a process killed at
    any moment, finds the old folder or the new one under the name. Where the file system cannot do
    that, the name is missing for a moment.

    Raises:
        DataError: If the folder cannot be written or the disk is full; nothing is left behind.
    """
    path = pathlib.Path(path)
    part = None
    try:
        with leftovers.part_of(path, folder=True) as part:
            os.chmod(part, 0o777 & ~umask())
            yield part
            while not _put(part, path):
                pass  # Another process made or removed the folder in between.
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        if part is not None:
            leftovers.remove(part, wait=True)


@contextlib.contextmanager
def scratch_folder(path: os.PathLike[str] | str) -> Iterator[pathlib.Path]:
    """Gives a temporary folder beside `path`, which is gone after the block.

    What killed processes left of earlier ones is cleared away first.

    Raises:
        DataError: If it cannot be written or the disk is full.
    """
    path = pathlib.Path(path)
    part = None
    remove_leftovers(path)
    try:
        with leftovers.part_of(path, folder=True) as part:
            yield part
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        if part is not None:
            leftovers.remove(part, wait=False)


def _put(part: pathlib.Path, path: pathlib.Path) -> bool:
    """Moves a folder to a name; False if another process was quicker and it must be tried again."""
    try:
        if not os.path.lexists(path):
            os.replace(part, path)
        elif not _exchange(part, path):
            old = leftovers.old_of(path)
            os.replace(path, old / "old")
            os.replace(part, path)
            shutil.rmtree(old, ignore_errors=True)
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise


@contextlib.contextmanager
def steady_folder(path: os.PathLike[str] | str) -> Iterator[pathlib.Path]:
    """Gives a path to a folder that stays whole in the block, though `atomic_folder` replaces it.

    The folder is held by its handle, and who replaced it waits for readers before removing it.

    Raises:
        OSError: If there is no such folder.
    """
    if not pathlib.Path("/proc/self/fd").is_dir():
        yield pathlib.Path(path)
        return
    while True:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            leftovers.lock(handle, fcntl.LOCK_SH)
            # Replaced and removed before it was locked: there is another by now.
            if os.fstat(handle).st_nlink:
                yield pathlib.Path(f"/proc/self/fd/{handle}")
                return
        finally:
            os.close(handle)


def _exchange(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Lets two paths change places in one step; False where the system cannot."""
    rename = _renameat2()
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    return rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0


@functools.cache
def _renameat2() -> Any:
    try:
        found = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # Not Linux, or a C library from before 2018.
        return None
    found.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return found


def remove_leftovers(path: os.PathLike[str] | str) -> None:
    """Removes what killed processes left of `path` and its note, not what a living one writes."""
    path = pathlib.Path(path)
    leftovers.remove_leftovers(path.parent, path.name, note_of(path).name)


def remove_leftovers_in(folder: os.PathLike[str] | str) -> None:
    """Removes what killed processes left in a folder, not what a living one writes."""
    leftovers.remove_leftovers(pathlib.Path(folder))


@contextlib.contextmanager
def lock(path: os.PathLike[str] | str, *, wait: bool) -> Iterator[None]:
    """Keeps other processes out of the block; the system lets go when this one dies.

    Args:
        path: A file of no content, made if it is not there.
        wait: Whether to wait for a process that is in its block.

    Raises:
        BlockingIOError: If there is one and `wait` is false.
        DataError: If the file cannot be made.
    """
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise write_error(error, path) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def one_writer(
    lock_path: os.PathLike[str] | str, *paths: os.PathLike[str] | str, wait: bool = True
) -> Iterator[None]:
    """As `lock`, for who writes `paths`; what killed processes left of them is cleared away.

    Args:
        lock_path: See `lock`.
        *paths: Files and folders that only the holder of the lock writes.
        wait: See `lock`.

    Raises:
        BlockingIOError: As `lock`.
        DataError: As `lock`.
    """
    with lock(lock_path, wait=wait):
        for path in paths:
            remove_leftovers(path)
        yield


def read_arrays(path: os.PathLike[str] | str, *names: str) -> dict[str, np.ndarray]:
    """The arrays of an npz file: those named, or all.

    Raises:
        ValueError: If it cannot be read, lacks one, or holds under its name what is no array.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names or file.files}
    except UNREADABLE_NPZ as error:
        raise ValueError(first_line(error)) from error
    for name, array in arrays.items():
        # NumPy gives the bytes of a member that does not begin as an array does.
        if not isinstance(array, np.ndarray):
            raise ValueError(f"its `{name}` is no array")
    return arrays


def write_json(path: os.PathLike[str] | str, value: Any, *, noted: bool = False) -> None:
    """Writes `value` as indented JSON to `path` atomically. NaN becomes null.

    With `noted` as `write_noted` does.
    """
    write = write_noted if noted else write_text
    write(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """A value as JSON holds it: arrays are lists, paths text, NaN null, and keys text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return str(value)
    return value
