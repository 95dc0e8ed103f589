"""The layer that brings raw images to what a backbone needs."""

from __future__ import annotations

from typing import Any

from tfgraphreg.compat import keras, tf

# Offset and scale per channel of (pixels - offset) / scale, on pixels in 0 to 255.
_IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
_SCALES: dict[str, tuple[Any, Any]] = {
    "none": (0.0, 1.0),
    "zero_to_one": (0.0, 255.0),
    "minus_one_to_one": (127.5, 127.5),
    "torch": (_IMAGENET_MEAN, _IMAGENET_STD),
    "dpn": ((124.0, 117.0, 104.0), 1 / 0.0167),
    # In the order blue, green, red.
    "caffe": ((103.939, 116.779, 123.68), 1.0),
}


@keras.utils.register_keras_serializable("tfgraphreg")
class RawImage(keras.layers.Layer):
    """Casts, resizes, repeats gray into channels and scales pixels; always in float32.

    Mixed precision starts behind this layer: float16 cannot hold the fractions that a resize
    gives to pixels between 128 and 255 to better than an eighth.

    Args:
        size: (height, width) of the result in pixels; None keeps the size.
        channels: Channels of the result: those of the image, or 3 for a gray image.
        preprocessing: One of `records.PREPROCESSINGS`.

    Input: images [B, H, W, C] in 0 to 255, any number type. Output: float32 [B, h, w, channels].
    """

    def __init__(
        self,
        *,
        size: tuple[int, int] | None = None,
        channels: int = 3,
        preprocessing: str = "none",
        **kwargs: Any,
    ):
        kwargs["dtype"] = "float32"
        super().__init__(trainable=False, **kwargs)
        self.size = None if size is None else tuple(size)
        self.channels = channels
        self.preprocessing = preprocessing

    def call(self, inputs: Any) -> Any:
        """Maps raw images to preprocessed images."""
        images = tf.cast(inputs, tf.float32)
        if self.size is not None:
            images = tf.image.resize(images, self.size)
        if images.shape[-1] == 1 and self.channels > 1:
            images = tf.repeat(images, self.channels, axis=-1)
        offset, scale = _SCALES[self.preprocessing]
        if self.preprocessing == "caffe":
            images = tf.reverse(images, axis=[-1])
        return (images - tf.constant(offset)) / tf.constant(scale)

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the layer."""
        config = super().get_config()
        config.pop("trainable", None)
        return {
            **config,
            "size": self.size,
            "channels": self.channels,
            "preprocessing": self.preprocessing,
        }
