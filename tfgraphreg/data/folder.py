"""Folders of images: one subfolder a class.

Either `PATH/train/CLASS/...` and `PATH/test/CLASS/...` (and, if there is one,
`PATH/validation/CLASS/...`; also by names such as `Training` and `seg_test`), or `PATH/CLASS/...`,
of which a fifth of every class, chosen by the seed, becomes the test split. A class folder may have
subfolders. Images in a folder named `_unlabeled` beside the class folders are training images
without a label.
"""

from __future__ import annotations

import dataclasses
import pathlib
import unicodedata
from collections.abc import Sequence

import numpy as np

from tfgraphreg.data.dataset import UNLABELED, Dataset, Split
from tfgraphreg.data.layout import CURE, UNLABELED_FOLDER, Layout, class_of, read_layout
from tfgraphreg.data.lazy import FileImages, LazyImages
from tfgraphreg.data.options import LoadOptions
from tfgraphreg.data.preflight import (
    Checked,
    check_folder,
    describe_ignored,
    passed_over,
    report_bad,
)
from tfgraphreg.data.splits import divide
from tfgraphreg.errors import DataError
from tfgraphreg.storage import fingerprint, user_path

TEST_FRACTION = 0.2
# Smaller splits are decoded once and kept in memory.
IN_MEMORY_BYTES = 512 * 2**20
# Sides to choose from where images have different sizes and none is asked for.
_SIDES = (16, 24, 32, 48, 64, 96, 128)


def load_folder(path: str, options: LoadOptions) -> Dataset:
    """Loads `folder:PATH`; see the module's description for the layout.

    An image's id is its path without the suffix. All images are checked first (see
    `tfgraphreg.data.preflight`), and read lazily if they are too large for memory.

    Raises:
        DataError: If the folder is missing or empty, has fewer than two classes, or has unusable
            files, or two with one id, that are not to be skipped.
    """
    root = user_path(path)
    if not root.is_dir():
        raise DataError("The folder of images does not exist.", received=str(root), cure=CURE)
    root = root.resolve()
    checked = check_folder(root, options.cache / "folders", progress=options.progress)
    checked = _one_file_an_id(checked, options.on_bad_image)
    notes = report_bad(checked.bad, root, options.on_bad_image)
    ignored = describe_ignored(checked.ignored)
    if not checked.names:
        raise DataError(
            "The folder holds no usable images.",
            received=f"{root}. {ignored}" if ignored else str(root),
            cure=CURE,
        )
    if ignored:
        notes.append(f"In {root} {ignored}")

    layout = read_layout(checked.names, root)
    _refuse_empty_classes(layout, root)
    class_names = _class_names(layout.parts, root)
    size, channels = image_shape(checked.facts, options, notes)
    images: LazyImages = FileImages([str(root / name) for name in checked.names], size, channels)
    if options.cache_images:
        name = fingerprint([checked.checksum, list(images.shape), checked.names])
        images = images.cache_to(
            options.cache / "folders" / f"{name}.images.npy", progress=options.progress
        )
    splits = {
        split: _make_split(rows, labels, checked.names, images, class_names)
        for split, (rows, labels) in layout.parts.items()
    }
    train = splits["train"]
    test = splits.get("test")
    if test is None:
        train, test = divide(train, TEST_FRACTION, seed=options.seed)
        notes.append(
            f"There is no test/ in {root}: a share of {TEST_FRACTION} of the labeled images, "
            f"chosen by the seed {options.seed}, is the test split."
        )
    if len(test) == 0:
        raise DataError("The test split is empty.", received=str(root), cure="Add images.")
    untested = _named(set(range(len(class_names))) - set(test.labels.tolist()), class_names)
    if untested:
        notes.append(f"The test split has no image of {untested}.")
    return Dataset(
        name=f"folder:{path}",
        train=in_memory(train),
        validation=in_memory(splits.get("validation", train.take(np.arange(0)))),
        test=in_memory(test),
        class_names=class_names,
        source=f"images in {root}",
        checksum=checked.checksum,
        notes=tuple(notes),
        left_out=tuple({image_id(name) for name, _ in checked.bad} - _ids(train, test)),
    )


def _ids(*splits: Split) -> set[str]:
    return {name for split in splits for name in split.ids.tolist()}


