"""Every distance, defined once; used by the graph and by the regularizer.

Shapes: B rows of width D. Tensors of half precision are computed in float32. Values up to 1e18 in
float32 give finite distances and finite gradients; squares that would overflow stay at the
largest finite float, with a gradient of zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg import compat
from tfgraphreg.registry import Registry

# Lengths at or below this count as zero, so that nothing is divided by a vanishing number.
_TINY = 1e-30


@dataclasses.dataclass(frozen=True)
class Distance:
    """A distance between rows.

    Attributes:
        name: Its registered name.
        tensor: Function of two float `[B, D]` tensors; gives a `[B]` tensor, finite and with
            finite gradients everywhere. Used by the regularizer.
        array: The same function of two `[B, D]` NumPy arrays; gives `[B]` float64.
        symmetric: Whether d(x, y) = d(y, x).
        distributions: Whether rows must be non-negative and sum to one. The regularizer then
            applies a softmax to embeddings first; the graph normalizes its features by L1.
        squared: Whether the value grows as the square of a length; edge weights that need a
            length then take the root.
    """

    name: str
    tensor: Callable[[Any, Any], Any]
    array: Callable[[Any, Any], Any]
    symmetric: bool = True
    distributions: bool = False
    squared: bool = False


DISTANCES: Registry[Distance] = Registry("distance")


def _tensors(x: Any, y: Any) -> tuple[Any, Any]:
    """Both as tensors of float32 or wider."""
    tf = compat.tf
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    if x.dtype in (tf.float16, tf.bfloat16):
        x = tf.cast(x, tf.float32)
    return x, tf.cast(y, x.dtype)


def _arrays(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def _polar(rows: Any) -> tuple[Any, Any]:
    """Lengths `[B, 1]` and directions `[B, D]` of rows, without overflow.

    Both are zero, with a gradient of zero, where a row is.
    """
    tf = compat.tf
    scale = tf.stop_gradient(tf.reduce_max(tf.abs(rows), axis=-1, keepdims=True))
    positive = scale > _TINY
    scale = tf.where(positive, scale, tf.ones_like(scale))
    scaled = rows / scale
    squares = tf.reduce_sum(tf.square(scaled), axis=-1, keepdims=True)
    root = tf.sqrt(tf.where(positive, squares, tf.ones_like(squares)))
    length = tf.where(positive, scale * root, tf.zeros_like(root))
    return length, tf.where(positive, scaled / root, tf.zeros_like(scaled))


def _euclidean_tensor(x: Any, y: Any) -> Any:
    x, y = _tensors(x, y)
    length, _ = _polar(x - y)
    return length[..., 0]


def _euclidean_array(x: Any, y: Any) -> np.ndarray:
    return np.sqrt(_sqeuclidean_array(x, y))


def _sqeuclidean_tensor(x: Any, y: Any) -> Any:
    tf = compat.tf
    x, y = _tensors(x, y)
    return tf.minimum(tf.reduce_sum(tf.square(x - y), axis=-1), x.dtype.max)


def _sqeuclidean_array(x: Any, y: Any) -> np.ndarray:
    x, y = _arrays(x, y)
    return np.sum(np.square(x - y), axis=-1)


def _manhattan_tensor(x: Any, y: Any) -> Any:
    tf = compat.tf
    x, y = _tensors(x, y)
    return tf.reduce_sum(tf.abs(x - y), axis=-1)


def _manhattan_array(x: Any, y: Any) -> np.ndarray:
    x, y = _arrays(x, y)
    return np.sum(np.abs(x - y), axis=-1)


def _cosine_tensor(x: Any, y: Any) -> Any:
    # 1 - u.v as |u - v|^2 / 2: exactly 0 at equal rows and never negative.
    tf = compat.tf
    x, y = _tensors(x, y)
    (x_length, u), (y_length, v) = _polar(x), _polar(y)
    one_is_zero = tf.cast((x_length > 0) != (y_length > 0), x.dtype)[..., 0]
    return 0.5 * (tf.reduce_sum(tf.square(u - v), axis=-1) + one_is_zero)


def _cosine_array(x: Any, y: Any) -> np.ndarray:
    x, y = _arrays(x, y)
    lengths = [np.sqrt(np.sum(np.square(r), axis=-1, keepdims=True)) for r in (x, y)]
    u, v = (r / np.where(n > _TINY, n, np.inf) for r, n in zip((x, y), lengths))
    one_is_zero = ((lengths[0] > _TINY) != (lengths[1] > _TINY))[..., 0]
    return 0.5 * (np.sum(np.square(u - v), axis=-1) + one_is_zero)


DISTANCES.register("euclidean", Distance("euclidean", _euclidean_tensor, _euclidean_array))
DISTANCES.register(
    "sqeuclidean", Distance("sqeuclidean", _sqeuclidean_tensor, _sqeuclidean_array, squared=True)
)
DISTANCES.register("manhattan", Distance("manhattan", _manhattan_tensor, _manhattan_array))
# 1 - cos(x, y), in [0, 2]. Two zero rows are at distance 0, a zero row and another one at 1.
DISTANCES.register("cosine", Distance("cosine", _cosine_tensor, _cosine_array, squared=True))
