"""Ways to bring neighbors into a batch, as values.

A mode owns the keys of its batches: it makes such batches, checks them and reads their edges. The
model knows nothing else of neighbors.

Shapes: B batch, K neighbors, D width of what is compared, M rows of one pass through the model.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from tfgraphreg.compat import tf
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.neighbors import batches as batching
from tfgraphreg.neighbors.bank import EmbeddingBank

INDEX = "index"
PAIR_WEIGHT = "pair_weight"
KNOWN = "known_neighbors"
NEIGHBOR_INDEX = "neighbor_index"
NEIGHBOR_WEIGHT = "neighbor_weight"
_PREFIX = "NL_"
_BESIDE = re.compile(r"NL_nbr_(\d+)_")
# The number of distinct rows in a pass is a multiple of this: each new shape costs a compilation.
_SHAPES = 16

Features = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Edges:
    """E edges of a batch: `sources` and `targets` `[E, D]`, `weights` `[E]`.

    `known` `[E, E]` bool, if the batch tells: whether target j is source i again, or a graph
    neighbor of it in either direction.
    """

    sources: Any
    targets: Any
    weights: Any
    known: Any = None


@dataclasses.dataclass(frozen=True)
class Pass:
    """What goes through the model at once.

    Attributes:
        inputs: The model's inputs by name, `[M, ...]`.
        places: `[B (K + 1)]`: where in the pass each row of the batch and its neighbors is; None
            if they are the rows of the pass, in this order.
        rows: B, where the pass holds more rows than the batch; else None.
    """

    inputs: dict[str, Any]
    places: Any = None
    rows: Any = None


class NeighborMode(abc.ABC):
    """A way to bring neighbors into a batch: `Packed`, `Gathered`, `Paired` or `Bank`.

    Every batch of features holds the model's inputs by name and what the mode adds to them.
    """

    @abc.abstractmethod
    def owns(self, key: str) -> bool:
        """Whether the mode reads the feature `key`, so that it is not an input of the model."""

    @abc.abstractmethod
    def needs(self, inputs: Iterable[str]) -> list[str]:
        """The keys that a batch with these inputs must hold besides them."""

    @abc.abstractmethod
    def edges(self, compared: Any, features: Features, memory: Any) -> Edges:
        """The edges of a batch.

        Args:
            compared: `[M, D]`, in the order of the pass, `[B (K + 1), D]` after `places`.
            features: The batch.
            memory: What `make_memory` gave.
        """

    @abc.abstractmethod
    def batches(self, data: Any, graph: Any, **window: Any) -> Any:
        """A `tf.data.Dataset` of `(features, labels)`, labels -1 where missing.

        Args:
            data: `Examples` or a `Split`, N of them.
            graph: `SimilarityGraph` of N nodes.
            **window: `batch_size`, `seed`, `epochs`, `first_epoch`, see
                `tfgraphreg.neighbors.batches`; and `replicas`, the number that share a batch.
        """

    def inputs(self, features: Features) -> dict[str, Any]:
        """The model's inputs among the features."""
        return {key: value for key, value in features.items() if not self.owns(key)}

    def missing(self, features: Features) -> list[str]:
        """The keys that the mode needs and the batch lacks."""
        return sorted(set(self.needs(self.inputs(features))) - set(features))

    def check(self, features: Features) -> None:
        """Raises DataError unless the batch holds the keys that the mode needs, and no others."""
        if not isinstance(features, Mapping):
            raise DataError(
                f"A batch for {self!r} must be a dictionary of features.",
                received=type(features).__name__,
                cure="Make batches with tfgraphreg.with_neighbors, or use alpha=0.",
            )
        missing = self.missing(features)
        if missing:
            raise DataError(
                f"A batch for {self!r} lacks keys.",
                received=f"the keys {', '.join(sorted(features))}, without {', '.join(missing)}",
                cure="Make batches with tfgraphreg.with_neighbors, or name the keys so.",
            )

    def gather(self, features: Features, *, fold: bool) -> Pass:
        """What goes through the model for a batch.

        Args:
            features: The batch.
            fold: Whether duplicates may be computed once.
        """
        return Pass(self.inputs(features))

    @property
    def remembers(self) -> bool:
        """Whether the mode needs a memory of earlier batches."""
        return False

    def make_memory(self, width: int) -> Any:
        """The memory for embeddings of width D; only where `remembers`."""
        raise NotImplementedError

    def remember(self, compared: Any, features: Features, memory: Any) -> None:  # noqa: B027
        """Called after each training batch where `remembers`; `compared` are the batch's rows."""


