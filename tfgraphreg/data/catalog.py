"""Datasets by name.

`load_dataset` is the one entrance: it finds the bytes, checks them, gives every image a stable id
and divides train, validation and test.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg.data import digits, scenes
from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.data.known import KNOWN, KnownSet
from tfgraphreg.data.options import LoadOptions
from tfgraphreg.data.sources import find_files
from tfgraphreg.data.splits import (
    classes_without_labels,
    divide,
    keep_labels,
    labels_beyond_budget,
    stratified_choice,
)
from tfgraphreg.errors import DataError
from tfgraphreg.progress import Progress, silent
from tfgraphreg.registry import Registry
from tfgraphreg.settings import GIVEN
from tfgraphreg.storage import fingerprint

# Of the digits, one image in five is for the test.
_DIGITS_TEST = 0.2


@dataclasses.dataclass(frozen=True)
class DatasetRecord:
    """An entry of `DATASETS`.

    Attributes:
        name: The name that `load_dataset` takes.
        description: One line.
        num_classes: C.
        image_shape: `(height, width, channels)`, or None if `image_size` decides.
        loader: `LoadOptions` -> `Dataset` with its training images complete: `load_dataset` itself
            applies `limit`, the validation split and `labels_per_class`.
    """

    name: str
    description: str
    num_classes: int
    image_shape: tuple[int, int, int] | None
    loader: Callable[[LoadOptions], Dataset]


DATASETS: Registry[DatasetRecord] = Registry("dataset")


def load_dataset(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    validation_fraction: float = 0.0,
    limit: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    labels_per_class: int | None = None,
    on_bad_image: str = "error",
    cache_images: bool = False,
    offline: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Loads a dataset.

    Args:
        name: A name in `DATASETS`, or ``folder:PATH`` (see `tfgraphreg.data.folder`), or
            ``voc:PATH`` (see `tfgraphreg.data.voc_folder`), or
            ``tfrecord:PATH`` (see `tfgraphreg.data.tfrecord`), or
            ``tfds:NAME`` with any name of an image dataset in tensorflow-datasets, or a name of
            scenes with boxes and masks such as ``scenes:digits?n=100`` (see
            `tfgraphreg.data.scenes`).
        data_dir: A folder with the original files, or in which tensorflow-datasets prepares.
        cache_dir: Where prepared files are kept, instead of the project's cache.
        seed: Decides every random choice below.
        validation_fraction: Share of the (limited) training images that become the validation
            split, every class in its proportion; in [0, 1).
        limit: Take only the first N training images; more than there are takes all. Of images
            that lie class by class, as in a folder, N are drawn by the seed from all classes
            instead. The test split stays whole.
        image_size: Height and width to which images are resized; None keeps their own.
        labels_per_class: Keep N labels a class in the training split; the other images stay,
            unlabeled (-1). The validation split keeps all of its labels; a note says so.
        on_bad_image: ``"error"`` refuses a folder with an unusable image, ``"skip"`` leaves such
            images out; see `tfgraphreg.data.folder`.
        cache_images: Decode a folder's images once into a file in the cache instead of at
            every use.
        offline: Leave the network alone.
        progress: Called as `progress(what, done, total)`.

    Returns:
        The dataset, whose `source` says in words where the bytes came from.

    Raises:
        UnknownNameError: If there is no such dataset.
        ConfigError: If a setting is out of range.
        DataError: If data is missing, altered or truncated; the message says what was tried and
            what to do.
    """
    options = LoadOptions(
        data_dir=data_dir,
        cache_dir=cache_dir,
        seed=seed,
        validation_fraction=validation_fraction,
        limit=limit,
        image_size=image_size,
        labels_per_class=labels_per_class,
        on_bad_image=on_bad_image,
        cache_images=cache_images,
        offline=offline,
        progress=progress or silent,
    )
    return _shape(find_loader(name)(options), options)


