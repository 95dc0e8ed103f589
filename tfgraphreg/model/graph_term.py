"""The graph term in plain TensorFlow: the mean over edges of `w_uv * d(h_u, h_v)`."""

from __future__ import annotations

from typing import Any

from tfgraphreg.compat import tf
from tfgraphreg.distances import Distance
from tfgraphreg.neighbors.modes import Edges


class GraphTerm:
    """Distances over the edges of a batch.

    Args:
        distance: See `tfgraphreg.distances`. For a distance between distributions the softmax of
            the rows is compared. One that learns needs `start` first.
    """

    def __init__(self, distance: Distance):
        self.distance = distance
        self.running: Any = None

    def start(self, width: int) -> None:
        """Makes the variables of a distance that learns, for embeddings of width D."""
        if self.distance.running is not None and self.running is None:
            self.running = self.distance.running(width)

    def sums(self, edges: Edges) -> tuple[tf.Tensor, tf.Tensor]:
        """The sum of `w * d` over the edges, and the number of edges with w > 0."""
        sources, targets = edges.sources, edges.targets
        if self.distance.distributions:
            sources, targets = tf.nn.softmax(sources), tf.nn.softmax(targets)
        distances = (self.running or self.distance).tensor(sources, targets)
        weights = tf.cast(edges.weights, distances.dtype)
        return tf.reduce_sum(weights * distances), tf.reduce_sum(
            tf.cast(weights > 0, distances.dtype)
        )

    def mean(self, edges: Edges) -> tf.Tensor:
        """The term of the global batch, as this replica's share: the shares add up to it."""
        total, count = self.sums(edges)
        return tf.math.divide_no_nan(total, global_sum(count))

    def learn(self, rows: tf.Tensor) -> None:
        """Moves a distance that learns toward the `[B, D]` rows of all replicas."""
        if self.running is not None:
            self.running.update(_of_all_replicas(rows))


def global_sum(value: tf.Tensor) -> tf.Tensor:
    """`value` added up over the replicas; no gradient passes."""
    value = tf.stop_gradient(value)
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def _of_all_replicas(rows: tf.Tensor) -> tf.Tensor:
    """The rows of every replica, one after the other; no gradient passes."""
    rows = tf.stop_gradient(rows)
    context = tf.distribute.get_replica_context()
    return rows if context.num_replicas_in_sync == 1 else context.all_gather(rows, axis=0)
