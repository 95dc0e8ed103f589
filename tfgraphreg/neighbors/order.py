"""The order of the images: one permutation for each epoch, from (seed, epoch) alone.

So plain training, `packed`, `bank` and `gathered` of top neighbors see the same images in the same
batches, and a run that is resumed at epoch e continues exactly as if it had not stopped.
Pairs, and groups of sampled neighbors, come in an order made from this one and the graph.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import ConfigError

_ORDER, _DRAW, _LABELED = 1, 2, 3


def epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """`[N]` int64: the permutation in which epoch `epoch` sees N examples."""
    return np.random.default_rng([_ORDER, abs(int(seed)), int(epoch)]).permutation(num_examples)


def epoch_draw(seed: int, epoch: int) -> int:
    """A 63-bit seed for an epoch's other draws: matchings, sampled neighbors."""
    return int(np.random.default_rng([_DRAW, abs(int(seed)), int(epoch)]).integers(2**63))


def steps_per_epoch(num_examples: int, batch_size: int, labeled_batch: int = 0) -> int:
    """Batches in one epoch; the last one may be smaller.

    Args:
        num_examples: N.
        batch_size: B.
        labeled_batch: Rows of a batch that are drawn from the labeled examples. The others see
            every example once an epoch; if there are no others, an epoch has as many steps as
            without such rows.
    """
    return math.ceil(num_examples / (batch_size - labeled_batch or batch_size))


@dataclasses.dataclass(frozen=True)
class LabeledRows:
    """Rows that come first in every batch and are drawn from the labeled examples.

    Attributes:
        labeled: `[M]` indices of the labeled examples, at least one.
        rows: Of each batch, 1 to `batch_size`. If all, nothing else is seen.
        batch_size: B.
        seed: Any integer.
    """

    labeled: np.ndarray
    rows: int
    batch_size: int
    seed: int

    def __post_init__(self):
        if not len(self.labeled):
            raise ConfigError(
                "`labeled_batch` needs labeled examples.",
                received="none",
                cure="Label some, or use `labeled_batch=0`.",
            )
        if not 1 <= self.rows <= self.batch_size:
            raise ConfigError(
                f"`labeled_batch` must be from 1 to `batch_size` ({self.batch_size}).",
                received=f"labeled_batch={self.rows}",
            )

    def among(self, order: np.ndarray, epoch: int) -> np.ndarray:
        """The order `[N]` of an epoch, with the labeled rows of each batch put before the others.

        The labeled examples come in permutations, one after the other, drawn from (seed, epoch).
        """
        steps = steps_per_epoch(len(order), self.batch_size, self.rows)
        draws = np.random.default_rng([_LABELED, abs(int(self.seed)), int(epoch)])
        needed = steps * self.rows
        turns = math.ceil(needed / len(self.labeled))
        drawn = np.concatenate([draws.permutation(self.labeled) for _ in range(turns)])
        return self.beside(order, drawn[:needed])

    def beside(self, values: np.ndarray, own: np.ndarray) -> np.ndarray:
        """`values` of the examples in order, with those of the labeled rows put in: `own`."""
        size = self.batch_size - self.rows
        if not size:
            return own
        steps = len(own) // self.rows
        parts = [
            part
            for step in range(steps)
            for part in (
                own[step * self.rows : (step + 1) * self.rows],
                values[step * size : (step + 1) * size],
            )
        ]
        return np.concatenate(parts)


def index_batches(
    draw: Callable[[int], Sequence[np.ndarray]],
    row_shapes: Sequence[tuple[tuple[int, ...], Any]],
    *,
    batch_size: int,
    first_epoch: int,
    epochs: int | None,
) -> Any:
    """A tf.data.Dataset of tuples: the arrays of all epochs, cut into batches.

    Args:
        draw: Gives the arrays of an epoch, each with one row per example, in the order in which
            they are seen. Called once an epoch, one epoch ahead of its use.
        row_shapes: Shape of a row and dtype, for each of the arrays.
        batch_size: B. The last batch of an epoch holds what is left.
        first_epoch: Number of the first epoch to give.
        epochs: Number of the epoch to stop before. If None, the dataset holds one epoch, and each
            time that it is iterated over it is the next one, counted from `first_epoch`.

    Raises:
        ConfigError: If `batch_size` or the range of epochs cannot be.
    """
    from tfgraphreg.compat import tf

    check_batches(batch_size, first_epoch, epochs)
    types = [tf.as_dtype(dtype) for _, dtype in row_shapes]

    def one_epoch(epoch):
        arrays = tf.numpy_function(
            lambda e: [
                np.ascontiguousarray(a, t.as_numpy_dtype) for a, t in zip(draw(int(e)), types)
            ],
            [epoch],
            types,
        )
        return tuple(tf.ensure_shape(a, [None, *s]) for a, (s, _) in zip(arrays, row_shapes))

    def batches(*arrays):
        return tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)

    if epochs is None:
        numbers = itertools.count(first_epoch)
        numbered = tf.data.Dataset.range(1).map(
            lambda _: tf.numpy_function(lambda: np.int64(next(numbers)), [], tf.int64)
        )
    else:
        numbered = tf.data.Dataset.range(first_epoch, epochs)
    return numbered.map(one_epoch).prefetch(1).flat_map(batches)


def check_batches(batch_size: int, first_epoch: int, epochs: int | None) -> None:
    """Raises ConfigError unless batch size and range of epochs are valid."""
    if batch_size < 1:
        raise ConfigError("`batch_size` must be at least 1.", received=f"batch_size={batch_size}")
    if not 0 <= first_epoch <= (first_epoch if epochs is None else epochs):
        raise ConfigError(
            "`first_epoch` must be from 0 to `epochs`.",
            received=f"first_epoch={first_epoch}, epochs={epochs}",
        )
