"""Image datasets of tensorflow-datasets, by any name that it knows.

Images stream through tf.data, decoded and resized in parallel, either into memory or, if they
are large together, into one file on disk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfgraphreg.data import tfds_access, tfds_features
from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.data.folder import IN_MEMORY_BYTES, TEST_FRACTION
from tfgraphreg.data.lazy import StoredImages, store_images, stored_images
from tfgraphreg.data.options import LoadOptions
from tfgraphreg.data.splits import divide
from tfgraphreg.data.tfds_features import LabelReader
from tfgraphreg.errors import DataError
from tfgraphreg.storage import fingerprint, is_sealed, sealed_path

# The side to which images of different sizes are resized if nobody says otherwise.
DEFAULT_SIZE = 224
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class TfdsSet:
    """How a dataset of tensorflow-datasets is used here.

    Attributes:
        name: Here.
        tfds_name: There, with the configuration: ``"voc/2007"``.
        train: Splits that are trained on; all that are not are left alone.
        test: The split for the test; None to take ``test``, else ``validation``, else a seeded
            fifth of the training images.
        labels: Reads the labels of an example; None to find out from the features.
    """

    name: str
    tfds_name: str
    train: tuple[str, ...] = ("train",)
    test: str | None = None
    labels: Callable[[dict], LabelReader] | None = None


def load_tfds_images(known: TfdsSet, options: LoadOptions) -> Dataset:
    """Loads a dataset through tensorflow-datasets.

    Prepared data is looked for in `options.data_dir`, then in tensorflow-datasets' default
    folder; otherwise it is downloaded and prepared, with archives that must be fetched by hand
    taken from `options.data_dir`.

    Raises:
        UnknownNameError: If tensorflow-datasets does not know the name.
        DataError: If the data cannot be brought, read, or has no images with class labels.
    """
    builder, source = tfds_access.prepared_builder(
        known.tfds_name,
        data_dir=options.data_dir,
        offline=options.offline,
        progress=options.progress,
    )
    features = builder.info.features
    shape = _image_shape(features, options)
    reader = (known.labels or tfds_features.find_labels)(features)
    test_name = known.test or _test_split(builder)
    train = _read(known, builder, "+".join(known.train), "train", shape, reader, options)
    if test_name:
        test = _read(known, builder, test_name, "test", shape, reader, options)
    else:
        train, test = divide(train, TEST_FRACTION, seed=options.seed)
    notes: tuple[str, ...] = ()
    if shape[:2] != tuple(features["image"].shape[:2]) and options.image_size is None:
        notes = (f"Images are resized to {shape[0]} x {shape[1]}.",)
    return Dataset(
        name=known.name,
        train=train,
        validation=train.take(np.arange(0)),
        test=test,
        class_names=reader.class_names,
        source=source,
        checksum=fingerprint(
            [
                str(builder.info.full_name),
                list(known.train),
                test_name,
                shape,
                len(train),
                len(test),
            ]
        ),
        notes=notes,
    )


def _image_shape(features: Any, options: LoadOptions) -> tuple[int, int, int]:
    feature = features["image"] if "image" in features.keys() else None  # noqa: SIM118
    if feature is None or len(feature.shape) != 3 or feature.np_dtype != np.uint8:
        raise DataError(
            "The dataset has no feature `image` with 8-bit images.",
            received=", ".join(features) if hasattr(features, "keys") else str(features),
        )
    height, width, channels = feature.shape
    channels = 1 if channels == 1 else 3
    if options.size:
        return (*options.size, channels)
    return (height or DEFAULT_SIZE, width or DEFAULT_SIZE, channels)


def _test_split(builder: Any) -> str | None:
    names = list(builder.info.splits) or ["train", "test"]
    return next((n for n in ("test", "validation", "valid", "val") if n in names), None)


def _read(
    known: TfdsSet,
    builder: Any,
    tfds_split: str,
    split: str,
    shape: tuple[int, int, int],
    reader: Any,
    options: LoadOptions,
) -> Split:
    """One split, with its images in memory or, if they are large, in a file in the cache."""
    rows = _Rows(reader, f"{known.name}/{split}")
    count = _count(builder, tfds_split)
    batches = _batches(builder, tfds_split, shape, rows, options, count)
    if count is None or (count * int(np.prod(shape)) <= IN_MEMORY_BYTES):
        parts = list(batches)
        images: Any = np.concatenate(parts) if parts else np.empty((0, *shape), np.uint8)
    else:
        images = _stored(builder, tfds_split, shape, rows, batches, count, options)
    if len(images) == 0:
        raise DataError(f"The split {tfds_split} of {known.tfds_name} is empty.")
    return rows.split(images)


def _stored(
    builder: Any,
    tfds_split: str,
    shape: tuple[int, int, int],
    rows: _Rows,
    batches: Iterator[np.ndarray],
    count: int,
    options: LoadOptions,
) -> StoredImages:
    """Images in a file that is written once; labels and ids beside it."""
    key = fingerprint([str(builder.info.full_name), tfds_split, shape, count, rows.prefix])
    path = options.cache / "tfds" / f"{key}.npy"
    beside = path.with_suffix(".labels.npz")
    stored = stored_images(path, (count, *shape))
    if stored is not None and is_sealed(beside):
        with np.load(beside, allow_pickle=False) as kept:
            rows.restore(dict(kept))
        return stored
    store_images(path, (count, *shape), batches, progress=options.progress)
    with sealed_path(beside) as part, open(part, "wb") as file:
        arrays: dict[str, Any] = rows.arrays()
        np.savez(file, **arrays)
    return StoredImages(path)


def _count(builder: Any, tfds_split: str) -> int | None:
    known = builder.info.splits
    names = tfds_split.split("+")
    if not all(name in known for name in names):
        return None
    counts = [known[name].num_examples for name in names]
    return sum(counts) if all(isinstance(c, int) for c in counts) else None


def _batches(
    builder: Any,
    tfds_split: str,
    shape: tuple[int, int, int],
    rows: _Rows,
    options: LoadOptions,
    count: int | None,
) -> Iterator[np.ndarray]:
    """Resized images in the stored order; everything else goes to `rows`."""
    tfds = tfds_access.load_tfds()
    from tfgraphreg.compat import tf

    size, channels = shape[:2], shape[2]

    def prepare(example):
        image = example["image"]
        image = image[..., :channels]
        if image.shape[:2] != size:
            resized = tf.image.resize(image, size, antialias=True)
            image = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
        image = tf.ensure_shape(image, shape)
        return image, {k: v for k, v in example.items() if k != "image"}

    config = tfds.ReadConfig(interleave_cycle_length=1)
    done, batch = 0, []
    with tfds_access.reading(builder):
        data = builder.as_dataset(split=tfds_split, read_config=config, shuffle_files=False)
        data = data.map(prepare, num_parallel_calls=tf.data.AUTOTUNE).prefetch(_BATCH)
        for image, rest in tfds.as_numpy(data):
            rows.add(rest)
            batch.append(image)
            done += 1
            if len(batch) == _BATCH:
                yield np.stack(batch)
                batch = []
                options.progress(f"reading {tfds_split}", done, count or 0)
        if batch:
            yield np.stack(batch)
            options.progress(f"reading {tfds_split}", done, count or done)


class _Rows:
    """Collects what belongs to the images: labels, ids and extras."""

    def __init__(self, reader: LabelReader, prefix: str):
        self.prefix = prefix
        self._reader = reader
        self._names: list[str] = []
        self._labels: list = []
        self._rest: list[dict] = []
        self._restored: dict[str, np.ndarray] | None = None

    def add(self, example: dict) -> None:
        self._names.append(tfds_features.file_name(example))
        self._labels.append(self._reader.label(example))
        self._rest.append(self._reader.extras(example))

    def arrays(self) -> dict[str, np.ndarray]:
        """`labels`, `ids` and one entry for each extra, as arrays with N rows."""
        if self._restored is not None:
            return self._restored
        extras = self._reader.stack_extras(self._rest)
        return {
            "labels": np.array(self._labels, np.int8 if self._reader.multilabel else np.int64),
            "ids": tfds_features.make_ids(self.prefix, self._names),
            **{f"extra_{name}": values for name, values in extras.items()},
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        self._restored = arrays

    def split(self, images: Any) -> Split:
        arrays = self.arrays()
        extras = {k[6:]: v for k, v in arrays.items() if k.startswith("extra_")}
        return Split(images, arrays["labels"], arrays["ids"], extras)
