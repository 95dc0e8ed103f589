"""Loading tensorflow-datasets and preparing datasets with it, with errors in sentences."""

from __future__ import annotations

import importlib.util
import pathlib
import types
import zlib

from tfgraphreg.errors import DataError, StackError

# What reading prepared files can raise besides TensorFlow's own errors, which are added when
# it is loaded.
READ_ERRORS: tuple[type[BaseException], ...] = (OSError, ValueError, KeyError, EOFError, zlib.error)


def load_tfds() -> types.ModuleType:
    """Returns tensorflow_datasets.

    Raises:
        StackError: If it is not installed or cannot be imported.
    """
    global READ_ERRORS
    from tfgraphreg.compat import load_tensorflow

    tf = load_tensorflow()
    if tf.errors.OpError not in READ_ERRORS:
        READ_ERRORS = (*READ_ERRORS, tf.errors.OpError)
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


def prepare(name: str, folder: pathlib.Path) -> None:
    """Downloads and prepares the dataset `name` in `folder`.

    Raises:
        DataError: If a download fails or does not have the recorded checksum.
    """
    tfds = load_tfds()
    try:
        tfds.builder(name, data_dir=str(folder)).download_and_prepare()
    except Exception as error:  # a download fails in as many ways as there are servers
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"tensorflow-datasets could not prepare {name} in {folder}.",
            received=reason[:300],
            cure="Try again later, or name a folder with the original files.",
        ) from error
