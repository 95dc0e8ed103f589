"""From images to boxes, classes and an embedding of every region: a detector of one stage.

A region is a position of a map of stride 8. It says what is there and where its box ends, so a
region needs no proposals and all regions of an image cost one pass. (Tian et al. 2019, "FCOS:
Fully Convolutional One-Stage Object Detection", on one map.)

Shapes: B batch, A regions of an image, C classes, D width of the embedding, M boxes that are given
for an image. Boxes are `(x_min, y_min, x_max, y_max)` in pixels of the image that the model takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfgraphreg.compat import keras, tf
from tfgraphreg.errors import ModelError
from tfgraphreg.model.classifier import EMBEDDING, LOGITS
from tfgraphreg.model.maps import head_block, merged_maps

BOXES, CLASSES, SCORES, COUNT = "boxes", "classes", "scores", "count"
LEAST_SCORE = 0.01
STRIDE = 8
_WIDTH = 96
# Before training a box reaches so many strides from its center to each side.
_FIRST_REACH = 2.0
# Before training a region is an object with this probability: most are none.
_FIRST_SCORE = 0.02
_MOST = 100
_SAME_OBJECT = 0.5


def build_detector(pyramid: keras.Model, *, embedding_dim: int, num_classes: int) -> keras.Model:
    """Puts a detection head on the maps of a backbone.

    The maps of stride 4, 8 and 16, as far as there are any, are brought to stride 8 and added
    (a feature pyramid of one level). From there one branch leads to the embedding of each region
    and, by one linear layer as in the classifier, to its class; another one to its box.

    Args:
        pyramid: Of `tfgraphreg.backbones.pyramid.build_pyramid`.
        embedding_dim: D.
        num_classes: C.

    Returns:
        A model of raw images that gives a dictionary, float32 under any precision policy:
        `embedding` `[B, A, D]`; `logits` `[B, A, C + 1]`, the background first; `boxes`
        `[B, A, 4]`, which may reach out of the image.

    Raises:
        ModelError: If the backbone has no map of stride 8.
    """
    layers = keras.layers
    image = keras.Input(pyramid.input_shape[1:], name="image")
    size = tuple(-(-n // STRIDE) for n in pyramid.input_shape[1:3])
    x = _at_stride(pyramid(image), size, pyramid.name)
    regions = size[0] * size[1]
    what = head_block(x, _WIDTH, "head_what")
    embedding = layers.Conv2D(embedding_dim, 1, dtype="float32", name="head_embedding")(what)
    embedding = layers.Reshape((regions, embedding_dim), dtype="float32", name=EMBEDDING)(embedding)
    first = np.full(num_classes + 1, np.log(_FIRST_SCORE / num_classes), np.float32)
    first[0] = np.log(1 - _FIRST_SCORE)
    logits = layers.Dense(
        num_classes + 1,
        dtype="float32",
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(first),
        name=LOGITS,
    )(embedding)
    reach = layers.Conv2D(
        4,
        1,
        dtype="float32",
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(np.log(_FIRST_REACH)),
        name="head_reach",
    )(head_block(x, _WIDTH, "head_where"))
    reach = layers.Reshape((regions, 4), dtype="float32", name="head_reach_rows")(reach)
    boxes = RegionBoxes(size, dtype="float32", name=BOXES)(reach)
    outputs = {EMBEDDING: embedding, LOGITS: logits, BOXES: boxes}
    return keras.Model(image, outputs, name="detector")


def region_centers(size: tuple[int, int]) -> np.ndarray:
    """`[A, 2]` float32: x and y of the centers of the regions, in reading order.

    Args:
        size: `(rows, columns)` of regions.
    """
    y, x = np.indices(size).reshape(2, -1)
    return (np.stack([x, y], axis=1).astype(np.float32) + 0.5) * STRIDE


@keras.utils.register_keras_serializable("tfgraphreg")
class RegionBoxes(keras.layers.Layer):
    """`[B, A, 4]` boxes of logarithms of how many strides they reach left, up, right, down."""

    def __init__(self, size: Any, **kwargs: Any):
        super().__init__(trainable=False, **kwargs)
        self.size = (int(size[0]), int(size[1]))

    def call(self, inputs):
        """The boxes."""
        centers = tf.constant(region_centers(self.size))
        # A box of e^6 strides is larger than any image.
        reach = tf.exp(tf.clip_by_value(inputs, -6.0, 6.0)) * STRIDE
        return tf.concat([centers - reach[..., :2], centers + reach[..., 2:]], axis=-1)

    def get_config(self):
        """What rebuilds the layer."""
        config = super().get_config()
        config.pop("trainable", None)
        return {**config, "size": self.size}


def detections(
    outputs: Any, shape: tuple[int, ...], *, most: int = _MOST, least_score: float = LEAST_SCORE
) -> dict[str, tf.Tensor]:
    """The objects of images, each once: the best regions of each class, by falling score.

    Of two detections of one class that overlap by IoU above 0.5 the one with the lower score goes
    (greedy non-maximum suppression). A region may be reported for several classes. The `most` best
    pairs of region and class of an image are looked at.

    Args:
        outputs: Of a model of `build_detector`.
        shape: `(height, width, channels)` of the images; boxes are clipped to it.
        most: N, the number of rows for each image.
        least_score: What is below is no detection.

    Returns:
        `boxes` `[B, N, 4]`, `classes` `[B, N]` int64 from 0 on, `scores` `[B, N]`, `embedding`
        `[B, N, D]`, and `count` `[B]` int32. Rows from `count` on are zero and of class -1.
    """
    probabilities = tf.nn.softmax(outputs[LOGITS])[..., 1:]
    regions, classes = probabilities.shape[1:]
    most = min(most, regions * classes)
    scores, place = tf.math.top_k(tf.reshape(probabilities, [-1, regions * classes]), most)
    region, number = place // classes, place % classes
    edge = tf.constant([shape[1], shape[0], shape[1], shape[0]], tf.float32)
    boxes = tf.clip_by_value(tf.gather(outputs[BOXES], region, batch_dims=1), 0.0, edge)
    sides = boxes[..., 2:] - boxes[..., :2]
    valid = (scores >= least_score) & tf.reduce_all(sides > 0, axis=-1)
    rival = (pairwise_iou(boxes, boxes) > _SAME_OBJECT) & (number[:, :, None] == number[:, None])
    kept = _greedy(valid, rival)
    # What is kept comes first, in its order.
    order = tf.argsort(tf.cast(~kept, tf.int32), axis=1, stable=True)
    kept = tf.gather(kept, order, batch_dims=1)

    def sorted_rows(values, filler=0):
        values = tf.gather(values, order, batch_dims=1)
        mask = tf.reshape(kept, [-1, most] + [1] * (values.shape.rank - 2))
        return tf.where(mask, values, tf.cast(filler, values.dtype))

    return {
        BOXES: sorted_rows(boxes),
        CLASSES: tf.cast(sorted_rows(number, -1), tf.int64),
        SCORES: sorted_rows(scores),
        EMBEDDING: sorted_rows(tf.gather(outputs[EMBEDDING], region, batch_dims=1)),
        COUNT: tf.reduce_sum(tf.cast(kept, tf.int32), axis=1),
    }


def pairwise_iou(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """`[B, P, Q]` intersection over union of `[B, P, 4]` and `[B, Q, 4]`; 0 without any area."""
    low = tf.maximum(boxes[:, :, None, :2], others[:, None, :, :2])
    high = tf.minimum(boxes[:, :, None, 2:], others[:, None, :, 2:])
    shared = tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)
    areas = [tf.reduce_prod(b[..., 2:] - b[..., :2], axis=-1) for b in (boxes, others)]
    union = areas[0][:, :, None] + areas[1][:, None] - shared
    return tf.math.divide_no_nan(shared, union)


def _greedy(valid: tf.Tensor, rival: tf.Tensor) -> tf.Tensor:
    """`[B, N]` bool: what is left where each row, in order, removes its later rivals."""
    count = valid.shape[1]
    later = tf.constant(np.triu(np.ones((count, count), bool), 1))
    rival = rival & later

    def step(i, kept):
        removed = rival[:, i] & kept[:, i, None]
        return i + 1, kept & ~removed

    return tf.while_loop(lambda i, kept: i < count, step, [0, valid], parallel_iterations=1)[1]


def _at_stride(maps: Any, size: tuple[int, int], name: str) -> Any:
    """`[B, *size, F]`: the maps from half to twice that resolution, brought together."""
    found = {tuple(m.shape[1:3]): m for m in maps}
    fine, coarse = (tuple(2 * n for n in size), tuple(-(-n // 2) for n in size))
    if size not in found:
        raise ModelError(
            f"The backbone {name} has no map of stride {STRIDE}, on which boxes are found.",
            received=", ".join(f"{h} x {w}" for h, w in found),
            cure="Use an `image_size` that is a multiple of 32, or `backbone=cnn_pyramid`.",
        )
    return merged_maps(found[size], finer=found.get(fine), coarser=found.get(coarse), width=_WIDTH)
