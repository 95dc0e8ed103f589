"""A table of the last seen embedding of every training example."""

from __future__ import annotations

from tfgraphreg.compat import tf


class EmbeddingBank(tf.Module):
    """N rows of width D, zero and marked unseen at first.

    A row is as old as its example's last visit: one epoch at most, half an epoch on average.
    No gradient flows through a row, so an edge moves its source only. Unseen rows count as
    edges of weight zero, so the graph term grows during the first epoch.

    Args:
        size: N, the number of examples.
        width: D, the width of the embedding.
    """

    def __init__(self, size: int, width: int):
        super().__init__(name="embedding_bank")
        # Every replica writes the rows of all replicas, so the copies stay equal.
        options = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_WRITE,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        self.rows = tf.Variable(tf.zeros([size, width]), name="bank_rows", **options)
        self.seen = tf.Variable(tf.zeros([size]), name="bank_seen", **options)

    def read(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Rows `[B, K, D]` of an index `[B, K]`, and 1.0 where they were seen, else 0.0."""
        rows = tf.gather(tf.convert_to_tensor(self.rows), index)
        return tf.stop_gradient(rows), tf.gather(tf.convert_to_tensor(self.seen), index)

    def write(self, index: tf.Tensor, rows: tf.Tensor) -> None:
        """Stores `rows` `[B, D]` of all replicas under `index` `[B]`."""
        rows = tf.stop_gradient(rows)
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            # Without a copy, workers take this collective operation for another one.
            index = context.all_gather(tf.identity(index), axis=0)
            rows = context.all_gather(rows, axis=0)
        self.rows.scatter_update(tf.IndexedSlices(rows, index))
        self.seen.scatter_update(tf.IndexedSlices(tf.ones_like(rows[:, 0]), index))
