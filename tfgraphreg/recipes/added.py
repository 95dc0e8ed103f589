"""Image files that are added to an index, and their labels."""

from __future__ import annotations

import os
import pathlib
import unicodedata
from collections.abc import Sequence

from tfgraphreg.data.layout import UNLABELED_FOLDER, read_layout
from tfgraphreg.data.preflight import list_images
from tfgraphreg.data.tables import read_table
from tfgraphreg.errors import ConfigError, DataError, did_you_mean
from tfgraphreg.reading import known_as
from tfgraphreg.storage import user_path

# An index keeps as many characters for each item as its longest label has.
_LONGEST = 100
_CURE = "Write the columns id and label; an id is the path of an image as the index names it."


def check_labels(add: Sequence[str], label: str | None, labels: object) -> None:
    """Refuses labels that have no effect, before anything is loaded.

    Raises:
        ConfigError: If there is nothing to label, or it is labeled twice.
        DataError: If `label` cannot be one.
    """
    for name, value in (("label", label), ("labels", labels)):
        if value is not None and not add:
            raise ConfigError(
                f"`{name}` has an effect only with `add`.",
                received=f"{name}={value}",
                cure=f"Name images to `add`, or leave `{name}` out.",
            )
    if label is not None and labels is not None:
        raise ConfigError(
            "`label` must not be given beside `labels`.",
            received=f"label={label}, labels={labels}",
            cure="Write all labels into the file.",
        )
    if label is not None:
        checked_label(label, "`label`")


def checked_label(label: str, where: str) -> str:
    """A label as the index keeps it: in Unicode's NFC form, without spaces around.

    Raises:
        DataError: If it is empty, over 100 characters long, or holds control characters.
    """
    found = unicodedata.normalize("NFC", label).strip()
    if not found or len(found) > _LONGEST or not found.isprintable():
        raise DataError(
            f"A label must have from 1 to {_LONGEST} characters that can be printed.",
            received=f"{where}: {label[:_LONGEST]!r}"
            + (f", {len(label)} characters" if len(label) > _LONGEST else ""),
        )
    return found


def images_to_add(
    paths: Sequence[str],
    *,
    label: str | None = None,
    labels: os.PathLike[str] | str | None = None,
) -> tuple[list[str], list[str]]:
    """The files to add, and the label of each, "" where it has none.

    Args:
        paths: Image files, and folders of them. A folder has one subfolder a class, as one to
            train on has, unless `label` or `labels` says what the classes are.
        label: Of every image.
        labels: CSV file with the columns id (the path of an image, as this returns it) and label.

    Raises:
        DataError: If a folder cannot be used, or the file of labels names an image that is not
            added, one image twice with two labels, or none.
    """
    files: list[str] = []
    found: list[str] = []
    for path in paths:
        if user_path(path).is_dir():
            names, classes = _in_folder(path, by_folder=label is None and labels is None)
            files += names
            found += classes
        else:
            files.append(path)
            found.append("")
    if label is not None:
        return files, [checked_label(label, "`label`")] * len(files)
    if labels is not None:
        by_name = _read_labels(labels, files)
        return files, [by_name.get(name, "") for name in files]
    return files, [name and checked_label(name, "a folder's name") for name in found]


def files_below(path: str) -> list[str]:
    """The image file, or all those in the folder, each as a path.

    Raises:
        DataError: If it is a folder without images, or with files that cannot be used.
    """
    root = user_path(path)
    if not root.is_dir():
        return [path]
    names, bad, _ = list_images(root.resolve())
    if bad:
        name, reason = bad[0]
        raise DataError(
            f"{len(bad)} file(s) in {root} cannot be used.",
            received=f"{name[:120]!r} {reason}",
            cure="Mend or remove them.",
        )
    if not names:
        raise DataError("The folder holds no images.", received=str(root))
    return [str(root / name) for name in names]


def _in_folder(path: str, *, by_folder: bool) -> tuple[list[str], list[str]]:
    files = files_below(path)
    if not by_folder:
        return files, [""] * len(files)
    root = user_path(path)
    names = [pathlib.Path(file).relative_to(root).as_posix() for file in files]
    classes = [""] * len(files)
    for rows, labels in read_layout(names, root).parts.values():
        for row, name in zip(rows, labels):
            classes[row] = "" if name == UNLABELED_FOLDER else name
    return files, classes


def _read_labels(path: os.PathLike[str] | str, files: Sequence[str]) -> dict[str, str]:
    known = set(files)
    found: dict[str, str] = {}
    for name, label in read_table(path, ("id", "label"), cure=_CURE):
        name = known_as(name, known)
        if name not in known:
            raise DataError(
                f"{path} labels an image that is not added.",
                received=repr(name[:120]),
                cure=did_you_mean(name, known) or _CURE,
            )
        if not label.strip():
            continue
        label = checked_label(label, str(path))
        if found.setdefault(name, label) != label:
            raise DataError(
                f"{path} has two labels for one image.",
                received=f"{name[:120]!r}: {found[name]!r} and {label!r}",
            )
    if not found:
        raise DataError(f"{path} labels no image.", received=f"{len(files)} images to add")
    return found
