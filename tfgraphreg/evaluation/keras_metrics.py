"""Segmentation and detection numbers as Keras metrics, which sum their counts over replicas."""

from __future__ import annotations

from tfgraphreg.compat import keras, tf
from tfgraphreg.evaluation import detection, segmentation
from tfgraphreg.model.detector import pairwise_iou


class _PixelMetric(keras.metrics.Metric):
    """A number that follows from counts of pixels by true and predicted class.

    `y_true` are whole numbers `[...]` (a last axis of width 1 is dropped), `y_pred` are scores
    `[..., C]`, of which the highest counts, the lower class among equal ones. `sample_weight`
    is broadcast to `y_true`. Undefined classes stay out of means; with nothing to judge the
    result is NaN.

    Args:
        classes: C.
        ignore_label: True label of pixels that do not count; None if all do.
        name: As in the logs.
    """

    def __init__(self, classes, ignore_label=segmentation.IGNORE, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.classes, self.ignore_label = classes, ignore_label
        # float64, because float32 stops counting at 16 million pixels
        self.counts = self.add_weight(
            name="counts", shape=(classes, classes), initializer="zeros", dtype=tf.float64
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch."""
        y_true, y_pred = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
        if y_true.shape.rank == y_pred.shape.rank:
            y_true = tf.squeeze(y_true, axis=-1)
        y_true = tf.cast(y_true, tf.int32)
        guess = tf.argmax(y_pred, axis=-1, output_type=tf.int32)
        weight = tf.ones(tf.shape(y_true), tf.float64)
        if sample_weight is not None:
            sample_weight = tf.cast(sample_weight, tf.float64)
            missing = y_true.shape.rank - sample_weight.shape.rank
            for _ in range(missing):
                sample_weight = sample_weight[..., None]
            weight *= sample_weight
        if self.ignore_label is not None:
            ignored = tf.equal(y_true, self.ignore_label)
            weight = tf.where(ignored, tf.zeros_like(weight), weight)
            y_true = tf.where(ignored, tf.zeros_like(y_true), y_true)
        self.counts.assign_add(
            tf.math.confusion_matrix(
                tf.reshape(y_true, [-1]),
                tf.reshape(guess, [-1]),
                num_classes=self.classes,
                weights=tf.reshape(weight, [-1]),
                dtype=tf.float64,
            )
        )

    def reset_state(self):
        """Forgets all batches."""
        self.counts.assign(tf.zeros_like(self.counts))

    def result(self):
        """The number, from all counts so far."""
        right = tf.linalg.diag_part(self.counts)
        true, guessed = tf.reduce_sum(self.counts, 1), tf.reduce_sum(self.counts, 0)
        return tf.cast(self._number(right, true, guessed), tf.float32)

    def _number(self, right, true, guessed):
        raise NotImplementedError

    def get_config(self):
        """The arguments that make this metric again."""
        own = {"classes": self.classes, "ignore_label": self.ignore_label}
        return {**super().get_config(), **own}


def _mean_ratio(part, whole):
    """Mean of part / whole over entries with whole > 0; NaN if there is none."""
    defined = whole > 0
    ratio = tf.where(defined, part / tf.where(defined, whole, tf.ones_like(whole)), 0.0)
    count = tf.reduce_sum(tf.cast(defined, ratio.dtype))
    return tf.reduce_sum(ratio) / count  # 0/0 is NaN


@keras.utils.register_keras_serializable("tfgraphreg")
class PixelAccuracy(_PixelMetric):
    """PA: share of pixels that are named rightly."""

    def _number(self, right, true, guessed):
        return tf.reduce_sum(right) / tf.reduce_sum(true)


@keras.utils.register_keras_serializable("tfgraphreg")
class MeanPixelAccuracy(_PixelMetric):
    """mPA: mean over classes of the share of their pixels named rightly."""

    def _number(self, right, true, guessed):
        return _mean_ratio(right, true)


@keras.utils.register_keras_serializable("tfgraphreg")
class MeanIoU(_PixelMetric):
    """Mean over classes of intersection over union (Jaccard index)."""

    def _number(self, right, true, guessed):
        return _mean_ratio(right, true + guessed - right)


@keras.utils.register_keras_serializable("tfgraphreg")
class MeanDice(_PixelMetric):
    """Mean over classes of the Dice coefficient (F1)."""

    def _number(self, right, true, guessed):
        return _mean_ratio(2 * right, true + guessed)


@keras.utils.register_keras_serializable("tfgraphreg")
class AverageBestOverlap(keras.metrics.Metric):
    """Mean over true boxes of the best IoU with a predicted box of their class.

    `y_true` `[B, A, 5]` and `y_pred` `[B, P, 5]` hold x_min, y_min, x_max, y_max, class; rows
    of class `ignore_label` do not count, which also serves for padding. NaN without a true
    box. See `tfgraphreg.evaluation.detection.best_overlaps`.

    Args:
        only_class: Judge this class alone, such as the number of "person"; None for all.
        ignore_label: Class of rows that do not count.
        name: As in the logs.
    """

    def __init__(self, only_class=None, ignore_label=detection.IGNORE, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.only_class, self.ignore_label = only_class, ignore_label
        self.total = self.add_weight(name="total", initializer="zeros", dtype=tf.float64)
        self.count = self.add_weight(name="count", initializer="zeros", dtype=tf.float64)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch; `sample_weight` is `[B]`."""
        y_true, y_pred = tf.cast(y_true, tf.float64), tf.cast(y_pred, tf.float64)
        overlap = pairwise_iou(y_true[..., :4], y_pred[..., :4])
        true, guessed = tf.round(y_true[..., 4]), tf.round(y_pred[..., 4])
        same = (
            tf.equal(true[:, :, None], guessed[:, None]) & (guessed != self.ignore_label)[:, None]
        )
        # A zero in front, for images without any predicted box.
        overlap = tf.pad(tf.where(same, overlap, 0.0), [[0, 0], [0, 0], [1, 0]])
        counted = true != self.ignore_label
        if self.only_class is not None:
            counted &= tf.equal(true, self.only_class)
        weight = tf.cast(counted, tf.float64)
        if sample_weight is not None:
            weight *= tf.reshape(tf.cast(sample_weight, tf.float64), [-1, 1])
        self.total.assign_add(tf.reduce_sum(tf.reduce_max(overlap, axis=-1) * weight))
        self.count.assign_add(tf.reduce_sum(weight))

    def result(self):
        """The mean so far."""
        return tf.cast(self.total / self.count, tf.float32)

    def get_config(self):
        """The arguments that make this metric again."""
        own = {"only_class": self.only_class, "ignore_label": self.ignore_label}
        return {**super().get_config(), **own}
