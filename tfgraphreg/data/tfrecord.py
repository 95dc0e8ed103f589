"""Folders of TFRecord files with images: `tfrecord:PATH`.

A record is a `tf.train.Example` with an image file (`image/encoded` or `image`) and, unless the
image is unlabeled, its class: a number (`image/class/label` or `label`) or a name
(`image/class/text`, or a `label` that is text). These are the names of TensorFlow's own scripts and
of what tensorflow-datasets prepares. Files are told apart by their names: `train`, `validation`,
`test`; where none says so, all are one set, and a fifth of it becomes the test split.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import re
import unicodedata
from typing import Any

import numpy as np

from tfgraphreg.data.dataset import UNLABELED, Dataset, Split
from tfgraphreg.data.decoding import BadImage, inspect_image
from tfgraphreg.data.folder import TEST_FRACTION, image_shape, in_memory
from tfgraphreg.data.layout import SPLITS
from tfgraphreg.data.lazy import LazyImages, workers
from tfgraphreg.data.options import LoadOptions
from tfgraphreg.data.preflight import report_bad
from tfgraphreg.data.record_files import (
    Places,
    RecordImages,
    checked_records,
    features_of,
    find_records,
    image_of,
)
from tfgraphreg.data.splits import divide
from tfgraphreg.data.tfds_features import file_name, make_ids
from tfgraphreg.errors import DataError
from tfgraphreg.reading import parse_json, read_text
from tfgraphreg.storage import UNREADABLE_NPZ, fingerprint, is_sealed, sealed_path, user_path

PREFIX = "tfrecord:"
_NUMBERS = ("image/class/label", "label")
_TEXTS = ("image/class/text", "label")
_NAME_FILES = ("labels.txt", "label.labels.txt")
_SHARD = re.compile(r"(.*?)-(\d{5,})-of-(\d{5,})(.*)", re.DOTALL)
_MOST_CLASSES = 100_000
_LONGEST_NAME = 500
_CHUNK = 512
_PLACES = ("files", "offsets", "lengths")
_COLUMNS = ("facts", "labels", "texts", "names")
_CURE = "Name a folder with files such as train-00000-of-00004.tfrecord and test.tfrecord."


@dataclasses.dataclass(frozen=True)
class _Checked:
    """What the records of a split hold, in their order, without those that cannot be used.

    Attributes:
        places: N records.
        facts: `[N, 3]` int64: height, width, channels of the image files.
        labels: `[N]` int64 numbers, -1 where there is none.
        texts: `[N]` names of classes, empty where there is none.
        names: `[N]` the images' own names, which may be empty.
        bad: `(record, reason)` of the others.
    """

    places: Places
    facts: np.ndarray
    labels: np.ndarray
    texts: np.ndarray
    names: np.ndarray
    bad: list[tuple[str, str]]


def load_tfrecords(path: str, options: LoadOptions) -> Dataset:
    """Loads `tfrecord:PATH`; see the module.

    Every record is read once, compared with its check number and decoded; what was found is kept in
    the cache. Images are decoded again when they are asked for if they are too large for memory.
    Names of classes come from `labels.txt` or `label.labels.txt` in the folder, one a line; else
    from the records; else they are the numbers.

    Raises:
        DataError: If the folder, a shard or a class is missing, a file is truncated or damaged, or
            a record cannot be used and is not to be skipped.
    """
    root = user_path(path)
    if not path.strip() or not root.is_dir():
        raise DataError("The folder of TFRecord files does not exist.", received=path, cure=_CURE)
    root = root.resolve()
    files = _files(root)
    checksum = fingerprint(
        [
            str(root),
            [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for s in files.values() for p in s],
        ]
    )
    checked = {
        split: _checked(paths, options, f"{checksum}-{split}", split)
        for split, paths in files.items()
    }
    bad = [found for split in checked for found in checked[split].bad]
    notes = report_bad(bad, root, options.on_bad_image)
    if not len(checked["train"].places):
        raise DataError("The files hold no usable training image.", received=str(root))
    facts = np.concatenate([found.facts for found in checked.values()])
    size, channels = image_shape(facts, options, notes)
    class_names = _class_names(root, list(checked.values()))
    splits = {}
    for split, found in checked.items():
        images: LazyImages = RecordImages(found.places, size, channels)
        if options.cache_images:
            key = fingerprint([checksum, split, list(images.shape)])
            images = images.cache_to(
                options.cache / "tfrecord" / f"{key}.images.npy", progress=options.progress
            )
        ids = make_ids(split, found.names.tolist())
        splits[split] = Split(images, _numbers(found, class_names), ids)
    train, test = splits["train"], splits.get("test")
    if test is None:
        train, test = divide(train, TEST_FRACTION, seed=options.seed)
        notes.append(
            f"No file in {root} is for the test: a share of {TEST_FRACTION} of the labeled images, "
            f"chosen by the seed {options.seed}, is the test split."
        )
    return Dataset(
        name=f"{PREFIX}{path}",
        train=in_memory(train),
        validation=in_memory(splits.get("validation", train.take(np.arange(0)))),
        test=in_memory(test),
        class_names=class_names,
        source=f"TFRecord files in {root}",
        checksum=checksum,
        notes=tuple(notes),
    )


def _files(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The files of each split, sorted by name; no shard of a set may be missing."""
    paths = [
        path
        for path in sorted(root.iterdir())
        if path.is_file() and not path.name.startswith(".") and _is_records(path.name)
    ]
    packed = [path.name for path in paths if path.suffix in (".gz", ".zip", ".zst")]
    if packed:
        raise DataError(
            "Compressed TFRecord files cannot be read from the middle.",
            received=packed[0],
            cure="Unpack them.",
        )
    if not paths:
        raise DataError("The folder holds no TFRecord file.", received=str(root), cure=_CURE)
    _refuse_missing_shards(paths)
    found: dict[str, list[pathlib.Path]] = {}
    for path in paths:
        found.setdefault(_split_of(path), []).append(path)
    unnamed = found.pop("", [])
    if unnamed and found:
        raise DataError(
            "The name of a TFRecord file must say which split it is of, since others do.",
            received=unnamed[0].name,
            cure="Write train, validation or test into it, or move it elsewhere.",
        )
    if unnamed:
        return {"train": unnamed}
    if "train" not in found:
        raise DataError("No TFRecord file is for training.", received=str(root), cure=_CURE)
    return found


