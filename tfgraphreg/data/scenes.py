"""The dataset `scenes`: real items on cluttered canvases, with exact boxes and masks.

A name says everything: `scenes` and `scenes:fashion` place items of Fashion-MNIST,
`scenes:digits` scikit-learn's digits, which need no network. Numbers may follow, as in
`scenes:fashion?n=5000&size=96`:

* `n`: training scenes, 1 to 100,000; default 16,000.
* `test`: test scenes; default a quarter of `n`, at least 1 and at most 1,000.
* `size`: side in pixels, 32 to 512; default 96.
* `seed`: default 0. It decides the scenes, whatever the seed of a training is.

Training scenes show items of the training set alone, test scenes those of the test set. A scene is
a function of its number, the items, `size` and `seed`: with a larger `n` the first scenes stay as
they are.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from tfgraphreg.data import digits
from tfgraphreg.data.canvas import Items, draw_scene
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.data.known import FASHION_MNIST
from tfgraphreg.data.local import LocalSplit, multi_hot
from tfgraphreg.data.options import LoadOptions
from tfgraphreg.data.sources import find_files
from tfgraphreg.errors import DataError, did_you_mean
from tfgraphreg.storage import fingerprint

NAME = "scenes"
ITEMS = ("fashion", "digits")
DEFAULT_SIZE = 96
_TRAIN, _TEST = 48_000, 1000
_LIMITS = {"n": (1, 100_000), "test": (1, 100_000), "size": (32, 512), "seed": (0, 2**31 - 1)}
_MOST_BYTES = 8 << 30
_SPLITS = ("train", "test")
# Of the digits, every fifth is for the test.
_DIGITS_TEST = 5
# Darker pixels of an item are the black that its photograph stands on.
_DARKEST = 24
_VERSION = 2


@dataclasses.dataclass(frozen=True)
class SceneSettings:
    """What a name of `scenes` says, see the module."""

    items: str = "fashion"
    n: int = _TRAIN
    test: int = _TEST
    size: int = DEFAULT_SIZE
    seed: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Scenes in each split."""
        return dict(zip(_SPLITS, (self.n, self.test)))


def is_scenes(name: str) -> bool:
    """Whether a dataset name is one of `scenes`."""
    return re.match(r"scenes($|[:?])", name) is not None


def parse(name: str) -> SceneSettings:
    """The settings of a name such as `scenes:digits?n=100`.

    Raises:
        DataError: If the items or a setting are unknown, or a number is none or out of range.
    """
    place, _, query = name.partition("?")
    items = place.removeprefix(NAME).removeprefix(":") or ITEMS[0]
    if items not in ITEMS:
        raise DataError(
            f"Scenes are made of {' or '.join(ITEMS)}.",
            received=f"dataset={name}",
            cure=did_you_mean(items, ITEMS),
        )
    numbers: dict[str, int] = {}
    for part in query.split("&") if query else []:
        key, _, value = part.partition("=")
        if key not in _LIMITS or key in numbers:
            raise DataError(
                f"Settings of scenes are {', '.join(_LIMITS)}, each once, as in "
                "scenes:digits?n=100&size=64.",
                received=f"dataset={name}",
                cure=did_you_mean(key, tuple(_LIMITS)),
            )
        low, high = _LIMITS[key]
        number = int(value) if re.fullmatch(r"[0-9]{1,10}", value) else -1
        if not low <= number <= high:
            raise DataError(
                f"`{key}` of scenes must be a whole number from {low} to {high}.",
                received=f"dataset={name}",
            )
        numbers[key] = number
    if "n" in numbers:
        numbers.setdefault("test", min(_TEST, max(1, numbers["n"] // 4)))
    found = SceneSettings(items, **numbers)
    if sum(found.counts.values()) * found.size**2 * 4 > _MOST_BYTES:
        raise DataError(
            "So many scenes of this size do not fit into 8 GB.",
            received=f"dataset={name}",
            cure="Use a smaller n or size.",
        )
    return found


def load_scenes(name: str, options: LoadOptions) -> Dataset:
    """Draws the scenes of a name.

    Raises:
        DataError: If the name is wrong, or the items of Fashion-MNIST cannot be had.
    """
    wanted = parse(name)
    if options.image_size is not None:
        raise DataError(
            "Scenes have the size that their name says.",
            received=f"image_size={options.image_size}",
            cure=f"Use {NAME}:{wanted.items}?size={options.image_size}.",
        )
    items, class_names, source = _items(wanted, options)
    splits = {
        split: _draw(split, items[split], wanted, len(class_names), options) for split in _SPLITS
    }
    return Dataset(
        name=name,
        train=splits["train"],
        validation=splits["train"].take(np.arange(0)),
        test=splits["test"],
        class_names=class_names,
        source=f"scenes drawn with seed {wanted.seed} from {source}",
        checksum=fingerprint([NAME, _VERSION, dataclasses.asdict(wanted)]),
    )


def _draw(
    split: str, items: Items, wanted: SceneSettings, classes: int, options: LoadOptions
) -> LocalSplit:
    count, size = wanted.counts[split], wanted.size
    images = np.empty((count, size, size, 3), np.uint8)
    masks = np.empty((count, size, size), np.uint8)
    objects = []
    for number in range(count):
        rng = np.random.default_rng([wanted.seed, _SPLITS.index(split), number])
        images[number], masks[number], found = draw_scene(items, size, rng)
        objects.append(found)
        options.progress(f"drawing {split} scenes", number + 1, count)
    # Six digits, so that ids stay the same for every number of scenes.
    ids = np.array([f"{NAME}/{split}/{number:06d}" for number in range(count)])
    labels = multi_hot(objects, classes)
    return LocalSplit(images, labels, ids, objects=tuple(objects), masks=masks)


def _items(
    wanted: SceneSettings, options: LoadOptions
) -> tuple[dict[str, Items], tuple[str, ...], str]:
    """The items of each split, the names of their classes, and where they came from."""
    if wanted.items == "digits":
        images, labels = digits.read()
        test = np.arange(len(labels)) % _DIGITS_TEST == 0
        parts = {"train": ~test, "test": test}
        found = {split: _strokes(images[rows], labels[rows]) for split, rows in parts.items()}
        return found, digits.CLASS_NAMES, "scikit-learn's embedded digits"
    files, source = find_files(
        FASHION_MNIST,
        data_dir=options.data_dir,
        cache_dir=options.cache_dir,
        offline=options.offline,
        progress=options.progress,
    )
    read = FASHION_MNIST.parse(files)
    found = {split: _silhouettes(*read[split]) for split in _SPLITS}
    return found, FASHION_MNIST.class_names, source


def _strokes(images: np.ndarray, labels: np.ndarray) -> Items:
    """Digits: their shape is what is written, so a 0 has a hole."""
    return Items(images[..., 0], images[..., 0] > 127, labels)


def _silhouettes(images: np.ndarray, labels: np.ndarray) -> Items:
    """Clothing: dark parts inside the outline belong to it too."""
    from scipy import ndimage

    bright = images[..., 0] > _DARKEST
    # Of a stack of images, each by itself: no connection to the image before and behind.
    flat = np.zeros((3, 3, 3), bool)
    flat[1] = ndimage.generate_binary_structure(2, 1)
    return Items(images[..., 0], ndimage.binary_fill_holes(bright, flat), labels)
