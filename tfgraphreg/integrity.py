"""Whether a value or a file is still the one that it was: fingerprints, seals and notes."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tfgraphreg.leftovers import is_part, lock_folder
from tfgraphreg.paths import atomic_path, write_text
from tfgraphreg.reading import NotOrdinaryError, open_ordinary

_SEAL = b"tfgraphreg seal:"
_LONGEST_NOTE = 4096  # bytes; two digests take 130


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


def write_noted(path: os.PathLike[str] | str, text: str) -> None:
    """As `write_text`; a hidden file beside it notes the digest, for `check_note`."""
    with noted_path(path) as part:
        part.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def noted_path(path: os.PathLike[str] | str) -> Iterator[pathlib.Path]:
    """As `atomic_path`; a hidden file beside it notes the digest, for `check_note`."""
    path, beside = pathlib.Path(path), note_of(path)
    with contextlib.ExitStack() as alone, atomic_path(path) as part:
        yield part
        # Of two writers at once, note and file must be of the same one. In a temporary folder there
        # is one writer, who holds it.
        if not is_part(path.parent):
            alone.enter_context(lock_folder(path.parent))
        accepted = [file_digest(part)]
        # Killed between the two writes, the earlier content stays valid.
        if path.exists():
            accepted.append(file_digest(path))
        write_text(beside, "\n".join(accepted) + "\n")


def check_note(path: os.PathLike[str] | str) -> None:
    """Refuses a file that has changed since `noted_path` wrote it; one without a note passes.

    Raises:
        ValueError: If it has, or if its note cannot be read.
    """
    before = _note(path)
    while before is not None:
        if file_digest(path) in before.text.split():
            return
        # Another process may have written both since: then the two were never of one time.
        after = _note(path)
        if after == before:
            raise ValueError(
                "it is not as it was written; if it was changed on purpose, delete "
                f"{note_of(path).name} beside it"
            )
        before = after


class _Note(NamedTuple):
    """What a note says, and which of the files of this name it was."""

    text: str
    inode: int
    changed: int


def _note(path: os.PathLike[str] | str) -> _Note | None:
    """The note of `path`; none where it has none."""
    beside = note_of(path)
    try:
        with open_ordinary(beside) as file:
            status = os.fstat(file.fileno())
            text = file.read(_LONGEST_NOTE).decode("ascii", "replace")
    except FileNotFoundError:
        return None
    except NotOrdinaryError as error:
        raise ValueError(f"{beside.name} beside it is no ordinary file") from error
    except OSError as error:
        raise ValueError(f"{beside.name} beside it cannot be read ({error.strerror})") from error
    return _Note(text, status.st_ino, status.st_mtime_ns)


def note_of(path: os.PathLike[str] | str) -> pathlib.Path:
    """The hidden file that notes the digest of `path`."""
    path = pathlib.Path(path)
    return path.with_name(f".{path.name}.sha256")
