"""Pascal VOC as people have it on disk: `voc:PATH`.

PATH holds `JPEGImages`, `Annotations`, `ImageSets` and, for masks, `SegmentationClass`; it is the
folder of one year such as `VOCdevkit/VOC2012`, or a `VOCdevkit` with one year in it. The images are
those that `ImageSets/Main` lists; with `voc:PATH?set=Segmentation` those of that list, which all
have masks.

Training images are those of `trainval` and test images those of `test` if there is one, as in
2007; else `train` and `val`, as in 2012. Images are resized, and their boxes and masks with them.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from tfgraphreg.data.dataset import Dataset
from tfgraphreg.data.decoding import BadImage, inspect_image
from tfgraphreg.data.lazy import FileImages, workers
from tfgraphreg.data.local import BACKGROUND, IGNORED, LocalSplit, Objects, multi_hot
from tfgraphreg.data.options import LoadOptions
from tfgraphreg.data.preflight import report_bad
from tfgraphreg.data.voc_xml import VocImage, read_annotation
from tfgraphreg.errors import DataError, did_you_mean, first_line
from tfgraphreg.reading import read_text
from tfgraphreg.storage import fingerprint, user_path

PREFIX = "voc:"
CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
SETS = ("Main", "Segmentation")
_IMAGES, _ANNOTATIONS, _MASKS = "JPEGImages", "Annotations", "SegmentationClass"
_CURE = "Name the folder of one year, such as VOCdevkit/VOC2012."
_SIDE = 128
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclasses.dataclass(frozen=True)
class _Item:
    """One image: its files, and what its annotation says."""

    name: str
    image: pathlib.Path
    mask: pathlib.Path
    said: VocImage


def parse_name(name: str) -> tuple[str, str]:
    """The path and the list of a name such as `voc:PATH?set=Segmentation`.

    Raises:
        DataError: If there is no path, or no such list.
    """
    path, _, query = name.removeprefix(PREFIX).partition("?")
    key, _, value = query.partition("=")
    if not path.strip():
        raise DataError(
            "`voc:` must be followed by the path of a folder of Pascal VOC.",
            received=repr(name),
            cure=_CURE,
        )
    if query and (key != "set" or value not in SETS):
        raise DataError(
            "Beside the path there can be set=Main or set=Segmentation.",
            received=repr(name),
            cure=did_you_mean(value or key, SETS) or "Leave it out for Main.",
        )
    return path, value or SETS[0]


def load_voc_folder(name: str, options: LoadOptions) -> Dataset:
    """Loads `voc:PATH`; see the module.

    The extras of a split are `difficult` `[N, C]` bool (all objects of the class are difficult),
    `truncated` and `occluded` `[N, M]` bool in the order of each image's objects.

    Raises:
        DataError: If a folder or list is missing, an annotation is wrong (file and line are
            named), a mask does not fit its image, or images are unusable and not to be skipped.
    """
    path, which = parse_name(name)
    root = _one_year(user_path(path))
    lists = _lists(root / "ImageSets" / which)
    notes: list[str] = []
    names = sorted({item for listed in lists.values() for item in listed})
    items = _read_items(root, names, options, notes)
    size = options.size or (_SIDE, _SIDE)
    notes.append(
        f"Images of {root.name} are resized to {size[1]} x {size[0]}."
        + ("" if options.size else " `image_size` chooses another side.")
    )
    with_masks = any(item.mask.is_file() for item in items.values())
    splits = {
        split: _split([items[n] for n in listed if n in items], size, which, with_masks)
        for split, listed in lists.items()
    }
    return Dataset(
        name=name,
        train=splits["train"],
        validation=splits["train"].take(np.arange(0)),
        test=splits["test"],
        class_names=CLASSES,
        source=f"Pascal VOC in {root}, ImageSets/{which}",
        checksum=fingerprint([_stamp(items[n]) for n in sorted(items)]),
        notes=tuple(notes),
        left_out=tuple(n for n in names if n not in items),
    )


def _one_year(root: pathlib.Path) -> pathlib.Path:
    if not root.is_dir():
        raise DataError("The folder of Pascal VOC does not exist.", received=str(root), cure=_CURE)
    if (root / _ANNOTATIONS).is_dir():
        return root.resolve()
    years = sorted(p for p in root.iterdir() if (p / _ANNOTATIONS).is_dir())
    if len(years) != 1:
        found = ", ".join(p.name for p in years[:10]) or "none"
        raise DataError(
            "The folder must be one year of Pascal VOC, or hold exactly one.",
            received=f"{root} with {found}",
            cure=_CURE,
        )
    return years[0].resolve()


def _lists(folder: pathlib.Path) -> dict[str, list[str]]:
    """Names of the training and the test images."""
    found = {
        name: _list(folder / f"{name}.txt")
        for name in ("train", "val", "trainval", "test")
        if (folder / f"{name}.txt").is_file()
    }
    train = found.get("trainval") or [*found.get("train", []), *found.get("val", [])]
    lists = {"train": train, "test": found.get("test", [])}
    if not lists["test"]:
        lists = {"train": found.get("train", []), "test": found.get("val", [])}
    missing = [split for split, names in lists.items() if not names]
    if missing:
        raise DataError(
            "The lists must give training and test images: train.txt with val.txt, or trainval.txt "
            "with test.txt.",
            received=f"{folder} with {', '.join(f'{n}.txt' for n in found) or 'none of them'}",
        )
    both = set(lists["train"]) & set(lists["test"])
    if both:
        raise DataError(
            f"An image of {folder} is listed for training and for the test.", received=min(both)
        )
    return lists


def _list(path: pathlib.Path) -> list[str]:
    try:
        lines = read_text(path).splitlines()
    except ValueError as error:
        raise DataError(f"The list {path} cannot be read ({error}).") from error
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        if not _NAME.fullmatch(name) or name in names:
            why = "is listed twice" if name in names else "is no name of an image"
            raise DataError(f"{path}, line {number}: {name[:100]!r} {why}.")
        names[name] = number
    return list(names)


def _read_items(
    root: pathlib.Path, names: Sequence[str], options: LoadOptions, notes: list[str]
) -> dict[str, _Item]:
    """The usable images by name, checked in threads."""
    items: dict[str, _Item] = {}
    bad: list[tuple[str, str]] = []

    def look(name: str) -> _Item | tuple[str, str]:
        image = root / _IMAGES / f"{name}.jpg"
        annotation = root / _ANNOTATIONS / f"{name}.xml"
        said = read_annotation(annotation, CLASSES)
        try:
            facts = inspect_image(image)
        except BadImage as error:
            return f"{_IMAGES}/{image.name}", str(error)
        if (facts.width, facts.height) != said.size:
            raise DataError(
                f"{annotation} must have the size of its image.",
                received="{} x {} and {} x {}".format(*said.size, facts.width, facts.height),
            )
        return _Item(name, image, root / _MASKS / f"{name}.png", said)

    rounded: list[str] = []
    for done, found in enumerate(workers().map(look, names), start=1):
        if isinstance(found, _Item):
            items[found.name] = found
            if found.said.rounded:
                rounded.append(f"{found.name}.xml, line {found.said.rounded[0]}")
        else:
            bad.append(found)
        options.progress("checking annotations", done, len(names))
    notes.extend(report_bad(bad, root, options.on_bad_image))
    if rounded:
        notes.append(
            f"Coordinates that are no whole numbers are rounded in {len(rounded)} file(s): "
            + "; ".join(rounded[:5])
            + ("; and more." if len(rounded) > 5 else ".")
        )
    return items


def _split(
    items: Sequence[_Item], size: tuple[int, int], which: str, with_masks: bool
) -> LocalSplit:
    objects = [_objects(item.said, size) for item in items]
    number = len(CLASSES)
    most = max((len(found) for found in objects), default=0)
    flags = {name: np.zeros((len(items), most), bool) for name in ("truncated", "occluded")}
    difficult = np.zeros((len(items), number), bool)
    labels = multi_hot(objects, number)
    for row, (item, found) in enumerate(zip(items, objects)):
        difficult[row, found.classes] = True
        for name, values in flags.items():
            values[row, : len(found)] = [getattr(o, name) for o in item.said.objects]
    masks = None
    if with_masks or which == "Segmentation":
        masks = np.full((len(items), *size), IGNORED, np.uint8)
        for row, item in enumerate(items):
            if item.mask.is_file() or which == "Segmentation":
                masks[row] = _mask(item, size)
    return LocalSplit(
        FileImages([str(item.image) for item in items], size, 3),
        labels,
        np.array([item.name for item in items], dtype=str),
        {"difficult": difficult & (labels == 0), **flags},
        objects=tuple(objects),
        masks=masks,
    )


def _objects(said: VocImage, size: tuple[int, int]) -> Objects:
    scale = np.array([size[1] / said.size[0], size[0] / said.size[1]] * 2)
    return Objects(
        np.array([o.box for o in said.objects], np.float64).reshape(-1, 4) * scale,
        np.array([CLASSES.index(o.name) for o in said.objects], np.int64),
        np.array([o.difficult for o in said.objects], bool),
    )


def _mask(item: _Item, size: tuple[int, int]) -> np.ndarray:
    """`[height, width]` uint8 of a mask file, the nearest pixel of each place."""
    from PIL import Image

    try:
        facts = inspect_image(item.mask)
        with Image.open(item.mask, formats=["PNG"]) as image:
            mode = image.mode
            pixels = np.asarray(
                image.resize((size[1], size[0]), Image.Resampling.NEAREST), np.uint8
            )
    except BadImage as error:
        raise DataError(f"The mask {item.mask} {error}.") from error
    except Exception as error:  # decoders of foreign bytes raise whatever they like
        raise DataError(f"The mask {item.mask} cannot be read ({first_line(error)}).") from error
    wrong = (pixels > BACKGROUND + len(CLASSES)) & (pixels != IGNORED) if pixels.ndim == 2 else True
    if mode not in ("P", "L") or (facts.width, facts.height) != item.said.size or np.any(wrong):
        raise DataError(
            f"The mask {item.mask} must have the size of its image, and one number a pixel: 0 to "
            f"{len(CLASSES)}, or 255.",
            received=f"{facts.width} x {facts.height}, mode {mode}, values up to {pixels.max()}",
        )
    return pixels


def _stamp(item: _Item) -> list[object]:
    stats = [os.stat(p) for p in (item.image, item.mask) if p.is_file()]
    files = [[s.st_size, s.st_mtime_ns] for s in stats]
    return [item.name, files, [dataclasses.astuple(o) for o in item.said.objects]]
