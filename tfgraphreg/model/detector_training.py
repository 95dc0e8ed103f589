"""`GraphRegularization` for the detector: which region answers for which object, and the loss.

Shapes: see `tfgraphreg.model.detector`. Targets are `[B, M, 6]` float32: a box, its class, and 1
if it is difficult; the class is -1 in rows without an object.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfgraphreg.compat import keras, tf
from tfgraphreg.distances import Distance, find_distance
from tfgraphreg.errors import ConfigError
from tfgraphreg.model.classifier import EMBEDDING, LOGITS
from tfgraphreg.model.detector import BOXES, STRIDE, region_centers
from tfgraphreg.model.graph_term import global_sum
from tfgraphreg.model.objectives import refuse_other_losses
from tfgraphreg.model.regularization import GraphRegularization
from tfgraphreg.neighbors.mode import NeighborMode

TARGET_WIDTH = 6
# Regions whose centers are so near to that of a box, and inside of it, answer for it.
_RADIUS = 1.0 * STRIDE
# Of the focal loss (Lin et al. 2017).
_GAMMA = 2.0


def assign(targets: tf.Tensor, size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Which object each region answers for.

    An object is answered for by the region that holds its center, and by those whose centers lie
    in its box and no further than a stride from its center in either direction; the smallest
    object wins. A region that would answer for a difficult object does not count.

    Args:
        targets: `[B, M, 6]`.
        size: `(rows, columns)` of regions.

    Returns:
        `classes` `[B, A]` int32: 0 for background, 1 + class number, -1 where a region does not
        count; `boxes` `[B, A, 4]` of the objects, and `object` `[B, A]` int32, their rows in the
        targets; both mean nothing for background.
    """
    points = tf.constant(region_centers(size))
    boxes, number = targets[..., :4], tf.cast(targets[..., 4], tf.int32)
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    gap = tf.reduce_max(tf.abs(points[None, :, None] - center[:, None]), axis=-1)
    inside = tf.reduce_all(
        (points[None, :, None] > boxes[:, None, :, :2])
        & (points[None, :, None] < boxes[:, None, :, 2:]),
        axis=-1,
    )
    # Half a stride away or less: the region that holds the center.
    mine = (gap <= STRIDE / 2) | (inside & (gap <= _RADIUS))
    mine &= (number >= 0)[:, None]
    area = tf.reduce_prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
    cost = tf.where(mine, tf.broadcast_to(area[:, None], tf.shape(gap)), np.inf)
    chosen = tf.argmin(cost, axis=-1, output_type=tf.int32)
    found = tf.reduce_any(mine, axis=-1)
    classes = tf.where(found, tf.gather(number, chosen, batch_dims=1) + 1, 0)
    hard = tf.gather(targets[..., 5], chosen, batch_dims=1) > 0
    classes = tf.where(found & hard, -1, classes)
    return classes, tf.gather(boxes, chosen, batch_dims=1), chosen


def detection_losses(
    targets: tf.Tensor, outputs: Any, size: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sums over a batch: focal loss of classes, loss of boxes, and the number of regions that
    answer for an object.

    The loss of a box is 1 - GIoU (Rezatofighi et al. 2019).
    """
    classes, boxes, _ = assign(targets, size)
    counted = tf.cast(classes >= 0, tf.float32)
    label = tf.maximum(classes, 0)
    log = tf.nn.log_softmax(outputs[LOGITS])
    own = tf.gather(log, label, batch_dims=2)
    focal = -tf.pow(1 - tf.exp(own), _GAMMA) * own
    positive = tf.cast(classes > 0, tf.float32)
    where = (1 - giou(outputs[BOXES], boxes)) * positive
    return tf.reduce_sum(focal * counted), tf.reduce_sum(where), tf.reduce_sum(positive)


def giou(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """`[...]` generalized IoU of boxes `[..., 4]` with those in the same place."""
    low, high = (
        f(boxes[..., s], others[..., s])
        for f, s in ((tf.maximum, slice(0, 2)), (tf.minimum, slice(2, 4)))
    )
    shared = tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)
    union = sum(tf.reduce_prod(b[..., 2:] - b[..., :2], axis=-1) for b in (boxes, others)) - shared
    hull = tf.reduce_prod(
        tf.maximum(boxes[..., 2:], others[..., 2:]) - tf.minimum(boxes[..., :2], others[..., :2]),
        axis=-1,
    )
    return tf.math.divide_no_nan(shared, union) - tf.math.divide_no_nan(hull - union, hull)


class RegularizedDetector(GraphRegularization):
    """Trains a network of `build_detector` on boxes.

    The supervised loss is the focal loss of all regions and the box loss of those that answer for
    an object, summed over the global batch and divided by the number of the latter. The graph term
    compares embeddings of regions, see `tfgraphreg.neighbors.regions`. Batches are
    `(features, targets)`.

    Args:
        base_model: Of `build_detector`.
        alpha: See `GraphRegularization`.
        distance: See `GraphRegularization`; none that learns.
        mode: A `RegionBank`, or None where alpha is 0.

    Raises:
        ConfigError: If alpha or the distance cannot be.
    """

    def __init__(
        self,
        base_model: keras.Model,
        alpha: float,
        distance: str | Distance,
        *,
        mode: NeighborMode | None = None,
    ):
        if find_distance(distance).running is not None:
            raise ConfigError(
                "A distance that learns cannot compare regions.",
                received=f"distance={distance}",
                cure="Use `distance=cosine`.",
            )
        super().__init__(base_model, alpha, distance, EMBEDDING, mode)
        self.size = base_model.get_layer(BOXES).size
        parts = [keras.metrics.Mean(name=name) for name in ("class_loss", "box_loss")]
        self._own_parts = lambda: parts

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The parts of the loss."""
        return [*super().metrics, *self._own_parts()]

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        """Configures training; the loss is the detector's own.

        Raises:
            ConfigError: If anything but `optimizer`, `jit_compile` and `run_eagerly` is passed.
        """
        refuse_other_losses("The detector has its own loss", loss, *args, **kwargs)
        with self.distribute_strategy.scope():
            keras.Model.compile(self, optimizer, **kwargs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        """The loss of a batch, in training with the graph term besides."""
        sums = detection_losses(y, y_pred, self.size)
        # Keras divides by the number of replicas; the sums of all are divided by the count of all.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        count = tf.maximum(global_sum(sums[2]), 1.0)
        what, where = (s * replicas / count for s in sums[:2])
        for metric, value in zip(self._own_parts(), (what, where)):
            metric.update_state(value)
        return what + where + (tf.add_n(self.losses) if self.losses else 0.0)

    def compute_metrics(self, x, y, y_pred, sample_weight):
        """The losses: nothing else is measured in training."""
        return {metric.name: metric.result() for metric in self.metrics}
