"""Neighbors beside each example, under NSL's keys: `Packed` and `Gathered`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from tfgraphreg.compat import tf
from tfgraphreg.errors import DataError
from tfgraphreg.neighbors import batches as batching
from tfgraphreg.neighbors.mode import Edges, Features, NeighborMode, Pass, check_k

INDEX = "index"
_PREFIX = "NL_"
_BESIDE = re.compile(r"NL_nbr_(\d+)_")
# The number of distinct rows in a pass is a multiple of this: each new shape costs a compilation.
_SHAPES = 16


class _Beside(NeighborMode):
    """Neighbors beside each example: NSL's `NL_nbr_<i>_<input>` and `NL_nbr_<i>_weight`."""

    k: int

    def owns(self, key: str) -> bool:
        """See `NeighborMode`."""
        return key.startswith(_PREFIX)

    def reserves(self, key: str) -> bool:
        """See `NeighborMode`; `index` identifies duplicates in a batch."""
        return self.owns(key) or key == INDEX

    def inputs(self, features: Features) -> dict[str, Any]:
        """See `NeighborMode`."""
        numbered = _indexed(features)
        found = super().inputs(features)
        return {key: v for key, v in found.items() if not (numbered and key == INDEX)}

    def needs(self, inputs: Iterable[str]) -> list[str]:
        """See `NeighborMode`."""
        return [f"NL_nbr_{i}_{name}" for i in range(self.k) for name in [*inputs, "weight"]]

    def check(self, features: Features) -> None:
        """See `NeighborMode`."""
        super().check(features)
        most = count_neighbors(features)
        if most > self.k:
            raise DataError(
                f"A batch for {self!r} holds neighbors that would not be used.",
                received=f"{most} neighbors an example",
                cure=f"Use k={most}.",
            )
        indices = [INDEX, *(f"NL_nbr_{i}_index" for i in range(self.k))]
        absent = [key for key in indices if key not in features]
        if _indexed(features) and absent:
            raise DataError(
                "A batch must carry the index of every example and neighbor, or none.",
                received=f"no {', '.join(absent)}",
            )

    def gather(self, features: Features, *, fold: bool) -> Pass:
        """See `NeighborMode`."""
        own = self.inputs(features)

        def together(name: str) -> Any:
            near = [features[f"NL_nbr_{i}_{name}"] for i in range(self.k)]
            return tf.concat([features[name], _interleaved(near)], axis=0)

        batch = tf.shape(features["NL_nbr_0_weight"])[0]
        inputs = {name: together(name) for name in own}
        if not (fold and _indexed(features)):
            return Pass(inputs, rows=batch)
        rows, places = _distinct(together(INDEX))
        return Pass({name: tf.gather(v, rows) for name, v in inputs.items()}, places, batch)

    def edges(self, compared: Any, features: Features, memory: Any) -> Edges:
        """See `NeighborMode`."""
        weights = [features[f"NL_nbr_{i}_weight"] for i in range(self.k)]
        rows = tf.shape(weights[0])[0]
        sources = tf.repeat(compared[:rows], self.k, axis=0)
        flat = [tf.reshape(weight, [-1]) for weight in weights]
        return Edges(sources, compared[rows:], _interleaved(flat))


@dataclasses.dataclass(frozen=True)
class Packed(_Beside):
    """The K heaviest neighbors beside each example, as `nsl.tools.pack_nbrs` packs them.

    Keys: for neighbor i from 0 to k - 1 `NL_nbr_<i>_<input>` and `NL_nbr_<i>_weight` `[B, 1]`.

    Args:
        k: Neighbors of an example, at least 1. An example with fewer brings itself, with weight 0.
    """

    k: int = 1

    def __post_init__(self):
        check_k(self)

    def batches(self, data: Any, graph: Any, *, replicas: int = 1, **window: Any) -> Any:
        """See `NeighborMode`."""
        return batching.gathered_batches(data, graph, max_neighbors=self.k, **window)


@dataclasses.dataclass(frozen=True)
class Gathered(_Beside):
    """K neighbors beside each example, chosen anew in each epoch.

    Keys: those of `Packed`; and, if neighbors are sampled, `index` and `NL_nbr_<i>_index` `[B]`,
    by which an example that occurs twice in a batch is computed once.

    Args:
        k: Neighbors of an example, at least 1.
        sample: `"uniform"`, `"weight"` (in proportion to weight), or `"top"`: the heaviest, which
            is `Packed`.
    """

    k: int = 1
    sample: str = "uniform"

    def __post_init__(self):
        check_k(self)
        from tfgraphreg.neighbors.sampling import check_sample

        check_sample(self.sample)

    def batches(self, data: Any, graph: Any, *, replicas: int = 1, **window: Any) -> Any:
        """See `NeighborMode`."""
        return batching.gathered_batches(
            data, graph, max_neighbors=self.k, sample=self.sample, **window
        )


def count_neighbors(keys: Iterable[str]) -> int:
    """One more than the largest i of the keys `NL_nbr_<i>_...`."""
    return max((int(m[1]) + 1 for m in map(_BESIDE.match, keys) if m), default=0)


def _indexed(keys: Iterable[str]) -> bool:
    return any(m and key == f"{m[0]}index" for key in keys for m in [_BESIDE.match(key)])


def _interleaved(parts: list[Any]) -> Any:
    """`[B K, ...]` of K tensors `[B, ...]`: the neighbors of an example one after the other."""
    if len(parts) == 1:
        return parts[0]
    stacked = tf.stack(parts, axis=1)
    return tf.reshape(stacked, tf.concat([[-1], tf.shape(parts[0])[1:]], axis=0))


def _distinct(index: Any) -> tuple[Any, Any]:
    """Rows that hold each index once `[U]`, and the place among them of each of the M `[M]`.

    Some are repeated to make U a multiple of 16 (or M), so that there are few shapes: each new one
    costs a compilation.
    """
    names, places = tf.unique(index)
    rows, distinct = tf.shape(index)[0], tf.shape(names)[0]
    first = tf.math.unsorted_segment_min(tf.range(rows), places, distinct)
    padded = tf.minimum((distinct + _SHAPES - 1) // _SHAPES * _SHAPES, rows)
    return tf.gather(first, tf.range(padded) % distinct), places
