"""Random changes of training images, by KerasCV's preprocessing layers.

The same seed gives the same draws. Those of `flip` and `flip_shift` also go on after --resume
where they were; RandAugment, MixUp and CutMix draw in part from TensorFlow's own operations,
whose state no checkpoint holds, and begin anew there.
"""

from __future__ import annotations

from typing import Any

from tfgraphreg.compat import keras, tf

_PIXELS = (0, 255)


class Augmenter(keras.layers.Layer):
    """Changes raw images `[B, height, width, C]` in training and leaves them alone otherwise.

    An image and its neighbors go through the layer as rows of one batch: every row gets its
    own random draw, all at the same strength, so the graph term pulls two views together.

    Args:
        steps: KerasCV layers, applied in turn.
    """

    def __init__(self, steps: list[Any]):
        super().__init__(name="augmenter", dtype="float32")
        self.steps = steps

    def call(self, images, training=False):
        """Changed images, float32 in 0 to 255."""
        images = tf.cast(images, tf.float32)
        if not training:
            return images
        channels = images.shape[-1]
        if channels == 1:  # Color operations of KerasCV read three channels.
            images = tf.repeat(images, 3, axis=-1)
        for step in self.steps:
            images = tf.cast(step(images, training=True), tf.float32)
        images = tf.clip_by_value(images, *map(float, _PIXELS))
        return tf.reduce_mean(images, axis=-1, keepdims=True) if channels == 1 else images


def build_augmenter(name: str, *, seed: int) -> Augmenter | None:
    """The augmentation of that name, or None if it changes no image by itself.

    Args:
        name: `flip`: left and right; `flip_shift`: and up to 10% translation; `rand_augment`:
            KerasCV's RandAugment at its default strength; else None.
        seed: Makes the draws repeatable.
    """
    if name not in ("flip", "flip_shift", "rand_augment"):
        return None
    import keras_cv

    seed += 1  # KerasCV takes the seed 0 for none.
    if name == "rand_augment":
        return Augmenter([_rand_augment(seed)])
    steps = [keras_cv.layers.RandomFlip("horizontal", seed=seed)]
    if name == "flip_shift":
        steps.append(
            keras_cv.layers.RandomTranslation(
                height_factor=0.1, width_factor=0.1, fill_mode="constant", seed=seed + 1
            )
        )
    return Augmenter(steps)


def _rand_augment(seed: int) -> Any:
    import keras_cv

    class InOrder(keras_cv.layers.RandAugment):
        def _map_fn(self, func, inputs):
            # Images that are worked on side by side draw their numbers in a random order.
            return tf.map_fn(func, inputs, parallel_iterations=1)

    return InOrder(value_range=_PIXELS, seed=seed)


def build_label_mixer(name: str, *, seed: int) -> Any:
    """KerasCV's MixUp or CutMix, or None for any other name.

    It takes and gives a dictionary of `images` `[B, height, width, C]` and one-hot `labels`
    `[B, C]`. The config refuses it beside a graph term: an edge between mixtures has no
    meaning here.
    """
    if name not in ("mixup", "cutmix"):
        return None
    import keras_cv

    layer = {"mixup": keras_cv.layers.MixUp, "cutmix": keras_cv.layers.CutMix}[name]
    return layer(seed=seed + 1)  # KerasCV takes the seed 0 for none.
