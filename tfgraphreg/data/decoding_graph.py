"""Reading image files inside TensorFlow, for exported models.

Gives the pixels of `tfgraphreg.data.decoding.decode_image`, bit for bit: `tf.image.resize` and
Pillow round differently, so the resizing is Pillow's own, in its fixed-point arithmetic
(https://github.com/python-pillow/Pillow, src/libImaging/Resample.c).
"""

from __future__ import annotations

from tfgraphreg.compat import tf

# Pillow's filter weights are whole numbers of this many bits.
_BITS = 22
# Gray of red, green and blue (ITU-R 601-2), in 1/65536.
_LUMA = (19595, 38470, 7471)


def decode_in_graph(content: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """The pixels of one JPEG or PNG file.

    Args:
        content: A scalar string tensor, the bytes of the file.
        shape: `(height, width, channels)` of the result; channels is 1 or 3.

    Returns:
        `[height, width, channels]` uint8.
    """
    height, width, channels = shape
    # The operation reads PNG too, and unlike decode_image it lets the accurate DCT be chosen.
    image = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    image = tf.cast(image, tf.int32)
    if channels == 1:
        gray = tf.reduce_sum(image * tf.constant(_LUMA), axis=-1, keepdims=True)
        image = tf.bitwise.right_shift(gray + 0x8000, 16)
    # Pillow resizes rows first, and rounds in between.
    image = tf.transpose(_resize_first_axis(tf.transpose(image, [1, 0, 2]), width), [1, 0, 2])
    image = _resize_first_axis(image, height)
    return tf.ensure_shape(tf.cast(image, tf.uint8), shape)


def _resize_first_axis(image: tf.Tensor, size: int) -> tf.Tensor:
    """`[n, m, C]` int32 levels resized to `[size, m, C]`."""
    n, m, channels = tf.unstack(tf.shape(image))
    rows = tf.reshape(image, [n, m * channels])
    total = tf.sparse.sparse_dense_matmul(_filter(n, size), rows)
    levels = tf.bitwise.right_shift(total + (1 << (_BITS - 1)), _BITS)
    return tf.reshape(tf.clip_by_value(levels, 0, 255), [size, m, channels])


def _filter(n: tf.Tensor, size: int) -> tf.SparseTensor:
    """`[size, n]` int32: Pillow's antialiasing triangle filter, `precompute_coeffs` there."""
    n = tf.cast(n, tf.float64)
    scale = n / size
    support = tf.maximum(scale, tf.ones_like(scale))
    centers = ((tf.range(size, dtype=tf.float64) + 0.5) * scale)[:, None]
    positions = tf.range(n, dtype=tf.float64)[None, :]
    first = tf.nn.relu(tf.floor(centers - support + 0.5))
    last = tf.minimum(tf.floor(centers + support + 0.5), n)
    weights = tf.nn.relu(1 - tf.abs((positions - centers + 0.5) * (1 / support)))
    inside = (positions >= first) & (positions < last)
    weights = tf.where(inside, weights, tf.zeros_like(weights))
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    return tf.sparse.from_dense(tf.cast(tf.floor(weights * 2**_BITS + 0.5), tf.int32))
