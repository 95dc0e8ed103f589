"""Folders of images: one subfolder a class.

Either `PATH/train/CLASS/...` and `PATH/test/CLASS/...` (and, if there is one,
`PATH/validation/CLASS/...`), or `PATH/CLASS/...`, of which a fifth of every class, chosen by
the seed, becomes the test split. A class folder may have subfolders. Images in a folder named
`_unlabeled` beside the class folders are training images without a label.
"""

from __future__ import annotations

import pathlib
import unicodedata

import numpy as np

from tfgraphreg.data.dataset import UNLABELED, Dataset, Split
from tfgraphreg.data.lazy import FileImages, LazyImages
from tfgraphreg.data.options import LoadOptions
from tfgraphreg.data.preflight import Checked, check_folder, report_bad
from tfgraphreg.data.splits import divide
from tfgraphreg.errors import DataError
from tfgraphreg.storage import fingerprint

UNLABELED_FOLDER = "_unlabeled"
TEST_FRACTION = 0.2
# Smaller splits are decoded once and kept in memory.
IN_MEMORY_BYTES = 512 * 2**20

_CURE = "Make one subfolder a class: PATH/CLASS/image.jpg, or PATH/train/... and PATH/test/...."


def load_folder(path: str, options: LoadOptions) -> Dataset:
    """Loads `folder:PATH`; see the module's description for the layout.

    Images are ids by their path without the suffix, checked before anything else (see
    `tfgraphreg.data.preflight`), and read lazily if they are large together.

    Raises:
        DataError: If the folder is missing or empty, has fewer than two classes, two files with
            one id, or unusable files that are not to be skipped.
    """
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise DataError("The folder of images does not exist.", received=str(root), cure=_CURE)
    root = root.resolve()
    checked = check_folder(root, options.cache / "folders", progress=options.progress)
    notes = report_bad(checked.bad, root, options.on_bad_image)
    if checked.ignored:
        notes.append(
            f"{len(checked.ignored)} file(s) in {root} without an image's suffix are ignored: "
            f"{', '.join(checked.ignored[:5])}."
        )
    if not checked.names:
        raise DataError("The folder holds no usable images.", received=str(root), cure=_CURE)
    _refuse_same_ids(checked.names)

    size, channels = _image_shape(checked, options)
    parts = _assign(checked.names, root)
    _refuse_empty_classes(root / "train" if _laid_out(checked.names) else root, parts["train"][1])
    class_names = _class_names(parts, root)
    images = FileImages([str(root / name) for name in checked.names], size, channels)
    if options.cache_images:
        name = fingerprint([checked.checksum, list(images.shape), checked.names])
        images = images.cache_to(
            options.cache / "folders" / f"{name}.images.npy", progress=options.progress
        )
    splits = {
        split: _make_split(rows, labels, checked.names, images, class_names)
        for split, (rows, labels) in parts.items()
    }
    train = splits["train"]
    test = splits.get("test")
    if test is None:
        train, test = divide(train, TEST_FRACTION, seed=options.seed)
        notes.append(
            f"There is no folder {root / 'test'}: a share of {TEST_FRACTION} of the images, "
            f"chosen by the seed {options.seed}, is the test split."
        )
    if len(test) == 0:
        raise DataError("The test split is empty.", received=str(root), cure="Add images.")
    return Dataset(
        name=f"folder:{path}",
        train=_in_memory(train),
        validation=_in_memory(splits.get("validation", train.take(np.arange(0)))),
        test=_in_memory(test),
        class_names=class_names,
        source=f"images in {root}",
        checksum=checked.checksum,
        notes=tuple(notes),
    )