def _one_file_an_id(checked: Checked, on_bad_image: str) -> Checked:
    """Refuses a second file with the id of another, or moves it to the bad files."""
    seen: dict[str, str] = {}
    same = {}
    for name in checked.names:
        first = seen.setdefault(image_id(name), name)
        if first is not name:
            same[name] = first
    if not same:
        return checked
    if on_bad_image == "error":
        name, first = next(iter(same.items()))
        raise DataError(
            f"Two files have the id {image_id(name)!r}.",
            received=f"{first!r} and {name!r}",
            cure="Rename one of them: an id is the path without the suffix. Or leave out the "
            "second with `on_bad_image=skip`.",
        )
    kept = [row for row, name in enumerate(checked.names) if name not in same]
    return dataclasses.replace(
        checked,
        names=[checked.names[row] for row in kept],
        facts=checked.facts[kept],
        bad=[*checked.bad, *((n, f"has the id of {first!r}") for n, first in same.items())],
    )


def image_id(name: str) -> str:
    """The id of a file: its path in the folder without the suffix, in one Unicode form."""
    stem = name.removesuffix(pathlib.PurePosixPath(name).suffix)
    return unicodedata.normalize("NFC", stem)


def image_shape(
    facts: np.ndarray, options: LoadOptions, notes: list[str]
) -> tuple[tuple[int, int], int]:
    """Size and channels that fit images of `[N, 3]` heights, widths and channels.

    Notes it where images will be resized and nobody asked.
    """
    channels = int(facts[:, 2].max())
    if options.size is not None:
        return options.size, channels
    sizes = np.unique(facts[:, :2], axis=0)
    if len(sizes) == 1:
        return (int(sizes[0, 0]), int(sizes[0, 1])), channels
    median = np.median(facts[:, :2].min(axis=1))
    side = max([side for side in _SIDES if side <= median], default=_SIDES[0])
    (low_h, low_w), (high_h, high_w) = sizes[[0, -1]].tolist()
    notes.append(
        f"The images have {len(sizes)} sizes, from {low_w} x {low_h} to {high_w} x {high_h}: they "
        f"are resized to {side} x {side}. `image_size` chooses another side."
    )
    return (side, side), channels


def _refuse_empty_classes(layout: Layout, root: pathlib.Path) -> None:
    """Raises if all images of a class are unusable: without it the other classes would be
    renumbered.
    """
    known = {*layout.parts["train"][1], UNLABELED_FOLDER} if "train" in layout.parts else set()
    for parent in layout.class_parents:
        folders = [p.name for p in (root / parent).iterdir() if p.is_dir()]
        names = {class_of(n) for n in folders if not passed_over(n)}
        empty = sorted(names - known)
        if empty:
            raise DataError(
                f"These class folders in {root / parent} hold no usable image.",
                received=", ".join(empty[:10]),
                cure="Add images or remove the folders.",
            )


def _named(numbers: set[int], class_names: tuple[str, ...]) -> str:
    """Some class names in words."""
    names = [class_names[number] for number in sorted(numbers)]
    more = f" and {len(names) - 10} more classes" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def _class_names(
    parts: dict[str, tuple[list[int], list[str]]], root: pathlib.Path
) -> tuple[str, ...]:
    classes = {s: set(labels) - {UNLABELED_FOLDER} for s, (_, labels) in parts.items()}
    # Where no training image has a label yet, the others say which classes there are.
    names = tuple(sorted(classes["train"] or set().union(*classes.values())))
    if len(names) < 2:
        raise DataError(
            "A dataset needs at least two classes.",
            received=f"{root} has {len(names)}: {', '.join(names) or 'none'}",
            cure=CURE,
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


def _make_split(
    rows: Sequence[int],
    labels: Sequence[str],
    names: Sequence[str],
    images: LazyImages,
    class_names: Sequence[str],
) -> Split:
    number = {name: i for i, name in enumerate(class_names)}
    number[UNLABELED_FOLDER] = UNLABELED
    return Split(
        images.take_rows(np.array(rows)),
        np.array([number[label] for label in labels], np.int64),
        np.array([image_id(names[row]) for row in rows]),
    )


def in_memory(split: Split) -> Split:
    """A split whose images are read now if they fit in `IN_MEMORY_BYTES`."""
    images = split.images
    if isinstance(images, LazyImages) and images.nbytes <= IN_MEMORY_BYTES:
        return Split(np.asarray(images), split.labels, split.ids, split.extras)
    return split
