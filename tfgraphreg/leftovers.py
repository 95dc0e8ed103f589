"""Temporary files and folders: their names, who writes them, and what killed processes left.

Whoever writes one holds a lock on it, which the system releases when the process dies. So anybody
may clear leftovers at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

# Random words of tempfile.mkstemp and mkdtemp.
_RANDOM = "[a-z0-9_]{8}"


@contextlib.contextmanager
def part_of(path: pathlib.Path, *, folder: bool) -> Iterator[pathlib.Path]:
    """A new temporary file or folder beside `path`, which is not a leftover in the block.

    Makes the folder of `path`, and removes leftovers of `path`.

    Raises:
        OSError: If it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name)
    part, handle = _new(path, folder)
    # Another process may take it for a leftover before it is held.
    while not _held(handle):
        os.close(handle)
        part, handle = _new(path, folder)
    try:
        yield part
    finally:
        os.close(handle)


def _new(path: pathlib.Path, folder: bool) -> tuple[pathlib.Path, int]:
    prefix, suffix = f".{_short(path.name)}.", ".part"
    if not folder:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=path.parent)
        return pathlib.Path(name), handle
    while True:
        name = tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=path.parent)
        with contextlib.suppress(FileNotFoundError):  # As above.
            return pathlib.Path(name), os.open(name, os.O_RDONLY | os.O_DIRECTORY)


def _held(handle: int) -> bool:
    """Holds a file or folder; False if it was removed before."""
    lock(handle, fcntl.LOCK_SH)
    return os.fstat(handle).st_nlink > 0


def old_of(path: pathlib.Path) -> pathlib.Path:
    """A new folder beside `path` for what stood there, where names cannot be exchanged."""
    return pathlib.Path(tempfile.mkdtemp(prefix=f".{_short(path.name)}.old.", dir=path.parent))


def _short(name: str) -> str:
    """A name short enough for the affixes of a temporary one; distinct names stay distinct."""
    encoded = os.fsencode(name)
    if len(encoded) <= 200:
        return name
    return f"{name[:40]}-{hashlib.sha256(encoded).hexdigest()[:20]}"


def is_part(folder: pathlib.Path) -> bool:
    """Whether a folder has the name of a temporary one, in which a single process writes."""
    return re.fullmatch(rf"\..+\.{_RANDOM}\.part", folder.name) is not None


def remove_leftovers(folder: pathlib.Path, *names: str) -> None:
    """Removes what killed processes left in a folder: of these names, or of any if none is given.

    What a living process writes stays.
    """
    words = "|".join(re.escape(_short(name)) for name in names) or ".+"
    pattern = re.compile(rf"\.({words})\.({_RANDOM}\.part|old\.{_RANDOM})")
    for left in folder.iterdir() if folder.is_dir() else ():
        if pattern.fullmatch(left.name):
            remove(left, wait=False)


def remove(path: pathlib.Path, *, wait: bool) -> None:
    """Removes a file or folder once nobody holds it; without `wait`, leaves one that is held.

    Held is what is being written, and a folder in `storage.steady_folder`.
    """
    try:
        # A pipe would be waited for.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # A link, or what this user may not read.
        with contextlib.suppress(OSError):
            path.unlink()
        return
    try:
        lock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)


@contextlib.contextmanager
def lock_folder(folder: pathlib.Path) -> Iterator[None]:
    """Keeps other processes that ask for the same out of a folder meanwhile; leaves no file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def lock(handle: int, how: int) -> None:
    """`flock` on what is open, or nothing on a file system without locks.

    Raises:
        BlockingIOError: If another process holds it and `how` says not to wait.
    """
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        raise
    except OSError:
        pass  # Some network file systems. There a reader may find files gone.