def _is_records(name: str) -> bool:
    return "tfrecord" in name.casefold() or _SHARD.fullmatch(name) is not None


def _split_of(path: pathlib.Path) -> str:
    words = re.split(r"[\W_\d]+", path.name.casefold())
    found = {SPLITS[word] for word in words if word in SPLITS}
    if len(found) > 1:
        raise DataError(
            "The name of a TFRecord file must say which split it is of.",
            received=f"{path.name}, which names {' and '.join(sorted(found))}",
        )
    return found.pop() if found else ""


def _refuse_missing_shards(paths: list[pathlib.Path]) -> None:
    sets = collections.defaultdict(set)
    for path in paths:
        match = _SHARD.fullmatch(path.name)
        if match:
            before, number, count, after = match.groups()
            sets[before, int(count), after].add(int(number))
    for (before, count, after), numbers in sets.items():
        missing = next((n for n in range(min(count, len(numbers) + 1)) if n not in numbers), None)
        if missing is not None:
            raise DataError(
                "A shard of the TFRecord files is missing.",
                received=f"no {before}-{missing:05d}-of-{count:05d}{after}",
                cure="Add it, or rename the others.",
            )


def _checked(paths: list[pathlib.Path], options: LoadOptions, key: str, split: str) -> _Checked:
    """What the records hold; from the cache if the files are as they were."""
    kept = options.cache / "tfrecord" / f"{key}.npz"
    if is_sealed(kept):
        try:
            with np.load(kept, allow_pickle=False) as arrays:
                bad = [(str(name), str(why)) for name, why in parse_json(str(arrays["bad"]))]
                where = (arrays[name] for name in _PLACES)
                columns = {name: arrays[name] for name in _COLUMNS}
                return _Checked(Places(tuple(map(str, paths)), *where), **columns, bad=bad)
        except UNREADABLE_NPZ:
            kept.unlink(missing_ok=True)
    found = _look(find_records(paths), options, split)
    with sealed_path(kept) as part, open(part, "wb") as file:
        kept_arrays: dict[str, Any] = {
            **{name: getattr(found.places, name) for name in _PLACES},
            **{name: getattr(found, name) for name in _COLUMNS},
        }
        np.savez(file, **kept_arrays, bad=np.array(json.dumps(found.bad)))
    return found


def _look(places: Places, options: LoadOptions, split: str) -> _Checked:
    seen: list[Any] = []
    chunk: list[bytes] = []

    def flush() -> None:
        seen.extend(workers().map(_seen, chunk))
        chunk.clear()
        options.progress(f"checking {split} records", len(seen), len(places))

    for record in checked_records(places.paths):
        chunk.append(record)
        if len(chunk) == _CHUNK:
            flush()
    flush()
    if len(seen) != len(places):
        raise DataError(
            "A TFRecord file changed while it was read.",
            received=places.paths[0],
            cure="Try again.",
        )
    good = [row for row, found in enumerate(seen) if not isinstance(found, str)]
    rows = [seen[row] for row in good]
    bad = []
    for row, found in enumerate(seen):
        if isinstance(found, str):
            file = int(places.files[row])
            number = row - int(np.searchsorted(places.files, file))
            bad.append((f"{pathlib.Path(places.paths[file]).name} record {number}", found))
    return _Checked(
        places.take(np.array(good, np.int64)),
        np.array([facts for facts, *_ in rows], np.int64).reshape(-1, 3),
        np.array([label for _, label, _, _ in rows], np.int64),
        np.array([text for *_, text, _ in rows], str),
        np.array([name for *_, name in rows], str),
        bad,
    )


