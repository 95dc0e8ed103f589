"""Records in TFRecord files: where each lies, and images read from there when they are asked for.

A record is its length (8 bytes), a check number of that (4), the content, and a check number of the
content (4).
"""

from __future__ import annotations

import dataclasses
import pathlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfgraphreg.data.decoding import BadImage, decode_image
from tfgraphreg.data.lazy import DecodedImages
from tfgraphreg.errors import DataError, first_line

IMAGE_KEYS = ("image/encoded", "image", "image_raw", "encoded_image")
"""Features that hold an image file, in order of preference."""
_HEAD, _TAIL = 12, 4
_CURE = "Copy the file again, or make it again."


@dataclasses.dataclass(frozen=True)
class Places:
    """Where N records lie.

    Attributes:
        paths: Files.
        files: `[N]` int32, which of them.
        offsets: `[N]` int64, the first byte of the content.
        lengths: `[N]` int64, its bytes.
    """

    paths: tuple[str, ...]
    files: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def take(self, rows: np.ndarray) -> Places:
        """Some of them."""
        return Places(self.paths, self.files[rows], self.offsets[rows], self.lengths[rows])

    def read(self, row: int) -> bytes:
        """The content of one.

        Raises:
            OSError: If the file cannot be read.
        """
        with open(self.paths[self.files[row]], "rb") as file:
            file.seek(int(self.offsets[row]))
            return file.read(int(self.lengths[row]))


def find_records(paths: Sequence[pathlib.Path]) -> Places:
    """Where the records of TFRecord files lie, by their lengths alone.

    Raises:
        DataError: If a file cannot be read, or ends within a record.
    """
    found: list[tuple[int, int, int]] = []
    for number, path in enumerate(paths):
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                at = 0
                while at < size:
                    file.seek(at)
                    head = file.read(_HEAD)
                    length = struct.unpack("<Q", head[:8])[0] if len(head) == _HEAD else size
                    # A length from outside is believed up to the end of the file.
                    if at + _HEAD + length + _TAIL > size:
                        raise DataError(
                            f"{path} is no TFRecord file, or is truncated.",
                            received=f"{size} bytes; the record at byte {at} goes beyond them",
                            cure=_CURE,
                        )
                    found.append((number, at + _HEAD, length))
                    at += _HEAD + length + _TAIL
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    table = np.array(found, np.int64).reshape(-1, 3)
    names = tuple(map(str, paths))
    return Places(names, table[:, 0].astype(np.int32), table[:, 1], table[:, 2])


def checked_records(paths: Sequence[str]) -> Iterator[bytes]:
    """The contents of the records of files, one after the other, each compared with its check.

    Raises:
        DataError: If a record was changed after it was written.
    """
    from tfgraphreg.compat import tf

    for path in paths:
        done = 0
        try:
            for record in tf.data.TFRecordDataset(path, buffer_size=1 << 20).as_numpy_iterator():
                yield record
                done += 1
        except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
            raise DataError(
                f"{path} is damaged: record {done} is not as it was written.",
                received=first_line(error),
                cure=_CURE,
            ) from error


def features_of(record: bytes) -> dict[str, Any]:
    """The features of a serialized `tf.train.Example`: lists of bytes, int or float by name.

    Raises:
        BadImage: If it is none.
    """
    from google.protobuf.message import DecodeError

    from tfgraphreg.compat import tf

    try:
        example = tf.train.Example.FromString(record)
    except DecodeError as error:
        raise BadImage("is no tf.train.Example") from error
    found = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind is not None:
            found[name] = list(getattr(feature, kind).value)
    return found


def image_of(features: dict[str, Any]) -> bytes:
    """The image file in an example.

    Raises:
        BadImage: If there is none.
    """
    for key in IMAGE_KEYS:
        value = features.get(key)
        if value and isinstance(value[0], bytes):
            if len(value) > 1:
                raise BadImage(f"has {len(value)} images under {key!r}")
            return bytes(value[0])
    raise BadImage(f"has no image file under one of {', '.join(IMAGE_KEYS)}")


class RecordImages(DecodedImages):
    """Image files within TFRecord files.

    Args:
        places: N records.
        size: `(height, width)`.
        channels: 1 or 3.
    """

    def __init__(self, places: Places, size: tuple[int, int], channels: int):
        self._places = places
        super().__init__((*size, channels), np.arange(len(places)))

    def _decode(self, row: int) -> np.ndarray:
        try:
            record = self._places.read(row)
            return decode_image(image_of(features_of(record)), self.shape[1:3], self.shape[3])
        except (BadImage, OSError) as error:
            path = self._places.paths[self._places.files[row]]
            raise DataError(
                f"An image in {path} cannot be read ({first_line(error)}).",
                cure="The file has changed since the check at the start: run again.",
            ) from error

    def take_rows(self, indices: np.ndarray) -> RecordImages:
        """The images at `indices`, still unread."""
        return RecordImages(self._places.take(indices), self.shape[1:3], self.shape[3])
