"""Regions of images as nodes of a graph: neighbors are looked up in a bank of their embeddings.

A node is an object with a box in a training image. A batch holds images; for each of its objects
it names the node, its neighbors, which lie in other images as a rule, and the position of the map
that holds the center of its box.

Shapes: N images, R regions (nodes), B images of a batch, M objects of an image at most, A positions
of a map, K neighbors, D width of the embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from tfgraphreg.compat import tf
from tfgraphreg.data.local import Objects
from tfgraphreg.errors import DataError
from tfgraphreg.neighbors.bank import EmbeddingBank
from tfgraphreg.neighbors.batches import plain_batches
from tfgraphreg.neighbors.beside import INDEX
from tfgraphreg.neighbors.mode import Edges, Features, NeighborMode, check_k
from tfgraphreg.neighbors.modes import NEIGHBOR_INDEX, NEIGHBOR_WEIGHT
from tfgraphreg.neighbors.sampling import top_neighbors

POSITION = "region_position"


@dataclasses.dataclass(frozen=True)
class RegionBank(NeighborMode):
    """K neighbors of each region from a table of the embeddings that were last seen.

    Keys: `index` and `region_position` `[B, M]`, `neighbor_index` and `neighbor_weight`
    `[B, M, K]`. Rows of images with fewer objects have the index R and the weight 0.

    Args:
        k: Neighbors of a region, at least 1.
        size: R.
        width: D.
    """

    k: int
    size: int
    width: int
    _keys: ClassVar[tuple[str, ...]] = (INDEX, POSITION, NEIGHBOR_INDEX, NEIGHBOR_WEIGHT)

    def __post_init__(self):
        check_k(self)

    def owns(self, key: str) -> bool:
        """See `NeighborMode`."""
        return key in self._keys

    def needs(self, inputs: Iterable[str]) -> list[str]:
        """See `NeighborMode`."""
        return list(self._keys)

    def edges(self, compared: Any, features: Features, memory: EmbeddingBank) -> Edges:
        """See `NeighborMode`; `compared` is `[B, A * D]`."""
        near = tf.reshape(features[NEIGHBOR_INDEX], [-1, self.k])
        targets, seen = memory.read(near)
        sources = tf.repeat(self._rows(compared, features), self.k, axis=0)
        weights = tf.reshape(features[NEIGHBOR_WEIGHT], [-1, self.k]) * seen
        return Edges(sources, tf.reshape(targets, [-1, self.width]), tf.reshape(weights, [-1]))

    @property
    def remembers(self) -> bool:
        """See `NeighborMode`."""
        return True

    def make_memory(self, width: int) -> EmbeddingBank:
        """See `NeighborMode`. One more row takes what rows without an object write."""
        return EmbeddingBank(self.size + 1, self.width)

    def remember(self, compared: Any, features: Features, memory: EmbeddingBank) -> None:
        """See `NeighborMode`."""
        memory.write(tf.reshape(features[INDEX], [-1]), self._rows(compared, features))

    def batches(self, data: Any, graph: Any, *, replicas: int = 1, **window: Any) -> Any:
        """See `NeighborMode`; the examples hold the keys already, see `region_inputs`."""
        return plain_batches(data, **window)

    def _rows(self, compared: Any, features: Features) -> tf.Tensor:
        """`[B * M, D]` embeddings of the batch's objects."""
        maps = tf.reshape(compared, [tf.shape(compared)[0], -1, self.width])
        found = tf.gather(maps, features[POSITION], batch_dims=1)
        return tf.reshape(found, [-1, self.width])


def region_inputs(
    objects: Sequence[Objects], graph: Any, *, k: int, stride: int, columns: int, rows: int
) -> dict[str, np.ndarray]:
    """The features of `RegionBank` for N images, by key.

    Args:
        objects: Of each image; every one, in this order, is a node of the graph.
        graph: `SimilarityGraph` of R nodes.
        k: Neighbors to take: those of largest weight.
        stride: Pixels between the positions of a map.
        columns: Positions of a map in a row.
        rows: Rows of a map.

    Raises:
        DataError: If there are not as many objects as nodes.
    """
    counts = np.array([len(found) for found in objects], np.int64)
    total, most = int(counts.sum()), int(counts.max(initial=1))
    if graph.num_nodes != total:
        raise DataError(
            "The graph of regions needs a node for each object of the training images.",
            received=f"{graph.num_nodes} nodes, {total} objects",
        )
    near, weights = top_neighbors(graph, k)
    n = len(objects)
    index = np.full((n, most), total, np.int64)
    position = np.zeros((n, most), np.int64)
    neighbor_index = np.full((n, most, k), total, np.int64)
    neighbor_weight = np.zeros((n, most, k), np.float32)
    start = 0
    for row, found in enumerate(objects):
        own = slice(start, start + len(found))
        place = np.s_[row, : len(found)]
        index[place] = np.arange(own.start, own.stop)
        cell = ((found.boxes[:, :2] + found.boxes[:, 2:]) / 2 // stride).astype(np.int64)
        cell = np.minimum(cell, [columns - 1, rows - 1])
        position[place] = cell[:, 1] * columns + cell[:, 0]
        neighbor_index[place] = np.where(near[own] < 0, total, near[own])
        neighbor_weight[place] = np.where(near[own] < 0, 0, weights[own])
        start = own.stop
    return {
        INDEX: index,
        POSITION: position,
        NEIGHBOR_INDEX: neighbor_index,
        NEIGHBOR_WEIGHT: neighbor_weight,
    }
