"""Loads tensorflow-datasets and prepares datasets with it, with readable errors."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import tempfile
import types
import urllib.parse
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from tfgraphreg.data import network
from tfgraphreg.errors import DataError, StackError, UnknownNameError, did_you_mean, first_line
from tfgraphreg.progress import Progress, silent
from tfgraphreg.storage import user_path

# A dataset's files come from few servers; asking this many of them is enough.
_MOST_HOSTS = 3


def default_folder() -> pathlib.Path:
    """Where tensorflow-datasets prepares if nobody names a folder."""
    return user_path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def load_tfds() -> types.ModuleType:
    """Returns tensorflow_datasets.

    Raises:
        StackError: If it is not installed or cannot be imported.
    """
    from tfgraphreg.compat import load_tensorflow

    load_tensorflow()
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise StackError(
            "This dataset needs the package tensorflow-datasets, which is not installed.",
            cure="Run: pip install tensorflow-datasets.",
        )
    import tensorflow_datasets as tfds

    # Newer tensorflow-metadata than protobuf allows leaves an empty shell of a module.
    if not hasattr(tfds, "builder"):
        raise StackError(
            "tensorflow-datasets is installed but cannot be imported whole.",
            cure="Run: pip check, and install what it names.",
        )
    return tfds


def make_builder(name: str, folder: os.PathLike[str] | str) -> Any:
    """`tfds.builder`, without the temporary folder that it leaves behind.

    Where nothing is prepared it makes one for what its server may know, and never removes it.
    """
    tfds = load_tfds()
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as removed:
        tempfile.tempdir = removed
        try:
            return tfds.builder(name, data_dir=str(folder))
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def reading(builder: Any) -> Iterator[None]:
    """Turns any error from reading prepared files into a DataError that names the folder."""
    from tfgraphreg.compat import tf

    folder = getattr(builder, "data_dir", builder.name)
    try:
        yield
    except (OSError, KeyError, EOFError, zlib.error, tf.errors.OpError) as error:
        raise DataError(
            f"{builder.name}, prepared by tensorflow-datasets in {folder}, cannot be read: "
            "its files are truncated or altered.",
            received=first_line(error),
            cure=f"Delete the folder {folder} and run again.",
        ) from error


def prepared_builder(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
    progress: Progress = silent,
) -> tuple[Any, str]:
    """A builder whose data is ready to be read, and in words where it came from.

    Args:
        name: A name of tensorflow-datasets, with the configuration: ``"voc/2007"``.
        data_dir: Where data is prepared, and where archives lie that must be fetched by hand.
        offline: Whether to leave the network alone.
        progress: Called with what is being done.

    Raises:
        UnknownNameError: If tensorflow-datasets has no such dataset.
        DataError: If the data is missing and cannot be downloaded.
    """
    tfds = load_tfds()
    named = [user_path(data_dir)] if data_dir is not None else []
    if named and not named[0].is_dir():
        raise DataError(
            "The data folder does not exist.",
            received=str(named[0]),
            cure="Name an existing folder with `data_dir`, or leave it out.",
        )
    folders = [*named, default_folder()]
    for folder in folders:
        builder = _builder(tfds, name, folder)
        if builder.is_prepared():
            return builder, f"tensorflow-datasets, prepared in {builder.data_dir}"
    builder = _builder(tfds, name, folders[0])
    by_hand = getattr(builder, "MANUAL_DOWNLOAD_INSTRUCTIONS", None) is not None
    if by_hand and not named:
        raise DataError(
            f"The archives of {name} must be fetched by hand.",
            received="no data folder",
            cure="Name the folder that holds them with `data_dir`. "
            + " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split()),
        )
    if not by_hand:
        _require_network(builder, name, folders, offline)
    progress(f"preparing {name} with tensorflow-datasets in {folders[0]}", 0, 0)
    prepare(builder, manual_dir=str(folders[0]) if by_hand else None)
    how = "archives in" if by_hand else "downloaded into"
    return builder, f"tensorflow-datasets, {how} {folders[0]}"


def _builder(tfds: Any, name: str, folder: pathlib.Path) -> Any:
    base = name.split("/")[0].split(":")[0]
    known = tfds.list_builders(with_community_datasets=False)
    if base not in known:
        raise UnknownNameError(
            "Unknown dataset of tensorflow-datasets.",
            received=repr(name),
            cure=did_you_mean(f"tfds:{base}", [f"tfds:{one}" for one in known]),
        )
    try:
        return make_builder(name, folder)
    # A version that it does not have is an AssertionError, an argument a TypeError.
    except (ValueError, KeyError, OSError, ImportError, AssertionError, TypeError) as error:
        raise DataError(
            f"tensorflow-datasets cannot make the dataset {name}.", received=first_line(error)
        ) from error


def _require_network(builder: Any, name: str, folders: Sequence[Any], offline: bool) -> None:
    tried = [f"not prepared in {' or '.join(map(str, dict.fromkeys(folders)))}"]
    if offline:
        tried.append("no download, because none was asked for")
    else:
        hosts = {urllib.parse.urlsplit(url).netloc: url for url in (builder.url_infos or {})}
        if not hosts or any(network.reachable(u) for u in list(hosts.values())[:_MOST_HOSTS]):
            return
        tried.append(f"no answer from {', '.join(list(hosts)[:_MOST_HOSTS])}")
    raise DataError(
        f"No source has the dataset {name}.",
        received="; ".join(tried),
        cure="Name a folder in which tensorflow-datasets has prepared it with `data_dir`, "
        "or connect to a network.",
    )


def prepare(builder: Any, *, manual_dir: str | None = None) -> None:
    """Downloads and prepares.

    Raises:
        DataError: If a download fails or does not have the recorded checksum.
    """
    tfds = load_tfds()
    config = tfds.download.DownloadConfig(manual_dir=manual_dir) if manual_dir else None
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # each server fails in its own way
        raise DataError(
            f"tensorflow-datasets could not prepare {builder.name}.",
            received=first_line(error),
            cure="Mend what it names, or try again later.",
        ) from error