def _seen(record: bytes) -> tuple[tuple[int, int, int], int, str, str] | str:
    """Size, label, name of the class and own name of one record, or why it cannot be used."""
    try:
        features = features_of(record)
        facts = inspect_image(image_of(features))
        label, text = _label(features)
        own = {key: value[0] for key, value in features.items() if len(value) == 1}
        name = file_name(own)
        if len(name) > _LONGEST_NAME:
            raise BadImage(f"has a name of {len(name)} characters")
    except BadImage as error:
        return str(error)
    return (facts.height, facts.width, facts.channels), label, text, name


def _label(features: dict[str, Any]) -> tuple[int, str]:
    """Number and name of the class; -1 and an empty name where it is not given."""
    number, text = UNLABELED, ""
    for key in dict.fromkeys((*_NUMBERS, *_TEXTS)):
        values = features.get(key)
        if not values:
            continue
        if len(values) > 1:
            raise BadImage(f"has {len(values)} labels under {key!r}, and one is needed")
        value = values[0]
        if isinstance(value, int) and key in _NUMBERS and number == UNLABELED:
            if not -1 <= value < _MOST_CLASSES:
                raise BadImage(f"has the label {value}, which is not in [-1, {_MOST_CLASSES})")
            number = value
        elif isinstance(value, bytes) and key in _TEXTS and not text:
            text = _text(value, key)
        elif isinstance(value, float):
            raise BadImage(f"has a label under {key!r} that is no whole number")
    return number, text


def _text(value: bytes, key: str) -> str:
    try:
        text = unicodedata.normalize("NFC", value.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadImage(f"has text under {key!r} that is not UTF-8") from error
    if not _is_name(text):
        raise BadImage(f"has text under {key!r} that is too long or has control characters")
    return text


def _is_name(text: str) -> bool:
    return len(text) <= _LONGEST_NAME and all(unicodedata.category(c) != "Cc" for c in text)


def _class_names(root: pathlib.Path, parts: list[_Checked]) -> tuple[str, ...]:
    """The names of classes, in the order of their numbers."""
    labels = np.concatenate([part.labels for part in parts])
    texts = np.concatenate([part.texts for part in parts])
    named = _names_in_file(root)
    numbered, most = labels >= 0, int(labels.max(initial=-1))
    if named is not None:
        if most >= len(named):
            raise DataError(
                f"{root} has a label beyond the names of its classes.",
                received=f"label {most}, {len(named)} names",
            )
        names = named
    elif numbered.any():
        names = _names_by_number(labels, texts, most + 1, root)
    else:
        names = tuple(sorted({str(text) for text in texts.tolist() if text}))
    unknown = sorted(set(texts[~numbered].tolist()) - {*names, ""})
    if unknown:
        raise DataError(
            f"{root} has a class that is none of the others' names.", received=repr(unknown[0])
        )
    if len(names) < 2:
        raise DataError(
            "A dataset needs at least two classes.",
            received=f"{root} has {len(names)}: {', '.join(names) or 'none'}",
            cure="A record's class is `label` or `image/class/label`, a whole number.",
        )
    return names


def _names_in_file(root: pathlib.Path) -> tuple[str, ...] | None:
    path = next((root / name for name in _NAME_FILES if (root / name).is_file()), None)
    if path is None:
        return None
    try:
        names = tuple(filter(None, (line.strip() for line in read_text(path).splitlines())))
    except ValueError as error:
        raise DataError(f"{path} cannot be used: {error}.") from error
    odd = [name for name in names if not _is_name(name)]
    if odd or len(set(names)) < len(names) or len(names) > _MOST_CLASSES:
        raise DataError(
            f"{path} must hold names of classes, one a line and each once.",
            received=repr((odd or [f"{len(names)} lines"])[0][:60]),
        )
    return names


def _names_by_number(
    labels: np.ndarray, texts: np.ndarray, count: int, root: pathlib.Path
) -> tuple[str, ...]:
    """By the names that stand beside numbers, where each number has one; else the numbers."""
    pairs = {(n, t) for n, t in zip(labels.tolist(), texts.tolist()) if n >= 0 and t}
    names = dict(pairs)
    if len(names) < len(pairs):
        number = next(n for n, c in collections.Counter(n for n, _ in pairs).items() if c > 1)
        both = sorted(t for n, t in pairs if n == number)
        raise DataError(
            f"{root} has two names for one class.", received=f"{number}: {', '.join(both[:2])}"
        )
    whole = [names.get(number, str(number)) for number in range(count)]
    return tuple(whole if len(set(whole)) == count else map(str, range(count)))


def _numbers(found: _Checked, class_names: tuple[str, ...]) -> np.ndarray:
    number = {name: place for place, name in enumerate(class_names)}
    by_text = np.array([number.get(text, UNLABELED) for text in found.texts.tolist()], np.int64)
    return np.where(found.labels >= 0, found.labels, by_text)
