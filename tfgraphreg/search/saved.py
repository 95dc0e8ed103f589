"""An index in a folder: written whole or not at all, checked by digests before it is used."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfgraphreg.errors import ConfigError, DataError, first_line
from tfgraphreg.reading import read_json
from tfgraphreg.search.index import Index
from tfgraphreg.search.threshold import Calibration
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
_KNOWN = "known.npz"
# The first one had no digests. The third has a limit beyond which a query is unknown; without one
# the second is written, which earlier versions of this package read.
_FORMATS = (1, 2, 3)
_MAX_ITEMS = 100_000_000


def write_index(
    folder: pathlib.Path,
    index: Index,
    arrays: Mapping[str, np.ndarray],
    about: Mapping[str, Any],
    *,
    calibration: Calibration | None = None,
    limit: float = 0.0,
) -> None:
    """Writes an index, arrays with a row for each of its items, and plain values about it.

    Args:
        folder: Replaced if it exists.
        index: The index.
        arrays: By name, each with a row for each item.
        about: Plain values.
        calibration: By what a limit beyond which a query is unknown was set, or None.
        limit: The limit.

    Raises:
        DataError: If the folder cannot be written.
    """
    with atomic_folder(folder) as part:
        (part / _VECTORS).write_bytes(index.to_bytes())
        _save_arrays(part / _ITEMS, arrays)
        reject = {}
        if calibration is not None:
            _save_arrays(part / _KNOWN, calibration.arrays())
            reject = {"reject": calibration.about(limit)}
        meta = {
            **about,
            **reject,
            "format": 2 if calibration is None else 3,
            "dim": index.dim,
            "method": index.method,
            "distance": index.distance,
            "recall": index.recall,
            "items": len(index),
        }
        meta["digests"] = {name: file_digest(part / name) for name in _files(meta)}
        write_json(part / _META, {**meta, "digest": fingerprint(meta)})


def _save_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    rows: dict[str, Any] = dict(arrays)
    np.savez(path, **rows)


def _files(meta: Mapping[str, Any]) -> tuple[str, ...]:
    return (_VECTORS, _ITEMS, *([_KNOWN] if meta["format"] > 2 else []))


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


def model_fingerprint(folder: os.PathLike[str] | str) -> str:
    """A name for the content of a SavedModel: its graph and its weights.

    Raises:
        DataError: If there is no SavedModel in the folder.
    """
    folder = pathlib.Path(folder)
    if not (folder / "saved_model.pb").is_file():
        raise DataError(
            "An index belongs beside a SavedModel, and there is none.", received=str(folder)
        )
    digest = hashlib.sha256()
    for path in [folder / "saved_model.pb", *sorted((folder / "variables").glob("*"))]:
        digest.update(path.name.encode())
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()[:20]


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
        fits = fits and (meta["format"] == 3) == isinstance(meta.get("reject"), dict)
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
            found = {name: file_digest(at / name) for name in _files(meta)}
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


def read_calibration(
    folder: pathlib.Path, at: pathlib.Path, meta: dict[str, Any]
) -> tuple[Calibration, float] | None:
    """By what the limit of an index was set, and the limit; None of an index that has none.

    Args:
        folder: Its name, for messages.
        at: As for `read_index`, which must have been called before.
        meta: As for `read_index`.

    Raises:
        DataError: If the file is damaged.
    """
    if meta["format"] < 3:
        return None
    try:
        return Calibration.restore(meta["reject"], read_arrays(at / _KNOWN), meta["dim"])
    except (ValueError, TypeError) as error:
        raise damaged(folder, first_line(error)) from error


def has_limit(model_folder: os.PathLike[str] | str) -> bool:
    """Whether the index beside a model has a limit, as far as the names of its files tell."""
    return (pathlib.Path(model_folder) / FOLDER / _KNOWN).is_file()


def saved_ids(model_folder: os.PathLike[str] | str) -> list[str]:
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
