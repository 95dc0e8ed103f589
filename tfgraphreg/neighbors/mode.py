"""The interface of a neighbor mode: it makes and checks batches and reads the edges out of them.

The model uses nothing else to find neighbors.

Shapes: B batch, K neighbors, D width of what is compared, M rows of one pass through the model.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfgraphreg.errors import ConfigError, DataError

Features = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Edges:
    """E edges of a batch: `sources` and `targets` `[E, D]`, `weights` `[E]`.

    `known` `[E, E]` bool, if the batch carries it: whether target j is source i itself, or a graph
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

    def reserves(self, key: str) -> bool:
        """Whether batches of the mode use `key` themselves, so that no input can have that name."""
        return self.owns(key)

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


def check_k(mode: Any) -> None:
    """Raises ConfigError unless `mode.k` is a whole number of at least 1."""
    if isinstance(mode.k, bool) or not isinstance(mode.k, (int, np.integer)) or mode.k < 1:
        raise ConfigError(
            "`k` must be a whole number of at least 1.",
            received=f"k={mode.k!r}",
            cure="Use alpha=0 to train without neighbors.",
        )