def _refuse_same_ids(names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(image_id(name), name)
        if first is not name:
            raise DataError(
                f"Two files have the id {image_id(name)!r}.",
                received=f"{first!r} and {name!r}",
                cure="Rename one of them: an id is the path without the suffix.",
            )


def image_id(name: str) -> str:
    """The id of a file: its path in the folder without the suffix, in one Unicode form."""
    stem = name[: name.rindex(".")]
    return unicodedata.normalize("NFC", stem)


def _image_shape(checked: Checked, options: LoadOptions) -> tuple[tuple[int, int], int]:
    channels = int(checked.facts[:, 2].max())
    if options.size is not None:
        return options.size, channels
    sizes, first = np.unique(checked.facts[:, :2], axis=0, return_index=True)
    if len(sizes) > 1:
        examples = ", ".join(
            f"{checked.names[i]!r} {w} x {h}" for i, (h, w) in list(zip(first, sizes.tolist()))[:2]
        )
        raise DataError(
            "The images have different sizes.",
            received=f"{len(sizes)} sizes: {examples}",
            cure="Give the size to which they are resized with --image-size.",
        )
    return (int(sizes[0, 0]), int(sizes[0, 1])), channels


def _assign(names: list[str], root: pathlib.Path) -> dict[str, tuple[list[int], list[str]]]:
    """Rows and class names of every split that the folder's layout gives."""
    laid_out = _laid_out(names)
    parts: dict[str, tuple[list[int], list[str]]] = {}
    for row, name in enumerate(names):
        pieces = name.split("/")
        split = "train"
        if laid_out:
            split, *pieces = pieces
            split = "validation" if split == "val" else split
        if len(pieces) < 2 or split not in ("train", "validation", "test"):
            expected = "train/, validation/ or test/" if laid_out else "a class folder"
            raise DataError(f"The image {root / name} is not in {expected}.", cure=_CURE)
        rows, labels = parts.setdefault(split, ([], []))
        rows.append(row)
        labels.append(pieces[0])
    return parts


def _laid_out(names: list[str]) -> bool:
    """Whether there is a folder `train` of class folders."""
    return any(name.startswith("train/") and name.count("/") >= 2 for name in names)


def _refuse_empty_classes(folder: pathlib.Path, labels: list[str]) -> None:
    """A class whose every image is unusable must not vanish and move the others' numbers."""
    there = {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")}
    empty = sorted(there - set(labels) - {UNLABELED_FOLDER})
    if empty:
        raise DataError(
            f"These class folders in {folder} hold no usable image.",
            received=", ".join(empty[:10]),
            cure="Add images or remove the folders.",
        )


def _class_names(parts, root: pathlib.Path) -> tuple[str, ...]:
    classes = {s: set(labels) - {UNLABELED_FOLDER} for s, (_, labels) in parts.items()}
    names = tuple(sorted(classes["train"]))
    if len(names) < 2:
        raise DataError(
            "A dataset needs at least two classes.",
            received=f"{root} has {len(names)}: {', '.join(names) or 'none'}",
            cure=_CURE,
        )
    for split, found in classes.items():
        unknown = sorted(found - set(names))
        if unknown:
            raise DataError(
                f"The folder {split}/ has classes that train/ does not have.",
                received=", ".join(unknown[:10]),
                cure="Every class needs training images.",
            )
        if split != "train" and UNLABELED_FOLDER in parts[split][1]:
            raise DataError(
                f"Only training images may be unlabeled, and {split}/ has {UNLABELED_FOLDER}/."
            )
    return names


def _make_split(rows, labels, names, images, class_names) -> Split:
    number = {name: i for i, name in enumerate(class_names)}
    number[UNLABELED_FOLDER] = UNLABELED
    return Split(
        images.take_rows(np.array(rows)),
        np.array([number[label] for label in labels], np.int64),
        np.array([image_id(names[row]) for row in rows]),
    )


def _in_memory(split: Split) -> Split:
    images = split.images
    if isinstance(images, LazyImages) and images.nbytes <= IN_MEMORY_BYTES:
        return Split(np.asarray(images), split.labels, split.ids, split.extras)
    return split