def find_loader(name: str) -> Callable[[LoadOptions], Dataset]:
    """The loader of a registered name, or one of ``folder:``, ``tfrecord:``, ``tfds:``, ``voc:`` or
    scenes.

    Raises:
        UnknownNameError: If there is no such dataset.
        DataError: If ``folder:`` is all there is.
    """
    if name.startswith(GIVEN):
        raise DataError(
            "The run was trained on a dataset that was passed to `train`, and cannot load it.",
            received=f"dataset={name}",
            cure="Do this where the dataset is, or train on one that has a name.",
        )
    if name.startswith("folder:"):
        path = name.removeprefix("folder:")
        if not path.strip():
            # pathlib takes no path for the current folder.
            raise DataError(
                "`folder:` must be followed by the path of a folder of images.",
                received=repr(name),
                cure="For the current folder write folder:. with a dot.",
            )
        from tfgraphreg.data.folder import load_folder

        return lambda options: load_folder(path, options)
    if name.startswith("tfds:"):
        return _tfds_loader(name, name.removeprefix("tfds:"))
    if name.startswith("tfrecord:"):
        from tfgraphreg.data.tfrecord import load_tfrecords

        return functools.partial(load_tfrecords, name.removeprefix("tfrecord:"))
    if name.startswith("voc:"):
        from tfgraphreg.data.voc_folder import load_voc_folder, parse_name

        parse_name(name)
        return functools.partial(load_voc_folder, name)
    if scenes.is_scenes(name):
        scenes.parse(name)
        return functools.partial(scenes.load_scenes, name)
    return DATASETS.get(name).loader


def has_own_size(name: str) -> bool:
    """Whether the images of a dataset have one size, which `image_size` does not decide."""
    return scenes.is_scenes(name) or (
        name in DATASETS and DATASETS.get(name).image_shape is not None
    )


def _shape(dataset: Dataset, options: LoadOptions) -> Dataset:
    """Applies what is the same for every dataset."""
    notes = list(dataset.notes)
    train = dataset.train
    validation = _labeled(dataset.validation, "validation", notes)
    test = _labeled(dataset.test, "test", notes)
    if len(train) == 0 or len(test) == 0:
        raise DataError(f"{dataset.name} has an empty training or test split.")
    if options.limit is not None and options.limit < len(train):
        train = _limited(train, options.limit, options.seed, notes)
    elif options.limit is not None:
        notes.append(f"All {len(train)} training images are used: limit is {options.limit}.")
    if options.validation_fraction > 0 and len(validation):
        notes.append("The dataset's own validation split is used, not a share of the training.")
    elif options.validation_fraction > 0:
        train, validation = divide(train, options.validation_fraction, seed=options.seed)
    notes.extend(filter(None, [classes_without_labels(train, dataset.class_names)]))
    if options.labels_per_class is not None:
        train = keep_labels(train, options.labels_per_class, seed=options.seed)
        notes.extend(filter(None, [labels_beyond_budget(validation, options.labels_per_class)]))
    return dataclasses.replace(
        dataset,
        train=train,
        validation=validation,
        test=test,
        notes=tuple(notes),
        left_out=(*dataset.left_out, *_gone(dataset, train, validation, test)),
        # By what was chosen, not by the seed that chose: seeds that choose alike share results.
        checksum=fingerprint(
            [
                dataset.checksum,
                list(dataset.image_shape),
                *(np.asarray(split.ids, dtype=str) for split in (train, validation, dataset.test)),
            ]
        ),
    )


def _gone(dataset: Dataset, *kept: Split) -> list[str]:
    """Ids of the images of a dataset that are in none of the `kept` splits."""
    before = (dataset.train, dataset.validation, dataset.test)
    if sum(map(len, before)) == sum(map(len, kept)):
        return []
    stay = {name for split in kept for name in split.ids.tolist()}
    return [name for split in before for name in split.ids.tolist() if name not in stay]


def _labeled(split: Split, name: str, notes: list[str]) -> Split:
    """The labeled items of a split to measure by: unlabeled ones belong to training alone."""
    missing = len(split) - int(split.labeled.sum())
    if not missing:
        return split
    notes.append(f"{missing} unlabeled image(s) of the {name} split are left out.")
    return split.take(np.flatnonzero(split.labeled))


def _limited(train: Split, limit: int, seed: int, notes: list[str]) -> Split:
    """The first images; of images that lie class by class, as in a folder, some of each class."""
    if train.multilabel or not _class_by_class(train.labels):
        return train.take(np.arange(limit))
    notes.append(f"The {limit} training images are drawn from all classes.")
    chosen = stratified_choice(train.labels, limit / len(train), seed=seed, at_least=1)
    return train.take(np.flatnonzero(chosen))


def _class_by_class(labels: np.ndarray) -> bool:
    """Whether the images of every class, and the unlabeled ones, stand together."""
    runs = 1 + np.count_nonzero(np.diff(labels))
    return runs == len(np.unique(labels))