class _Beside(NeighborMode):
    """Neighbors beside each example: NSL's `NL_nbr_<i>_<input>` and `NL_nbr_<i>_weight`."""

    k: int

    def owns(self, key: str) -> bool:
        """See `NeighborMode`."""
        return key.startswith(_PREFIX)

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
        most = _count(features)
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
        _check_k(self)

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
        _check_k(self)
        from tfgraphreg.neighbors.sampling import check_sample

        check_sample(self.sample)

    def batches(self, data: Any, graph: Any, *, replicas: int = 1, **window: Any) -> Any:
        """See `NeighborMode`."""
        return batching.gathered_batches(
            data, graph, max_neighbors=self.k, sample=self.sample, **window
        )


@dataclasses.dataclass(frozen=True)
class Paired(NeighborMode):
    """Neighbors side by side in one batch: no further rows, one edge for each two rows.

    Keys: `pair_weight` `[B]`, the weight of the edge between rows 2i and 2i + 1, in both rows;
    with `known` also `known_neighbors` `[B, B]` bool: whether two rows are one example, or joined
    by an edge of the graph in either direction.

    Args:
        by_weight: Whether an example prefers its heavier edges, in proportion to weight.
        correction: `[E]` factors on the weights of the graph's edges, or None.
        known: Whether batches name all graph neighbors among their rows, which a contrast needs.
            On one replica only.
    """

    by_weight: bool = False
    correction: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)
    known: bool = False

    def owns(self, key: str) -> bool:
        """See `NeighborMode`."""
        return key in (PAIR_WEIGHT, KNOWN)

    def needs(self, inputs: Iterable[str]) -> list[str]:
        """See `NeighborMode`."""
        return [PAIR_WEIGHT, KNOWN] if self.known else [PAIR_WEIGHT]

    def edges(self, compared: Any, features: Features, memory: Any) -> Edges:
        """See `NeighborMode`."""
        weights = tf.reshape(features[PAIR_WEIGHT], [-1])
        pairs = tf.shape(weights)[0] // 2 * 2
        known = features[KNOWN][0:pairs:2, 1:pairs:2] if self.known else None
        return Edges(compared[0:pairs:2], compared[1:pairs:2], weights[0:pairs:2], known)

    def batches(self, data: Any, graph: Any, **window: Any) -> Any:
        """See `NeighborMode`."""
        return batching.paired_batches(
            data,
            graph,
            by_weight=self.by_weight,
            correction=self.correction,
            known=self.known,
            **window,
        )


@dataclasses.dataclass(frozen=True)
class Bank(NeighborMode):
    """K neighbors of each example from a table of the embeddings that were last seen.

    Keys: `index` `[B]`, `neighbor_index` and `neighbor_weight` `[B, K]`.

    Args:
        k: Neighbors of an example, at least 1.
        size: N, the number of examples. A model needs it, batches do not.
        sample: See `Gathered`.
    """

    k: int = 10
    size: int | None = None
    sample: str = "top"
    _keys: ClassVar[tuple[str, ...]] = (INDEX, NEIGHBOR_INDEX, NEIGHBOR_WEIGHT)

    def __post_init__(self):
        _check_k(self)
        from tfgraphreg.neighbors.sampling import check_sample

        check_sample(self.sample)
        if self.size is not None and self.size < 1:
            raise ConfigError("`size` must be at least 1.", received=f"size={self.size}")

    def owns(self, key: str) -> bool:
        """See `NeighborMode`."""
        return key in self._keys

    def needs(self, inputs: Iterable[str]) -> list[str]:
        """See `NeighborMode`."""
        return list(self._keys)

    def check(self, features: Features) -> None:
        """See `NeighborMode`."""
        super().check(features)
        width = features[NEIGHBOR_INDEX].shape[-1]
        if width is not None and width != self.k:
            raise DataError(
                f"A batch for {self!r} must name {self.k} neighbors an example.",
                received=f"{width} neighbors an example",
                cure=f"Use k={width}.",
            )

    def edges(self, compared: Any, features: Features, memory: EmbeddingBank) -> Edges:
        """See `NeighborMode`."""
        targets, seen = memory.read(features[NEIGHBOR_INDEX])
        sources = tf.repeat(compared, tf.shape(targets)[1], axis=0)
        targets = tf.reshape(targets, [-1, tf.shape(targets)[2]])
        return Edges(sources, targets, tf.reshape(features[NEIGHBOR_WEIGHT] * seen, [-1]))

    @property
    def remembers(self) -> bool:
        """See `NeighborMode`."""
        return True

    def make_memory(self, width: int) -> EmbeddingBank:
        """See `NeighborMode`."""
        if self.size is None:
            raise ConfigError(
                "A bank needs the number of examples.",
                received=repr(self),
                cure="Pass mode=Bank(k, size=N) to GraphRegularization.",
            )
        return EmbeddingBank(self.size, width)

    def remember(self, compared: Any, features: Features, memory: EmbeddingBank) -> None:
        """See `NeighborMode`."""
        memory.write(features[INDEX], compared)

    def batches(self, data: Any, graph: Any, *, replicas: int = 1, **window: Any) -> Any:
        """See `NeighborMode`."""
        examples = batching.as_examples(data)
        if self.size is not None and self.size != len(examples):
            raise ConfigError(
                "`size` of a bank must be the number of examples.",
                received=f"size={self.size}, {len(examples)} examples",
            )
        return batching.indexed_batches(
            examples, graph, max_neighbors=self.k, sample=self.sample, **window
        )


