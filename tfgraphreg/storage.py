"""Files that appear whole or not at all, and names for cached results."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import struct
import tempfile
import tokenize
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
    errno.ELOOP,
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
    OverflowError,
    AttributeError,
    SyntaxError,
    IndexError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)

_SEAL = b"tfgraphreg seal:"
# Random words of tempfile.mkstemp and mkdtemp.
_RANDOM = "[a-z0-9_]{8}"
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def cache_folder() -> pathlib.Path:
    """Where prepared data and other results that can be made again are kept.

    `$TFGRAPHREG_CACHE`, else `$XDG_CACHE_HOME/tfgraphreg`, else `~/.cache/tfgraphreg`.
    """
    own = os.environ.get("TFGRAPHREG_CACHE")
    if own:
        return pathlib.Path(own)
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "tfgraphreg"


def user_path(path: os.PathLike[str] | str) -> pathlib.Path:
    """A path that a person wrote, with `~` expanded. It need not exist.

    Raises:
        DataError: If no file can have this name: it holds a NUL character, is too long, leads in a
            circle of links, or begins with the home folder of an unknown user.
    """
    text = os.fspath(path)
    cure = "Write the whole path of the file or folder."
    shown = repr(text[:200])
    if "\0" in text:
        raise DataError("A path cannot hold a NUL character.", received=shown, cure=cure)
    try:
        expanded = pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise DataError("There is no such home folder.", received=shown, cure=cure) from error
    try:
        os.stat(expanded)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise DataError(
                f"This path cannot be used ({error.strerror}).", received=shown, cure=cure
            ) from error
    return expanded


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
            prefix=f".{_short(path.name)}.", suffix=".part", dir=path.parent
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
        path.parent.mkdir(parents=True, exist_ok=True)
        part = pathlib.Path(
            tempfile.mkdtemp(prefix=f".{_short(path.name)}.", suffix=".part", dir=path.parent)
        )
        os.chmod(part, 0o777 & ~_umask())
        yield part
        while not _put(part, path):
            pass  # Another process made or removed the folder in between.
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        if part is not None:
            _remove(part)


def _put(part: pathlib.Path, path: pathlib.Path) -> bool:
    """Moves a folder to a name; False if another process was quicker and it must be tried again."""
    try:
        if not os.path.lexists(path):
            os.replace(part, path)
        elif not _exchange(part, path):
            old = pathlib.Path(
                tempfile.mkdtemp(prefix=f".{_short(path.name)}.old.", dir=path.parent)
            )
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
            _lock_folder(handle, fcntl.LOCK_SH)
            # Replaced and removed before it was locked: there is another by now.
            if os.fstat(handle).st_nlink:
                yield pathlib.Path(f"/proc/self/fd/{handle}")
                return
        finally:
            os.close(handle)


def _lock_folder(handle: int, how: int) -> None:
    # Some network file systems have no locks. There a reader may find files gone.
    with contextlib.suppress(OSError):
        fcntl.flock(handle, how)


def _remove(path: pathlib.Path) -> None:
    """Removes a file or a folder; a folder once nobody is in `steady_folder` with it."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            _lock_folder(handle, fcntl.LOCK_EX)
            shutil.rmtree(path, ignore_errors=True)
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


def _short(name: str) -> str:
    """A name to which a temporary one can be added; it stays different from other names."""
    encoded = os.fsencode(name)
    if len(encoded) <= 200:
        return name
    return f"{name[:40]}-{hashlib.sha256(encoded).hexdigest()[:20]}"


def remove_leftovers(path: os.PathLike[str] | str) -> None:
    """Removes what killed processes left of `path` and its note; nobody may be writing it now."""
    path = pathlib.Path(path)
    names = "|".join(re.escape(_short(each.name)) for each in (path, _note_of(path)))
    _remove_parts(path.parent, names)


def remove_leftovers_in(folder: os.PathLike[str] | str) -> None:
    """Removes what killed processes left in a folder; nobody may be writing into it now."""
    _remove_parts(pathlib.Path(folder), ".+")


def _remove_parts(folder: pathlib.Path, names: str) -> None:
    pattern = re.compile(rf"\.({names})\.({_RANDOM}\.part|old\.{_RANDOM})")
    for left in folder.iterdir() if folder.is_dir() else ():
        if pattern.fullmatch(left.name):
            _remove(left)


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
def sealed_path(path: os.PathLike[str] | str) -> Iterator[pathlib.Path]:
    """As `atomic_path`; a digest of the name and the content is put at the end of the file.

    For caches, whose readers stop where their content ends: `numpy.load` does. `is_sealed` tells
    whether the file is still the one that was written, under the name that it was written to.
    """
    with atomic_path(path) as part:
        yield part
        digest = _seal_of(part, pathlib.Path(path).name, part.stat().st_size)
        with open(part, "ab") as file:
            file.write(_SEAL + digest)


def is_sealed(path: os.PathLike[str] | str) -> bool:
    """Whether `sealed_path` wrote this file and nothing has changed it since."""
    path = pathlib.Path(path)
    try:
        end = path.stat().st_size - len(_SEAL) - hashlib.sha256().digest_size
        with open(path, "rb") as file:
            file.seek(max(end, 0))
            found = file.read()
        return end >= 0 and found == _SEAL + _seal_of(path, path.name, end)
    except OSError:
        return False


def _seal_of(path: pathlib.Path, name: str, size: int) -> bytes:
    digest = hashlib.sha256(os.fsencode(name) + b"\0")
    with open(path, "rb") as file:
        while size > 0 and (block := file.read(min(1 << 20, size))):
            digest.update(block)
            size -= len(block)
    return digest.digest()


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


def write_json(path: os.PathLike[str] | str, value: Any, *, noted: bool = False) -> None:
    """Writes `value` as indented JSON to `path` atomically. NaN becomes null.

    With `noted` as `write_noted` does.
    """
    write = write_noted if noted else write_text
    write(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def write_noted(path: os.PathLike[str] | str, text: str) -> None:
    """As `write_text`; a hidden file beside it notes the digest, for `check_note`."""
    with noted_path(path) as part:
        part.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def noted_path(path: os.PathLike[str] | str) -> Iterator[pathlib.Path]:
    """As `atomic_path`; a hidden file beside it notes the digest, for `check_note`."""
    path, beside = pathlib.Path(path), _note_of(path)
    folder = None
    try:
        with atomic_path(path) as part:
            yield part
            folder = os.open(path.parent, os.O_RDONLY)
            # Of two writers at once, note and file must be of the same one.
            fcntl.flock(folder, fcntl.LOCK_EX)
            accepted = [file_digest(part)]
            # Killed between the two writes, the earlier content stays valid.
            if beside.exists() and path.exists():
                accepted.append(file_digest(path))
            write_text(beside, "\n".join(accepted) + "\n")
    finally:
        if folder is not None:
            os.close(folder)


def check_note(path: os.PathLike[str] | str) -> None:
    """Refuses a file that has changed since `noted_path` wrote it; one without a note passes.

    Raises:
        ValueError: If it has.
    """
    beside = _note_of(path)
    if not beside.exists():
        return
    if file_digest(path) not in beside.read_text(encoding="utf-8", errors="replace").split():
        raise ValueError(
            f"it is not as it was written; if it was changed on purpose, delete {beside.name} "
            "beside it"
        )


def _note_of(path: os.PathLike[str] | str) -> pathlib.Path:
    path = pathlib.Path(path)
    return path.with_name(f".{path.name}.sha256")


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
