"""tf.train.Example records written by hand: the stream packer's fast path.

A serialized `tf.train.Example` is a plain concatenation of map entries, so a record with
neighbors is the seed's entries followed by those of its neighbors under other names. Nothing
needs to be parsed, copied into message objects and serialized again, as NSL's packer does.
The names and values are those of `nsl.tools.pack_nbrs`; only the order of the map entries
within a record, which protocol buffers leave open, may differ.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator

import numpy as np

from tfgraphreg.data.dataset import Split

_BLOCK = 1024  # Seeds whose images are fetched together.


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


@functools.lru_cache(maxsize=4096)
def _bytes_entry_head(name: str, size: int) -> bytes:
    """What precedes the payload in the entry of a feature of one value of `size` bytes."""
    value = _head(1, size)
    values = _head(1, len(value) + size)
    feature = _head(2, len(values) + len(value) + size)
    key = _field(1, name.encode())
    inner = len(key) + len(feature) + len(values) + len(value) + size
    return _head(1, inner) + key + feature + values + value


class _Entries:
    """Map entries of the examples of `split`, under any prefix."""

    def __init__(self, split: Split):
        self._labels = split.labels.reshape(len(split), -1)
        self._ids = split.ids
        self._label_entries: dict[tuple[str, bytes], bytes] = {}

    def parts(self, index: int, image: bytes, prefix: str) -> tuple[bytes, ...]:
        """The entries of example `index`, to be joined."""
        name = str(self._ids[index]).encode()
        labels = self._labels[index]
        key = (prefix, labels.tobytes())
        label = self._label_entries.get(key)
        if label is None:
            label = _entry(prefix + "label", _int64_feature(labels))
            # Class numbers and frequent multi-hot rows repeat; rare rows must not pile up.
            if len(self._label_entries) < 100_000:
                self._label_entries[key] = label
        return (
            _bytes_entry_head(prefix + "id", len(name)),
            name,
            label,
            _bytes_entry_head(prefix + "image", len(image)),
            image,
        )


def example_records(split: Split) -> Iterator[bytes]:
    """Serialized examples of `split`: features `id`, `image` (raw uint8 bytes) and `label`."""
    none = np.full((len(split), 0), -1)
    return _records(split, none, none.astype(np.float32), count=False)


def packed_records(split: Split, neighbors: np.ndarray, weights: np.ndarray) -> Iterator[bytes]:
    """Serialized examples with the features of their neighbors, in the order of `split`.

    Args:
        split: N images.
        neighbors: `[N, K]` indices by decreasing preference, padded with -1 at the end.
        weights: `[N, K]` edge weights.
    """
    return _records(split, neighbors, weights, count=True)


def _records(
    split: Split, neighbors: np.ndarray, weights: np.ndarray, *, count: bool
) -> Iterator[bytes]:
    entries = _Entries(split)
    k = neighbors.shape[1]
    prefixes = [f"NL_nbr_{i}_" for i in range(k)]
    # The only varying part of a weight's entry is its four last bytes.
    weight_heads = [_entry(p + "weight", _field(2, _field(1, b"\0" * 4)))[:-4] for p in prefixes]
    counts = [_entry("NL_num_nbrs", _int64_feature(np.array([n]))) for n in range(k + 1)]
    pack_float = struct.Struct("<f").pack
    for start in range(0, len(split), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(split)))
        near = neighbors[rows]
        present = near >= 0
        images = _image_bytes(split, rows)
        others = iter(_image_bytes(split, near[present].astype(np.int64)))
        near_rows, weight_rows = near.tolist(), weights[rows].tolist()
        for row, image, row_near, row_weights in zip(
            rows.tolist(), images, near_rows, weight_rows, strict=True
        ):
            parts = list(entries.parts(row, image, ""))
            found = 0
            for i, other in enumerate(row_near):
                if other < 0:
                    break
                parts.append(weight_heads[i])
                parts.append(pack_float(row_weights[i]))
                parts.extend(entries.parts(other, next(others), prefixes[i]))
                found += 1
            if count:
                parts.append(counts[found])
            features = b"".join(parts)
            yield _head(1, len(features)) + features


def _image_bytes(split: Split, indices: np.ndarray) -> list[bytes]:
    images = np.ascontiguousarray(split.images[indices], dtype=np.uint8)
    size = int(np.prod(images.shape[1:]))
    content = memoryview(images.reshape(-1))
    return [content[i * size : (i + 1) * size].tobytes() for i in range(len(images))]
