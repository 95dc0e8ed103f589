"""tensorflow-datasets as a source of a known dataset's original files.

tensorflow-datasets stores examples shuffled: sorted by the MD5 of (split name, key), the key
being the example's place in the original files. That order is undone here, the original files
are written again from the examples, and their digests prove that it was right.
"""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any

import numpy as np

from tfgraphreg.data import tfds_access
from tfgraphreg.data.known import KnownSet
from tfgraphreg.progress import Progress
from tfgraphreg.storage import user_path


def is_prepared(name: str, folder: pathlib.Path) -> bool:
    """Whether tensorflow-datasets has prepared `name` in `folder`; imports nothing."""
    return any(folder.glob(f"{name}/*/dataset_info.json"))


def original_places(split: str, count: int) -> np.ndarray:
    """`[count]` original places of a split's examples in the order in which they are stored."""
    salt = hashlib.md5(split.encode())
    keys = []
    for place in range(count):
        key = salt.copy()
        key.update(str(place).encode())
        keys.append(key.digest())
    return np.array(sorted(range(count), key=keys.__getitem__))


def read(known: KnownSet, folder: pathlib.Path) -> dict[str, bytes]:
    """The original files of a dataset that is prepared in `folder`.

    Raises:
        DataError: If it cannot be read or its content is altered.
    """
    tfds = tfds_access.load_tfds()
    builder = tfds_access.make_builder(known.name, folder)
    with tfds_access.reading(builder):
        splits = {s: _original_order(tfds, builder, s) for s in ("train", "test")}
    where = folder / known.name
    return known.files_of(splits, str(where), f"Delete the folder {where} and run again.")


def _original_order(tfds: Any, builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    config = tfds.ReadConfig(interleave_cycle_length=1)
    data = builder.as_dataset(split=split, read_config=config, shuffle_files=False, batch_size=1024)
    batches = [(b["image"], b["label"]) for b in tfds.as_numpy(data)]
    stored_images, stored_labels = (np.concatenate(part) for part in zip(*batches))
    places = original_places(split, len(stored_labels))
    images, labels = np.empty_like(stored_images), np.empty_like(stored_labels)
    images[places], labels[places] = stored_images, stored_labels
    return images, labels


def download(name: str, data_dir: Any, progress: Progress) -> pathlib.Path:
    """Downloads and prepares `name`; returns the folder in which it is prepared.

    Raises:
        DataError: If the download fails.
    """
    folder = user_path(data_dir) if data_dir else tfds_access.default_folder()
    progress(f"downloading {name} through tensorflow-datasets into {folder}", 0, 0)
    tfds_access.prepare(tfds_access.make_builder(name, folder))
    return folder
