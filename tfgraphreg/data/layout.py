"""Which split and which class the images of a folder belong to, by the names of their folders."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import unicodedata
from collections.abc import Sequence

from tfgraphreg.errors import DataError

UNLABELED_FOLDER = "_unlabeled"
CURE = "Make one subfolder a class: PATH/CLASS/image.jpg, or PATH/train/... and PATH/test/...."

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
# What stands beside those words in the names of published archives: seg_train, test_set.
_FILLERS = {"seg", "set", "data", "dataset", "images", "split"}


@dataclasses.dataclass(frozen=True)
class Layout:
    """Rows and class names of the images of each split.

    Attributes:
        parts: Of ``"train"``, ``"validation"`` and ``"test"`` those that the folders give: the
            rows of its images, and the class name of each.
        class_parents: Folders, relative to the root, whose subfolders are the training classes.
    """

    parts: dict[str, tuple[list[int], list[str]]]
    class_parents: tuple[str, ...]


def split_of(folder: str) -> str | None:
    """The split that a folder's name means, whatever its case: ``Training``, ``seg_test``."""
    words = [word for word in re.split(r"[\W_]+", folder.casefold()) if word]
    words = [word for word in words if word not in _FILLERS]
    return SPLITS.get(words[0].removesuffix("set")) if len(words) == 1 else None


def class_of(folder: str) -> str:
    """The class that a folder's name means; that of `Unlabelled` is `UNLABELED_FOLDER`."""
    name = unicodedata.normalize("NFC", folder)
    unlabeled = name.casefold().strip("_- ") in ("unlabeled", "unlabelled")
    return UNLABELED_FOLDER if unlabeled else name


def read_layout(names: Sequence[str], root: pathlib.Path) -> Layout:
    """Finds the splits and classes from the names of image files.

    Args:
        names: Files relative to the root, with `/` between their parts.
        root: The folder, for messages.

    Raises:
        DataError: If an image lies outside the folders that the others lie in, or if the class
            folders look like splits by unknown names.
    """
    paths = [name.split("/") for name in names]
    wrapper = _wrapper(paths)
    laid_out = _laid_out(paths, len(wrapper))
    if not laid_out:
        _refuse_equal_subfolders(paths, root)
    parts: dict[str, tuple[list[int], list[str]]] = {}
    parents = set()
    for row, pieces in enumerate(paths):
        start = len(wrapper)
        split = split_of(pieces[start]) if laid_out else "train"
        start += laid_out
        # Some archives hold seg_train/seg_train/CLASS.
        while laid_out and len(pieces) > start + 2 and split_of(pieces[start]) == split:
            start += 1
        if split is None or len(pieces) < start + 2:
            expected = "train/, validation/ or test/" if laid_out else "a class folder"
            raise DataError(f"The image {root / names[row]} is not in {expected}.", cure=CURE)
        rows, labels = parts.setdefault(split, ([], []))
        rows.append(row)
        labels.append(class_of(pieces[start]))
        if split == "train":
            parents.add("/".join(pieces[:start]))
    return Layout(parts, tuple(sorted(parents)))


def _wrapper(paths: list[list[str]]) -> list[str]:
    """The one folder that an unpacked archive put around its splits, if there is one."""
    tops = {pieces[0] for pieces in paths}
    if len(tops) == 1 and not _laid_out(paths, 0) and _laid_out(paths, 1):
        return [tops.pop()]
    return []


def _laid_out(paths: list[list[str]], depth: int) -> bool:
    """Whether there is a training folder of class folders at this depth."""
    return any(len(p) >= depth + 3 and split_of(p[depth]) == "train" for p in paths)


def _refuse_equal_subfolders(paths: list[list[str]], root: pathlib.Path) -> None:
    below: dict[str, set[str]] = {}
    for pieces in paths:
        below.setdefault(pieces[0], set()).add(pieces[1] if len(pieces) > 2 else "")
    first = next(iter(below.values()))
    alike = len(below) > 1 and all(names == first for names in below.values())
    if alike and len(first) > 1 and "" not in first:
        raise DataError(
            f"The folders in {root} all have the same subfolders, as splits have and classes do "
            "not.",
            received=f"{', '.join(sorted(below)[:5])}, each with {', '.join(sorted(first)[:5])}",
            cure="Name splits train/, validation/ and test/. If these are classes, put them into "
            "a folder train/.",
        )
