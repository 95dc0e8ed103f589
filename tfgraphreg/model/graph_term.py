"""The graph term in plain TensorFlow: the mean over edges of `w_uv * d(h_u, h_v)`, or of
`w_uv` times a contrast of v with the other targets of the batch.
"""

from __future__ import annotations

from typing import Any

from tfgraphreg.compat import as_converted, tf
from tfgraphreg.distances import DISTANCES, Distance
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.neighbors.mode import Edges


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
        """The sum of `w * d` over the edges, and the number of edges with w > 0.

        Raises:
            ConfigError: If the distance does not give `[E]`.
            DataError: If the batch names known neighbors.
        """
        if edges.known is not None:
            raise DataError(
                "The batch carries known neighbors, which only a contrast leaves out.",
                cure="Use mode=Paired(), or pass contrast=0.1 to GraphRegularization.",
            )
        sources, targets = edges.sources, edges.targets
        if self.distance.distributions:
            sources, targets = tf.nn.softmax(sources), tf.nn.softmax(targets)
        distances = as_converted((self.running or self.distance).tensor)(sources, targets)
        if distances.shape.rank not in (1, None):
            raise ConfigError(
                "A distance must give one number for each edge.",
                received=f"shape {distances.shape} from `{self.distance.name}` of two "
                f"{sources.shape}",
                cure="Reduce over the last axis only: tf.reduce_sum(..., axis=-1).",
            )
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


class ContrastTerm(GraphTerm):
    """InfoNCE over the edges of a batch (van den Oord et al., 1807.03748), with cosines.

    For an edge (u, v) the loss is the mean of two cross-entropies: `-log softmax(cos(u, .) /
    temperature)` at v over the targets of the batch, and the same for u over the sources. It
    replaces the distance of `GraphTerm`. Duplicates of u or v and their graph neighbors, in either
    direction, are no negatives. The ends of edges of weight 0 serve only as negatives.

    Args:
        temperature: Above 0.
    """

    def __init__(self, temperature: float):
        super().__init__(DISTANCES.get("cosine"))
        self.temperature = temperature

    def sums(self, edges: Edges) -> tuple[tf.Tensor, tf.Tensor]:
        """The sum of `w * loss` over the edges, and the number of edges with w > 0."""
        if edges.known is None:
            raise DataError(
                "A contrast needs to know the graph neighbors among the rows of a batch.",
                cure="Make batches with mode=Paired(known=True).",
            )
        sources = tf.math.l2_normalize(tf.cast(edges.sources, tf.float32), -1)
        targets = tf.math.l2_normalize(tf.cast(edges.targets, tf.float32), -1)
        logits = tf.matmul(sources, targets, transpose_b=True) / self.temperature
        own = tf.linalg.diag_part(logits)
        # The partner itself is a known neighbor, and stays.
        partners = tf.eye(tf.shape(own)[0], dtype=tf.bool)
        out = tf.logical_and(edges.known, tf.logical_not(partners))
        logits = tf.where(out, logits.dtype.min, logits)
        losses = (tf.reduce_logsumexp(logits, 1) + tf.reduce_logsumexp(logits, 0)) / 2 - own
        weights = tf.cast(edges.weights, losses.dtype)
        return tf.reduce_sum(weights * losses), tf.reduce_sum(tf.cast(weights > 0, losses.dtype))


def global_sum(value: tf.Tensor) -> tf.Tensor:
    """`value` added up over the replicas; no gradient passes."""
    return sum_of_replicas(tf.stop_gradient(value))


def sum_of_replicas(value: tf.Tensor) -> tf.Tensor:
    """`value` added up over the replicas; the gradients of their losses are added up too."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def _of_all_replicas(rows: tf.Tensor) -> tf.Tensor:
    """The rows of every replica, one after the other; no gradient passes."""
    rows = tf.stop_gradient(rows)
    context = tf.distribute.get_replica_context()
    return rows if context.num_replicas_in_sync == 1 else context.all_gather(rows, axis=0)
