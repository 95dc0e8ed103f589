"""Paths that a user names, and single files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

from tfgraphreg.errors import DataError
from tfgraphreg.leftovers import part_of

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


def write_error(error: OSError, path: os.PathLike[str] | str) -> DataError | OSError:
    """An error that says what a failed write to `path` was, or `error` itself if unknown."""
    # NumPy reports a short write without an error number.
    short = error.errno is None and "requested and" in str(error)
    if error.errno in _FULL or short:
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
    try:
        with part_of(path, folder=False) as part:
            try:
                yield part
                os.chmod(part, 0o666 & ~umask())
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(error, path) from error


def write_text(path: os.PathLike[str] | str, text: str) -> None:
    """Writes `text` to `path` atomically, as UTF-8."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def umask() -> int:
    """The process's mask of file permissions."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
