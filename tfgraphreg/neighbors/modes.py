"""The ways to bring neighbors into a batch, as values.

Shapes: B batch, K neighbors, D width of what is compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from tfgraphreg.compat import tf
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.neighbors import batches as batching
from tfgraphreg.neighbors.bank import EmbeddingBank
from tfgraphreg.neighbors.beside import INDEX, Gathered, Packed, count_neighbors
from tfgraphreg.neighbors.mode import Edges, Features, NeighborMode, check_k

PAIR_WEIGHT = "pair_weight"
KNOWN = "known_neighbors"
NEIGHBOR_INDEX = "neighbor_index"
NEIGHBOR_WEIGHT = "neighbor_weight"


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
        check_k(self)
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
    if count_neighbors(keys):
        found.append(Packed(count_neighbors(keys)))
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
