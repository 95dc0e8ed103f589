"""Batches from packed records.

A record with fewer than K neighbors is padded with its own image at weight 0, so that no foreign
image (a black one, for example) enters the statistics of batch normalization.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tfgraphreg.errors import DataError
from tfgraphreg.neighbors.lookup import MEMORY_BYTES
from tfgraphreg.neighbors.order import check_batches, epoch_order, index_batches
from tfgraphreg.neighbors.packing import PackedExamples

_BLOCK = 1024
_READERS = 4


def packed_batches(
    packed: PackedExamples,
    *,
    batch_size: int,
    seed: int,
    epochs: int,
    first_epoch: int = 0,
    memory_bytes: int = MEMORY_BYTES,
) -> Any:
    """Batches of packed examples; see `tfgraphreg.neighbors.batches` for what all batches share.

    Features: `image`, and for neighbor i from 0 to K - 1 `NL_nbr_<i>_image` uint8 `[B, height,
    width, channels]` and `NL_nbr_<i>_weight` float32 `[B, 1]`. If an example has fewer neighbors,
    it is repeated with weight 0.

    Args:
        packed: What `pack_neighbors` gave.
        batch_size: B.
        seed: Any integer.
        epochs: Number of the epoch to stop before.
        first_epoch: Number of the first epoch to give.
        memory_bytes: Records of at most this size are read and parsed once, kept in memory, and
            given in exactly the order of the other ways to batch. Larger ones are read anew in
            each epoch: files in random order, records through a shuffle buffer of this size.

    Raises:
        ConfigError: If a number is out of range.
        DataError: If the records in memory turn out to be damaged.
    """
    from tfgraphreg.compat import tf

    check_batches(batch_size, first_epoch, epochs)
    window = {"batch_size": batch_size, "first_epoch": first_epoch, "epochs": epochs}
    if packed.size <= memory_bytes:
        batches = _from_memory(packed, seed=seed, **window)
    else:
        batches = _from_disk(packed, seed=seed, memory_bytes=memory_bytes, **window)
    return batches.prefetch(tf.data.AUTOTUNE)


def parse(packed: PackedExamples, serialized: Any) -> dict[str, Any]:
    """Parses a batch of records.

    Args:
        packed: What they are records of.
        serialized: `[B]` strings.

    Returns:
        `image`, `NL_nbr_<i>_image` and `NL_nbr_<i>_weight` as in `packed_batches`, and `label`
        int64 `[B]` or `[B, C]`.
    """
    from tfgraphreg.compat import tf

    width = [packed.label_width] if packed.multilabel else []
    spec = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature(width, tf.int64),
    }
    for i in range(packed.max_neighbors):
        spec[f"NL_nbr_{i}_image"] = tf.io.FixedLenFeature([], tf.string, default_value="")
        spec[f"NL_nbr_{i}_weight"] = tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0])
    parsed = tf.io.parse_example(serialized, spec)
    size = int(np.prod(packed.image_shape))

    def decode(raw):
        pixels = tf.io.decode_raw(raw, tf.uint8, fixed_length=size, little_endian=True)
        return tf.reshape(pixels, [-1, *packed.image_shape])

    own = parsed["image"]
    result = {"image": decode(own), "label": parsed["label"]}
    for i in range(packed.max_neighbors):
        other = parsed[f"NL_nbr_{i}_image"]
        other = tf.where(tf.equal(tf.strings.length(other), 0), own, other)
        result[f"NL_nbr_{i}_image"] = decode(other)
        result[f"NL_nbr_{i}_weight"] = parsed[f"NL_nbr_{i}_weight"]
    return result


def _from_memory(packed: PackedExamples, *, seed: int, **window: int) -> Any:
    from tfgraphreg.compat import tf

    with tf.device("CPU:0"):
        tables = {name: tf.constant(table) for name, table in _read_all(packed).items()}

    def draw(epoch):
        return [epoch_order(packed.num_examples, seed, epoch)]

    def gather(index):
        return _labeled({name: tf.gather(table, index) for name, table in tables.items()})

    rows = index_batches(draw, [((), np.int64)], **window)
    return rows.map(gather, tf.data.AUTOTUNE, deterministic=True)


def _read_all(packed: PackedExamples) -> dict[str, np.ndarray]:
    """All records, parsed: one array of N rows per feature."""
    from tfgraphreg.compat import tf

    blocks = tf.data.TFRecordDataset(list(packed.files)).batch(_BLOCK)
    blocks = blocks.map(functools.partial(parse, packed), tf.data.AUTOTUNE, deterministic=True)
    tables: dict[str, np.ndarray] = {}
    filled = 0
    try:
        for block in blocks.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
            for name, rows in block.items():
                if name not in tables:
                    tables[name] = np.empty((packed.num_examples, *rows.shape[1:]), rows.dtype)
                tables[name][filled : filled + len(rows)] = rows
            filled += len(block["image"])
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, ValueError) as error:
        raise _damaged(packed) from error
    if filled != packed.num_examples:
        raise _damaged(packed)
    return tables


def _damaged(packed: PackedExamples) -> DataError:
    return DataError(
        f"The packed examples in {packed.files[0]} are damaged.",
        cure="Delete their folder and run the command again.",
    )


def _from_disk(
    packed: PackedExamples,
    *,
    seed: int,
    memory_bytes: int,
    batch_size: int,
    first_epoch: int,
    epochs: int,
) -> Any:
    from tfgraphreg.compat import tf

    buffer = max(int(packed.num_examples * memory_bytes / packed.size), batch_size)

    def shuffled_files(epoch):
        return np.array(packed.files)[epoch_order(len(packed.files), seed, int(epoch))].astype("S")

    def batches(epoch):
        files = tf.ensure_shape(tf.numpy_function(shuffled_files, [epoch], tf.string), [None])
        records = tf.data.Dataset.from_tensor_slices(files).interleave(
            tf.data.TFRecordDataset,
            cycle_length=_READERS,
            num_parallel_calls=_READERS,
            deterministic=True,
        )
        # Without a graph-level seed and with a global seed of 0, TensorFlow would compare the
        # symbolic `epoch` with 0 in Python, which fails.
        tf.compat.v1.set_random_seed(1)
        records = records.shuffle(
            buffer, seed=seed * 1_000_003 + epoch, reshuffle_each_iteration=False
        )
        return records.batch(batch_size)

    dataset = tf.data.Dataset.range(first_epoch, epochs).flat_map(batches)

    def parsed(rows):
        return _labeled(parse(packed, rows))

    return dataset.map(parsed, tf.data.AUTOTUNE, deterministic=True)


def _labeled(features: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    labels = features.pop("label")
    return features, labels
