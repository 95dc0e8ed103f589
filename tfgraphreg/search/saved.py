"""An index in a folder: written whole or not at all, checked by digests before it is used."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfgraphreg.errors import ConfigError, DataError, first_line
from tfgraphreg.reading import read_json
from tfgraphreg.search.index import Index
from tfgraphreg.storage import (
    UNREADABLE_NPZ,
    atomic_folder,
    file_digest,
    fingerprint,
    read_arrays,
    steady_folder,
    write_json,
)

FOLDER = "search"
_VECTORS, _ITEMS, _META = "index.faiss", "items.npz", "meta.json"
# The first one had no digests.
_FORMATS = (1, 2)
_MAX_ITEMS = 100_000_000


def write_index(
    folder: pathlib.Path, index: Index, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]
) -> None:
    """Writes an index, arrays with a row for each of its items, and plain values about it.

    Raises:
        DataError: If the folder cannot be written.
    """
    with atomic_folder(folder) as part:
        (part / _VECTORS).write_bytes(index.to_bytes())
        rows: dict[str, Any] = dict(arrays)
        np.savez(part / _ITEMS, **rows)
        meta = {
            **about,
            "format": _FORMATS[-1],
            "dim": index.dim,
            "method": index.method,
            "distance": index.distance,
            "recall": index.recall,
            "items": len(index),
            "digests": {name: file_digest(part / name) for name in (_VECTORS, _ITEMS)},
        }
        write_json(part / _META, {**meta, "digest": fingerprint(meta)})


@contextlib.contextmanager
def steady_index(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to an index that stays whole in the block, though another replaces it.

    Of an index that is not there, its own path.
    """
    with contextlib.ExitStack() as stack:
        at = folder
        with contextlib.suppress(OSError):
            at = stack.enter_context(steady_folder(folder))
        yield at


def read_meta(folder: pathlib.Path, at: pathlib.Path) -> dict[str, Any]:
    """The description of an index, not yet compared with its digest.

    Args:
        folder: Its name, for messages.
        at: Where it is read, in `steady_index`.

    Raises:
        DataError: If there is no index, or this cannot be read.
    """
    path = at / _META
    if not path.is_file():
        raise DataError(
            "There is no search index beside this model.",
            received=str(folder),
            cure="Build one: tfgraphreg search --run RUN --rebuild.",
        )
    try:
        meta = read_json(path)
        kinds = {"dim": int, "items": int, "model": str, "method": str, "distance": str}
        fits = all(isinstance(meta[name], kind) for name, kind in kinds.items())
        fits = fits and isinstance(meta["recall"], (int, float)) and meta["format"] in _FORMATS
        fits = fits and 0 <= meta["items"] <= _MAX_ITEMS
        # Without this, removing the digests would make it pass for an older index.
        fits = fits and (meta["format"] == 1) == ("digest" not in meta)
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(folder, "meta.json cannot be read") from error
    if not fits:
        raise damaged(folder, "meta.json has values that cannot be")
    return meta


def read_index(
    folder: pathlib.Path, at: pathlib.Path, meta: dict[str, Any]
) -> tuple[Index, dict[str, np.ndarray]]:
    """The index and the arrays that `write_index` wrote.

    Args:
        folder: Its name, for messages.
        at: Where it is read, in the `steady_index` that `read_meta` was called in.
        meta: What `read_meta` gave for it.

    Raises:
        DataError: If a file is missing or is not the one that was written.
    """
    try:
        if meta["format"] > 1:
            plain = {name: value for name, value in meta.items() if name != "digest"}
            found = {name: file_digest(at / name) for name in (_VECTORS, _ITEMS)}
            if meta["digest"] != fingerprint(plain) or meta["digests"] != found:
                raise ValueError("its files do not fit together")
        index = Index(meta["dim"], method=meta["method"], distance=meta["distance"])
        index.read_bytes((at / _VECTORS).read_bytes())
        index.recall = float(meta["recall"])
        arrays = read_arrays(at / _ITEMS)
    except (*UNREADABLE_NPZ, ConfigError) as error:
        raise damaged(folder, first_line(error)) from error
    if {len(index), meta["items"], *(len(rows) for rows in arrays.values())} != {len(index)}:
        raise damaged(folder, "its files do not fit together")
    return index, arrays


def saved_ids(model_folder: pathlib.Path | str) -> list[str]:
    """The ids in the index beside a model, even if the index belongs to another model.

    Raises:
        DataError: If they cannot be read.
    """
    folder = pathlib.Path(model_folder) / FOLDER
    try:
        return [str(identity) for identity in read_arrays(folder / _ITEMS, "ids")["ids"]]
    except (TypeError, ValueError) as error:
        raise damaged(folder, first_line(error)) from error


def damaged(folder: pathlib.Path, why: str) -> DataError:
    """The error of an index that cannot be used."""
    return DataError(
        "The search index is damaged.",
        received=f"{folder}: {why}",
        cure="Build it again: tfgraphreg search --run RUN --rebuild.",
    )
