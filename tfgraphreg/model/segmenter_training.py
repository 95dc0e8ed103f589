"""`GraphRegularization` for a network of `build_segmenter`, with its loss over pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.compat import keras, tf
from tfgraphreg.data.local import IGNORED
from tfgraphreg.distances import Distance
from tfgraphreg.errors import DataError
from tfgraphreg.model.classifier import EMBEDDING, LOGITS
from tfgraphreg.model.graph_term import global_sum, sum_of_replicas
from tfgraphreg.model.objectives import refuse_other_losses
from tfgraphreg.model.regularization import GraphRegularization
from tfgraphreg.model.segmenter import SCORES
from tfgraphreg.neighbors.modes import NeighborMode

# Weight of the Dice loss beside the cross-entropy.
_DICE = 0.5
# A crop's sides are multiples of 16, the largest stride of a map of the default network, and hold
# two of its positions or more.
_CROP_UNIT, _LEAST_CROP = 16, 32


class PixelLoss(keras.losses.Loss):
    """Cross-entropy of every pixel; 0 where the mask is 255."""

    def __init__(self):
        super().__init__(name="pixel_loss")

    def call(self, y_true, y_pred):
        """`[B, H, W]` losses of masks `[B, H, W]` and logits `[B, H, W, K]`."""
        counted = tf.not_equal(y_true, IGNORED)
        classes = tf.where(counted, tf.cast(y_true, tf.int32), 0)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, y_pred)
        return losses * tf.cast(counted, losses.dtype)


class RightPixels(keras.metrics.Mean):
    """The share of counted pixels whose largest logit is right (PA)."""

    def __init__(self):
        super().__init__(name="pixel_accuracy")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Mean over the counted pixels of a batch; sample weights are ignored."""
        right = tf.equal(tf.argmax(y_pred, -1, tf.int32), tf.cast(y_true, tf.int32))
        counted = tf.cast(tf.not_equal(y_true, IGNORED), tf.float32)
        return super().update_state(tf.cast(right, tf.float32), sample_weight=counted)


class RegularizedSegmenter(GraphRegularization):
    """Trains a network of `build_segmenter` on masks.

    The supervised loss is the mean over the counted pixels of the global batch, each weighted by
    its class, plus half of `dice_loss` over the same pixels, all alike. A training step looks at
    one pixel of four, the next at another: neighboring pixels say much the same, and scores of
    all of them would take a third of the time. Batches are `(features, masks)` with masks
    `[B, H, W]` uint8, 255 ignored.

    Where `cropped` is set before `compile`, a step looks at a part of `crop_size` of each image,
    for all images of the step and their neighbors at the same random place.

    Args:
        base_model: Of `build_segmenter`.
        alpha: See `GraphRegularization`; the embedding of images is compared.
        distance: See `GraphRegularization`.
        mode: See `GraphRegularization`.
        class_weights: `[K]` positive weights of the classes, the background first; None: all 1.
        contrast: See `GraphRegularization`.
        seed: Of the places of crops.
        halves: Whether a training step computes two halves of its rows side by side, which a
            processor of few cores does faster. Batch normalization sees each half by itself.
        steps_at_once: Steps that TensorFlow does before it hands back to Keras, which saves the
            time in between; callbacks see them as one.

    Raises:
        ConfigError: If alpha cannot be.
        DataError: If there is not one positive weight for each class.
    """

    def __init__(
        self,
        base_model: keras.Model,
        alpha: float,
        distance: str | Distance,
        *,
        mode: NeighborMode | None = None,
        class_weights: Sequence[float] | np.ndarray | None = None,
        contrast: float | None = None,
        seed: int = 0,
        halves: bool = False,
        steps_at_once: int = 1,
    ):
        super().__init__(base_model, alpha, distance, EMBEDDING, mode, contrast=contrast)
        self.cropped = False
        self._seed = seed
        self._steps_at_once = steps_at_once
        self._regularizer.readout.halves = halves
        classes = base_model.output_shape[LOGITS][-1]
        weights = np.ones(classes) if class_weights is None else np.asarray(class_weights)
        if weights.shape != (classes,) or not (np.isfinite(weights) & (weights > 0)).all():
            raise DataError(
                "`class_weights` must be one number above 0 for each class, the background first.",
                received=f"{weights.size} weights, {classes} classes",
            )
        self.class_weights = weights.astype(np.float32)

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        """Configures training; loss and metric are the segmenter's own.

        Raises:
            ConfigError: If anything but `optimizer`, `jit_compile` and `run_eagerly` is passed.
        """
        refuse_other_losses("The segmenter has its own loss and metric", loss, *args, **kwargs)
        with self.distribute_strategy.scope():
            keras.Model.compile(
                self,
                optimizer,
                loss=PixelLoss(),
                metrics=[RightPixels()],
                steps_per_execution=self._steps_at_once,
                **kwargs,
            )

    def train_step(self, data):
        """One step of gradient descent, see `GraphRegularization`."""
        features, masks = data[:2]
        if self.cropped:
            place = tf.stack([tf.cast(self._seed, tf.int64), self.optimizer.iterations])
            features, masks = random_crop(features, masks, place)
        masks = one_of_four(masks, self.optimizer.iterations)
        return super().train_step((features, masks, self._pixel_weights(masks)))

    def test_step(self, data):
        """Loss and pixel accuracy of a batch in inference mode."""
        features, masks = data[:2]
        return super().test_step((features, masks, self._pixel_weights(masks)))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        """Cross-entropy and Dice loss, in training with the graph term besides."""
        logits = _logits_of(y, y_pred)
        others = [*self.losses, _DICE * dice_loss(y, logits)]
        return self.compiled_loss(y, logits, sample_weight, regularization_losses=others)

    def compute_metrics(self, x, y, y_pred, sample_weight):
        """Pixel accuracy, every counted pixel alike."""
        return super().compute_metrics(x, y, _logits_of(y, y_pred), None)

    def _pixel_weights(self, masks: Any) -> tf.Tensor:
        """`[B, H, W]` weights that turn Keras' mean over all pixels into that over the counted."""
        counted = tf.not_equal(masks, IGNORED)
        classes = tf.where(counted, tf.cast(masks, tf.int32), 0)
        weights = tf.gather(tf.constant(self.class_weights), classes)
        weights *= tf.cast(counted, tf.float32)
        pixels = tf.cast(tf.size(masks), tf.float32)
        total = global_sum(tf.reduce_sum(weights))
        return weights * tf.math.divide_no_nan(global_sum(pixels), total)