def make_ids(name: str, split: str, count: int) -> np.ndarray:
    """`[count]` ids such as ``"mnist/train/00017"``, which sort like the numbers in them."""
    width = max(5, len(str(count - 1)))
    return np.array([f"{name}/{split}/{i:0{width}d}" for i in range(count)])


def _resized(images: np.ndarray, options: LoadOptions) -> np.ndarray:
    if options.size in (None, images.shape[1:3]):
        return images
    from tfgraphreg.data.decoding import resize_array

    return resize_array(images, options.size)


def _tfds_loader(name: str, tfds_name: str, **choices: Any) -> Callable[[LoadOptions], Dataset]:
    def loader(options: LoadOptions) -> Dataset:
        from tfgraphreg.data.tfds_images import TfdsSet, load_tfds_images

        return load_tfds_images(TfdsSet(name, tfds_name, **choices), options)

    return loader


def _voc_loader(options: LoadOptions) -> Dataset:
    from tfgraphreg.data.voc import voc_labels

    loader = _tfds_loader(
        "voc2007", "voc/2007", train=("train", "validation"), test="test", labels=voc_labels
    )
    return loader(options)


def _load_known(known: KnownSet, options: LoadOptions) -> Dataset:
    files, source = find_files(
        known,
        data_dir=options.data_dir,
        cache_dir=options.cache_dir,
        offline=options.offline,
        progress=options.progress,
    )
    splits = {
        split: Split(_resized(images, options), labels, make_ids(known.name, split, len(labels)))
        for split, (images, labels) in known.parse(files).items()
    }
    return Dataset(
        name=known.name,
        train=splits["train"],
        validation=splits["train"].take(np.arange(0)),
        test=splits["test"],
        class_names=known.class_names,
        source=source,
        checksum=known.checksum,
    )


def _load_digits(options: LoadOptions) -> Dataset:
    images, labels = digits.read()
    images = _resized(images, options)
    everything = Split(images, labels, make_ids(digits.NAME, "all", len(labels)))
    train, test = divide(everything, _DIGITS_TEST, seed=options.seed)
    return Dataset(
        name=digits.NAME,
        train=train,
        validation=train.take(np.arange(0)),
        test=test,
        class_names=digits.CLASS_NAMES,
        source="scikit-learn's embedded digits",
        checksum=fingerprint([images, labels]),
    )


def _register_known() -> None:
    descriptions = {
        "fashion_mnist": "70,000 grayscale images of clothing",
        "mnist": "70,000 grayscale images of handwritten digits",
        "cifar10": "60,000 color images of animals and vehicles",
    }
    for name, known in KNOWN.items():
        record = DatasetRecord(
            name=name,
            description=descriptions[name],
            num_classes=len(known.class_names),
            image_shape=known.image_shape,
            loader=functools.partial(_load_known, known),
        )
        DATASETS.register(name, record)
    DATASETS.register(
        digits.NAME,
        DatasetRecord(
            name=digits.NAME,
            description="1,797 grayscale images of handwritten digits, needs no download",
            num_classes=10,
            image_shape=(8, 8, 1),
            loader=_load_digits,
        ),
    )
    DATASETS.register(
        scenes.NAME,
        DatasetRecord(
            name=scenes.NAME,
            description="5,000 drawn scenes of clothing items, with boxes and masks",
            num_classes=10,
            image_shape=(scenes.DEFAULT_SIZE, scenes.DEFAULT_SIZE, 3),
            loader=functools.partial(scenes.load_scenes, scenes.NAME),
        ),
    )


def _register_tfds() -> None:
    table = (
        ("voc2007", "9,963 photographs with objects of 20 classes", 20, None, _voc_loader),
        ("imagenet2012", "1.3 million photographs of 1,000 classes", 1000, None, None),
        ("imagenet_resized/64x64", "ImageNet at 64 x 64 pixels", 1000, (64, 64, 3), None),
        ("imagenette", "13,394 photographs of ten easy ImageNet classes", 10, None, None),
    )
    tfds_names = {"imagenette": "imagenette/160px-v2"}
    for name, description, classes, shape, loader in table:
        # The public test split of ImageNet has no labels.
        load_it = loader or _tfds_loader(name, tfds_names.get(name, name), test="validation")
        DATASETS.register(name, DatasetRecord(name, description, classes, shape, load_it))


_register_known()
_register_tfds()
