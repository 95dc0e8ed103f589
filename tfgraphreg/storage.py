"""Files that appear whole or not at all, and names for cached results."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import glob
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfgraphreg.errors import DataError

# Lies beside a SavedModel and says what this project knows of it.
EXPORT_META = "tfgraphreg.json"

_UNWRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOENT,
    errno.ENAMETOOLONG,
}
_FULL = {errno.ENOSPC, errno.EDQUOT}

# What np.load raises of an archive that is damaged, or whose arrays claim impossible sizes.
UNREADABLE_NPZ = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    MemoryError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def cache_folder() -> pathlib.Path:
    """Where prepared data and other results that can be made again are kept.

    `$TFGRAPHREG_CACHE`, else `$XDG_CACHE_HOME/tfgraphreg`, else `~/.cache/tfgraphreg`.
    """
    own = os.environ.get("TFGRAPHREG_CACHE")
    if own:
        return pathlib.Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "tfgraphreg"


def fingerprint(parts: Any) -> str:
    """A hexadecimal name for a JSON-like value; equal values, equal names.

    Dataclasses count as dictionaries, NumPy arrays by shape, type and bytes.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(parts, sort_keys=True, default=_describe).encode())
    return digest.hexdigest()[:20]


def _describe(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, np.ndarray):
        content = hashlib.sha256(np.ascontiguousarray(value).view(np.uint8).data).hexdigest()
        return [list(value.shape), str(value.dtype), content]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def write_error(error: OSError, path: os.PathLike[str] | str) -> DataError | OSError:
    """An error that says what a failed write to `path` was, or `error` itself if unknown."""
    # NumPy tells of a write that was cut short without an error number.
    cut_short = error.errno is None and "requested and" in str(error)
    if error.errno in _FULL or cut_short:
        return DataError(
            f"The disk is full while writing {path}.",
            cure="Free some space or name another folder.",
        )
    if error.errno in _UNWRITABLE:
        return DataError(
            f"{path} cannot be written ({error.strerror}).",
            cure="Name a folder that you may write to.",
        )
    return error


@contextlib.contextmanager
def atomic_path(path: os.PathLike[str] | str) -> Iterator[pathlib.Path]:
    """Gives a temporary file name beside `path`, which replaces `path` when the block ends well.

    Raises:
        DataError: If the folder cannot be written or the disk is full; nothing is left behind.
    """
    path = pathlib.Path(path)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent
        )
        os.close(handle)
        part = pathlib.Path(name)
        yield part
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: os.PathLike[str] | str) -> Iterator[pathlib.Path]:
    """Gives a temporary folder beside `path`, which replaces `path` when the block ends well."""
    path = pathlib.Path(path)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = pathlib.Path(
            tempfile.mkdtemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
        )
        os.chmod(part, 0o777 & ~_umask())
        yield part
        if path.exists():
            old = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.old.", dir=path.parent))
            os.replace(path, old / "old")
            os.replace(part, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(part, path)
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        if part is not None and part.exists():
            shutil.rmtree(part, ignore_errors=True)


def remove_leftovers(path: os.PathLike[str] | str) -> None:
    """Removes what killed processes left of `path` beside it; nobody may be writing it now."""
    path = pathlib.Path(path)
    name = glob.escape(path.name[:100])
    for pattern in (f".{name}.*.part", f".{name}.old.*"):
        for left in path.parent.glob(pattern):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


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


def file_digest(path: os.PathLike[str] | str) -> str:
    """The SHA-256 digest of a file's content, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_text(path: os.PathLike[str] | str, text: str) -> None:
    """Writes `text` to `path` atomically, as UTF-8."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: os.PathLike[str] | str, value: Any) -> None:
    """Writes `value` as indented JSON to `path` atomically. NaN becomes null."""
    write_text(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return str(value)
    return value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
