"""What the heads for boxes and masks do with the maps of a backbone."""

from __future__ import annotations

from typing import Any

from tfgraphreg.compat import keras, tf


@keras.utils.register_keras_serializable("tfgraphreg")
class Resize(keras.layers.Layer):
    """Bilinear resizing of `[B, h, w, F]` to `[B, *size, F]`."""

    def __init__(self, size: Any, **kwargs: Any):
        super().__init__(trainable=False, **kwargs)
        self.size = tuple(int(n) for n in size)

    def call(self, inputs):
        """The resized map, in the type of the layer."""
        return tf.cast(tf.image.resize(inputs, self.size), self.compute_dtype)

    def get_config(self):
        """What rebuilds the layer."""
        config = super().get_config()
        config.pop("trainable", None)
        return {**config, "size": self.size}


def merged_maps(own: Any, *, finer: Any = None, coarser: Any = None, width: int) -> Any:
    """`[B, h, w, width]`: a map `own` `[B, h, w, F]` and its neighbors in a pyramid, added.

    Each goes through a linear layer, a finer one by squares of 2 x 2, a coarser one before it is
    enlarged; batch normalization and ReLU follow (Lin et al. 2017, arXiv:1612.03144, with the finer
    map besides).

    Args:
        own: The map whose resolution the result has.
        finer: One of about twice that resolution, or None.
        coarser: One of about half that resolution, or None.
        width: Channels of the result.
    """
    size = own.shape[1:3]
    parts = [_brought(own, size, width, 1, "head_own")]
    if finer is not None:
        parts.append(_brought(finer, size, width, 2, "head_finer"))
    if coarser is not None:
        parts.append(_brought(coarser, size, width, 1, "head_coarser"))
    x = keras.layers.Add(name="head_merged")(parts) if len(parts) > 1 else parts[0]
    return _normalized(x, "head_merged")


def head_block(x: Any, width: int, name: str) -> Any:
    """A convolution of 3 x 3, batch normalization and ReLU."""
    x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name=name)(x)
    return _normalized(x, name)


def _brought(x: Any, size: Any, width: int, stride: int, name: str) -> Any:
    x = keras.layers.Conv2D(width, stride, stride, padding="same", use_bias=False, name=name)(x)
    return x if x.shape[1:3] == size else Resize(size, name=f"{name}_resized")(x)


def _normalized(x: Any, name: str) -> Any:
    x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
