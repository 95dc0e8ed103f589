"""What the heads for boxes and masks do with the maps of a backbone."""

from __future__ import annotations

from typing import Any

from tfgraphreg.compat import keras, tf


@keras.utils.register_keras_serializable("tfgraphreg")
class ResizeLike(keras.layers.Layer):
    """Bilinear resizing of the first of two maps, `[B, h, w, F]`, to the size of the second."""

    def __init__(self, **kwargs: Any):
        # Nothing is read of the second but its size, so that it need not be cast.
        super().__init__(trainable=False, autocast=False, **kwargs)

    def call(self, inputs):
        """The resized map, in the type of the layer."""
        found, like = inputs
        return tf.cast(tf.image.resize(found, like.shape[1:3]), self.compute_dtype)

    def get_config(self):
        """What rebuilds the layer."""
        config = super().get_config()
        config.pop("trainable", None)
        return config


def takes_any_size(model: Any) -> None:
    """Lets a network of images be called on images of other sizes than it was built for."""
    for part in model.submodules:
        if isinstance(part, keras.Model):
            part.input_spec = None
    model.input_spec = None


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
    parts = [_linear(own, width, 1, "head_own")]
    for other, stride, name in ((finer, 2, "head_finer"), (coarser, 1, "head_coarser")):
        if other is not None:
            x = _linear(other, width, stride, name)
            same = x.shape[1:3] == own.shape[1:3]
            parts.append(x if same else ResizeLike(name=f"{name}_resized")([x, own]))
    x = keras.layers.Add(name="head_merged")(parts) if len(parts) > 1 else parts[0]
    return _normalized(x, "head_merged")


def head_block(x: Any, width: int, name: str) -> Any:
    """A convolution of 3 x 3, batch normalization and ReLU."""
    x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name=name)(x)
    return _normalized(x, name)


def _linear(x: Any, width: int, stride: int, name: str) -> Any:
    return keras.layers.Conv2D(width, stride, stride, padding="same", use_bias=False, name=name)(x)


def _normalized(x: Any, name: str) -> Any:
    x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
