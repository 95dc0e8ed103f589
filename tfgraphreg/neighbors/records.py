"""tf.train.Example records written by hand: the stream packer's fast path.

A serialized `tf.train.Example` is a plain concatenation of map entries, so a record with
neighbors is the seed's entries followed by those of its neighbors under other names. Nothing
needs to be parsed, copied into message objects and serialized again, as NSL's packer does.
The names and values are those of `nsl.tools.pack_nbrs`; only the order of the map entries
within a record, which protocol buffers leave open, may differ.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfgraphreg.data.dataset import Split

_BLOCK = 1024  # Seeds whose images are fetched together.
_KEPT_LABELS = 10_000


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _head(number: int, size: int) -> bytes:
    """What precedes a length-delimited field of `size` bytes."""
    return _varint(number << 3 | 2) + _varint(size)


def _field(number: int, payload: bytes) -> bytes:
    return _head(number, len(payload)) + payload


def _int64_feature(values: np.ndarray) -> bytes:
    packed = b"".join(_varint(int(v) & 0xFFFFFFFFFFFFFFFF) for v in values)
    return _field(3, _field(1, packed))


def _entry(name: str, feature: bytes) -> bytes:
    """One entry of the map `Features.feature`."""
    return _field(1, _field(1, name.encode()) + _field(2, feature))


def _bytes_entry_head(name: str, size: int) -> bytes:
    """What precedes the payload in the entry of a feature of one value of `size` bytes."""
    value = _head(1, size)
    values = _head(1, len(value) + size)
    feature = _head(2, len(values) + len(value) + size)
    key = _field(1, name.encode())
    inner = len(key) + len(feature) + len(values) + len(value) + size
    return _head(1, inner) + key + feature + values + value


class _Place:
    """Entries of the example that stands in one place of a record: the seed, or neighbor i."""

    def __init__(self, split: Split, prefix: str):
        self._prefix = prefix
        self._image = _bytes_entry_head(prefix + "image", int(np.prod(split.images.shape[1:])))
        self._id_heads: dict[int, bytes] = {}
        self._labels: dict[bytes, bytes] = {}

    def entries(self, name: bytes, label: bytes, image: bytes) -> bytes:
        """The entries `id`, `label` and `image`; `label` is a row of int64 as raw bytes."""
        id_head = self._id_heads.get(len(name))
        if id_head is None:
            id_head = _bytes_entry_head(self._prefix + "id", len(name))
            self._id_heads[len(name)] = id_head
        label_entry = self._labels.get(label)
        if label_entry is None:
            values = np.frombuffer(label, np.int64)
            label_entry = _entry(self._prefix + "label", _int64_feature(values))
            # Bounded: class numbers and common multi-hot rows repeat, rare rows would accumulate.
            if len(self._labels) < _KEPT_LABELS:
                self._labels[label] = label_entry
        return b"".join((id_head, name, label_entry, self._image, image))


def example_records(split: Split) -> Iterator[bytes]:
    """Serialized examples of `split`: features `id`, `image` (raw uint8 bytes) and `label`."""
    none = np.full((len(split), 0), -1)
    return _records(split, none, none.astype(np.float32), count=False)


def packed_records(
    split: Split, neighbors: np.ndarray, weights: np.ndarray, *, first: int = 0
) -> Iterator[bytes]:
    """Serialized examples with the features of their neighbors, in the order of `split`.

    Args:
        split: N images.
        neighbors: `[M, K]` indices by decreasing preference, padded with -1 at the end, of M
            examples in a row.
        weights: `[M, K]` edge weights.
        first: The first of these M examples.
    """
    return _records(split, neighbors, weights, count=True, first=first)


def _records(
    split: Split, neighbors: np.ndarray, weights: np.ndarray, *, count: bool, first: int = 0
) -> Iterator[bytes]:
    with contextlib.ExitStack() as stack:
        read = _reader(split.images, stack)
        yield from _written(split, neighbors, weights, read, count=count, first=first)


def _written(
    split: Split,
    neighbors: np.ndarray,
    weights: np.ndarray,
    read: Callable[[np.ndarray], np.ndarray],
    *,
    count: bool,
    first: int,
) -> Iterator[bytes]:
    k = neighbors.shape[1]
    seed = _Place(split, "")
    places = [_Place(split, f"NL_nbr_{i}_") for i in range(k)]
    # The only varying part of a weight's entry is its four last bytes.
    empty = _field(2, _field(1, b"\0" * 4))
    weight_heads = [_entry(f"NL_nbr_{i}_weight", empty)[:-4] for i in range(k)]
    counts = [_entry("NL_num_nbrs", _int64_feature(np.array([n]))) for n in range(k + 1)]
    for start in range(0, len(neighbors), _BLOCK):
        rows = first + np.arange(start, min(start + _BLOCK, len(neighbors)))
        near = neighbors[rows - first]
        found = (near >= 0).sum(axis=1).tolist()
        others = zip(*_contents(split, read, near[near >= 0]))
        weight_bytes = _cut(np.asarray(weights[rows - first], "<f4"), 4)
        for row, content in enumerate(zip(*_contents(split, read, rows))):
            parts = [seed.entries(*content)]
            for i in range(found[row]):
                parts.append(weight_heads[i])
                parts.append(weight_bytes[row * k + i])
                parts.append(places[i].entries(*next(others)))
            if count:
                parts.append(counts[found[row]])
            features = b"".join(parts)
            yield _head(1, len(features)) + features


def _contents(
    split: Split, read: Callable[[np.ndarray], np.ndarray], indices: np.ndarray
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Ids, labels (rows of int64) and images of some examples, as bytes."""
    indices = indices.astype(np.int64)
    names = [str(name).encode() for name in split.ids[indices]]
    labels = np.asarray(split.labels[indices], np.int64)
    width = int(np.prod(labels.shape[1:]))
    images = read(indices)
    return names, _cut(labels, width * 8), _cut(images, int(np.prod(images.shape[1:])))


def _reader(images: Any, stack: contextlib.ExitStack) -> Callable[[np.ndarray], np.ndarray]:
    """A function from indices to images.

    A memory map of a whole file is replaced by ordinary reads: its mapped pages would count as this
    process's memory.
    """
    own = isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap)
    if not own or images.mode != "r" or not images.flags.c_contiguous or not images.filename:
        return lambda indices: np.asarray(images[indices], np.uint8)
    file = stack.enter_context(pathlib.Path(images.filename).open("rb", buffering=0))  # noqa: SIM115
    size, first = int(images[0].nbytes), int(images.offset)
    shape, dtype = images.shape[1:], images.dtype

    def read(indices: np.ndarray) -> np.ndarray:
        parts = [os.pread(file.fileno(), size, first + size * i) for i in indices.tolist()]
        rows = np.frombuffer(b"".join(parts), dtype).reshape(len(indices), *shape)
        return np.asarray(rows, np.uint8)

    return read


def _cut(array: np.ndarray, size: int) -> list[bytes]:
    """The bytes of `array` in pieces of `size`."""
    content = array.tobytes()
    return [content[i : i + size] for i in range(0, len(content), size)]