def find_mode(features: Any) -> NeighborMode:
    """The mode whose keys a batch carries.

    Raises:
        DataError: If it carries those of none, or of several.
    """
    keys = list(features) if isinstance(features, Mapping) else []
    found: list[NeighborMode] = []
    if _count(keys):
        found.append(Packed(_count(keys)))
    if PAIR_WEIGHT in keys:
        found.append(Paired(known=KNOWN in keys))
    if NEIGHBOR_INDEX in keys:
        found.append(Bank(int(features[NEIGHBOR_INDEX].shape[-1])))
    if len(found) == 1:
        return found[0]
    received = f"the keys {', '.join(sorted(keys))}" if keys else "features without keys"
    raise DataError(
        "A batch must carry the neighbors of one mode where alpha > 0: NL_nbr_<i>_<input> and "
        "NL_nbr_<i>_weight; pair_weight; or index, neighbor_index and neighbor_weight.",
        received=received,
        cure="Make batches with tfgraphreg.with_neighbors, or use alpha=0.",
    )


def own_inputs(features: Any, mode: NeighborMode | None) -> Any:
    """The model's inputs among the features of a batch, which need not carry neighbors."""
    if not isinstance(features, Mapping):
        return features
    if mode is None:
        try:
            mode = find_mode(features)
        except DataError:
            return dict(features)
    return mode.inputs(features)


def _check_k(mode: Any) -> None:
    if isinstance(mode.k, bool) or not isinstance(mode.k, (int, np.integer)) or mode.k < 1:
        raise ConfigError(
            "`k` must be a whole number of at least 1.",
            received=f"k={mode.k!r}",
            cure="Use alpha=0 to train without neighbors.",
        )


def _count(keys: Iterable[str]) -> int:
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

    Some come twice to make U a multiple of 16 (or M): libraries prepare for every new shape, and
    so there are few.
    """
    names, places = tf.unique(index)
    rows, distinct = tf.shape(index)[0], tf.shape(names)[0]
    first = tf.math.unsorted_segment_min(tf.range(rows), places, distinct)
    padded = tf.minimum((distinct + _SHAPES - 1) // _SHAPES * _SHAPES, rows)
    return tf.gather(first, tf.range(padded) % distinct), places


def to_config(mode: NeighborMode) -> dict[str, Any]:
    """A mode as plain values."""
    values = {
        field.name: getattr(mode, field.name)
        for field in dataclasses.fields(mode)  # type: ignore[arg-type]
    }
    arrays = {k: v.tolist() for k, v in values.items() if isinstance(v, np.ndarray)}
    return {"class_name": type(mode).__name__, **values, **arrays}


def from_config(config: Mapping[str, Any]) -> NeighborMode:
    """The mode of `to_config`."""
    values = dict(config)
    name = values.pop("class_name")
    if values.get("correction") is not None:
        values["correction"] = np.asarray(values["correction"], np.float32)
    return MODES[name](**values)


MODES = {mode.__name__: mode for mode in (Packed, Gathered, Paired, Bank)}