def dice_loss(masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """1 - the mean over the classes of the soft Dice coefficient of all counted pixels of a step.

    Of a class it is `(2 sum(p t) + 1) / (sum(p) + sum(t) + 1)` for probabilities p and true
    memberships t (Milletari et al. 2016, arXiv:1606.04797, without the squares), so that a rare
    class counts as much as the background. Sums are over the replicas of a strategy.

    Args:
        masks: `[B, H, W]`, 255 ignored.
        logits: `[B, H, W, K]`.
    """
    counted = tf.cast(tf.not_equal(masks, IGNORED), logits.dtype)[..., None]
    found = tf.nn.softmax(logits) * counted
    true = tf.one_hot(tf.cast(masks, tf.int32), logits.shape[-1], dtype=logits.dtype)
    both, either = (
        sum_of_replicas(tf.reduce_sum(part, (0, 1, 2))) for part in (found * true, found + true)
    )
    return 1 - tf.reduce_mean((2 * both + 1) / (either + 1))


def one_of_four(masks: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """`[B, H / 2, W / 2]`: a pixel of each square of 2 x 2, in turns; all pixels if a side is odd.

    Args:
        masks: `[B, H, W]`.
        step: The number of the step, which says whose turn it is.
    """
    height, width = masks.shape[1:]
    if height % 2 or width % 2:
        return masks
    turn = tf.cast(step, tf.int32) % 4
    squares = tf.reshape(masks, [-1, height // 2, 2, width // 2, 2])
    return tf.gather(tf.gather(squares, turn // 2, axis=2), turn % 2, axis=3)


def crop_size(height: int, width: int) -> tuple[int, int] | None:
    """Height and width of the crops of an image: two thirds of its own, in multiples of 16.

    None if a side has less than 48 pixels: crops would then hold less than 32.
    """
    sides = [side * 2 // 3 // _CROP_UNIT * _CROP_UNIT for side in (height, width)]
    return (sides[0], sides[1]) if min(sides) >= _LEAST_CROP else None


def random_crop(features: Any, masks: tf.Tensor, seed: tf.Tensor) -> tuple[Any, tf.Tensor]:
    """The same part of all images, and of their masks, at a random place.

    Args:
        features: Images `[B, H, W, C]`, or a dictionary with such; other features are left alone.
        masks: `[B, H, W]`.
        seed: `[2]` integers, which decide the place.

    Raises:
        DataError: If the images are too small.
    """
    sides = masks.shape[1:]
    size = crop_size(*sides)
    if size is None:
        raise DataError(
            "Crops need images of 48 pixels a side.", received=f"{sides[0]} x {sides[1]} pixels"
        )
    places = tf.constant([side - part + 1.0 for side, part in zip(sides, size)])
    shift = tf.cast(tf.random.stateless_uniform([2], seed) * places, tf.int32)

    def part(values: tf.Tensor) -> tf.Tensor:
        start = tf.concat([[0], shift, [0] * (values.shape.rank - 3)], 0)
        return tf.slice(values, start, [-1, *size, *([-1] * (values.shape.rank - 3))])

    images = tf.nest.map_structure(lambda v: part(v) if v.shape.rank == 4 else v, features)
    return images, part(masks)


def _logits_of(masks: tf.Tensor, outputs: Any) -> tf.Tensor:
    """`[B, h, w, K]` logits at the size of the masks."""
    if masks.shape[1:] == outputs[LOGITS].shape[1:3]:
        return outputs[LOGITS]
    return tf.image.resize(outputs[SCORES], masks.shape[1:])


def balanced_weights(masks: Any, *, classes: int) -> np.ndarray:
    """`[K]` weights: one over the square root of a class's share of the counted pixels.

    They are scaled so that their mean over the counted pixels is 1. A class without a pixel has
    the weight of the rarest one.

    Args:
        masks: `[N, H, W]` uint8, or anything that a slice indexes.
        classes: K.

    Raises:
        DataError: If a mask names a class above K - 1, or no pixel counts.
    """
    counts = np.zeros(IGNORED + 1, np.int64)
    for start in range(0, len(masks), 1000):
        counts += np.bincount(
            np.asarray(masks[start : start + 1000]).ravel(), minlength=IGNORED + 1
        )
    if counts[classes:IGNORED].any():
        raise DataError(
            f"Masks must hold 0 to {classes - 1}, or 255.",
            received=f"{classes + int(np.argmax(counts[classes:IGNORED] > 0))}",
        )
    counts = counts[:classes]
    if not counts.any():
        raise DataError("No pixel of the training masks counts: all are 255.")
    share = np.maximum(counts, counts[counts > 0].min()) / counts.sum()
    weights = 1 / np.sqrt(share)
    return weights / (weights * counts).sum() * counts.sum()
