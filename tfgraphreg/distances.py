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
from tfgraphreg.errors import ConfigError
from tfgraphreg.registry import Registry

# Lengths at or below this count as zero, so that nothing is divided by a vanishing number.
_TINY = float(np.float32(1e-30))  # The same number in both precisions.


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
        fit: For a distance that learns from data: function of `[N, D]` features that gives the
            record to use with them.
        running: For a distance that learns while a model trains: function of the width D that
            gives an object with `update` and `tensor`, such as `RunningMahalanobis`.
        linear: `[D, D]` matrix W where the distance is |x W - y W|, so that a search for
            Euclidean neighbors can serve it; None for all others.
        own: Whether a user registered it, so that its name says nothing of what it computes.
    """

    name: str
    tensor: Callable[[Any, Any], Any]
    array: Callable[[Any, Any], Any]
    symmetric: bool = True
    distributions: bool = False
    squared: bool = False
    fit: Callable[[np.ndarray], Distance] | None = None
    running: Callable[[int], Any] | None = None
    linear: np.ndarray | None = None
    own: bool = False


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
    # A row is zero where `_polar` says so: by its largest entry, not by its length.
    positive = [np.max(np.abs(r), axis=-1, keepdims=True, initial=0) > _TINY for r in (x, y)]
    lengths = (np.sqrt(np.sum(np.square(r), axis=-1, keepdims=True)) for r in (x, y))
    u, v = (r / np.where(p, n, np.inf) for r, p, n in zip((x, y), positive, lengths))
    one_is_zero = (positive[0] != positive[1])[..., 0]
    return 0.5 * (np.sum(np.square(u - v), axis=-1) + one_is_zero)


DISTANCES.register("euclidean", Distance("euclidean", _euclidean_tensor, _euclidean_array))
DISTANCES.register(
    "sqeuclidean", Distance("sqeuclidean", _sqeuclidean_tensor, _sqeuclidean_array, squared=True)
)
DISTANCES.register("manhattan", Distance("manhattan", _manhattan_tensor, _manhattan_array))
# 1 - cos(x, y), in [0, 2]. Two zero rows are at distance 0, a zero row and another one at 1.
DISTANCES.register("cosine", Distance("cosine", _cosine_tensor, _cosine_array, squared=True))


# NSL adds this to a probability before its logarithm.
_LOG_FLOOR = 1e-7


def _intersection_tensor(x: Any, y: Any) -> Any:
    # Rows sum to one, so 1 - sum min(x, y) = |x - y|_1 / 2, which is exactly 0 at equal rows.
    return 0.5 * _manhattan_tensor(x, y)


def _intersection_array(x: Any, y: Any) -> np.ndarray:
    return 0.5 * _manhattan_array(x, y)


def _kl_tensor(x: Any, y: Any) -> Any:
    tf = compat.tf
    x, y = (tf.nn.relu(rows) for rows in _tensors(x, y))
    logs = tf.math.log(x + _LOG_FLOOR) - tf.math.log(y + _LOG_FLOOR)
    return tf.nn.relu(tf.reduce_sum(x * logs, axis=-1))


def _kl_array(x: Any, y: Any) -> np.ndarray:
    x, y = (np.maximum(rows, 0.0) for rows in _arrays(x, y))
    logs = np.log(x + _LOG_FLOOR) - np.log(y + _LOG_FLOOR)
    return np.maximum(np.sum(x * logs, axis=-1), 0.0)


def _js_tensor(x: Any, y: Any) -> Any:
    x, y = _tensors(x, y)
    middle = 0.5 * (x + y)
    return 0.5 * (_kl_tensor(x, middle) + _kl_tensor(y, middle))


def _js_array(x: Any, y: Any) -> np.ndarray:
    x, y = _arrays(x, y)
    middle = 0.5 * (x + y)
    return 0.5 * (_kl_array(x, middle) + _kl_array(y, middle))


# 1 - sum min(x, y), of Swain and Ballard (1991); half the Manhattan distance, in [0, 1].
DISTANCES.register(
    "histogram_intersection",
    Distance(
        "histogram_intersection", _intersection_tensor, _intersection_array, distributions=True
    ),
)
DISTANCES.register(
    "kl",
    Distance("kl", _kl_tensor, _kl_array, symmetric=False, distributions=True, squared=True),
)
DISTANCES.register("js", Distance("js", _js_tensor, _js_array, distributions=True, squared=True))


def register_distance(
    name: str,
    tensor: Callable[[Any, Any], Any],
    *,
    array: Callable[[Any, Any], Any] | None = None,
    symmetric: bool = True,
    distributions: bool = False,
    squared: bool = False,
    replace: bool = False,
) -> Distance:
    """Registers a distance of your own under `name`, for graph and regularizer.

    Neighbors by it are found exactly, one item against all others: seconds for thousands of
    images, an hour for a hundred thousand. Graphs made with it are not kept in the cache.

    Args:
        name: A new name, or a taken one with `replace`.
        tensor: See `Distance`.
        array: See `Distance`; `tensor` is called with the arrays if it is not given.
        symmetric: See `Distance`.
        distributions: See `Distance`.
        squared: See `Distance`.
        replace: Whether `name` may be taken.

    Raises:
        ConfigError: If `name` is taken and `replace` is false.
    """
    array = array or _array_function(tensor)
    record = Distance(name, tensor, array, symmetric, distributions, squared, own=True)
    return DISTANCES.register(name, record, replace=replace)


def _array_function(tensor: Callable[[Any, Any], Any]) -> Callable[[Any, Any], np.ndarray]:
    """The function of arrays that a function of tensors is."""

    def array(x: Any, y: Any) -> np.ndarray:
        tf = compat.tf
        return np.asarray(tensor(tf.constant(x, tf.float32), tf.constant(y, tf.float32)), "f8")

    return array


def shrunk_covariance(features: np.ndarray) -> np.ndarray:
    """`[D, D]` float64 covariance of `[N, D]` features, shrunk as Ledoit and Wolf (2004) do.

    The result is positive definite: a constant column gets a small variance.
    """
    from sklearn.covariance import ledoit_wolf

    covariance = ledoit_wolf(np.asarray(features, np.float64))[0]
    return covariance + np.eye(len(covariance)) * (1e-6 * np.trace(covariance) + 1e-12)


def whitening(covariance: np.ndarray) -> np.ndarray:
    """`[D, D]` matrix W with W W^T the inverse of `covariance`: |x W - y W| is Mahalanobis'.

    Raises:
        ConfigError: If `covariance` is not symmetric and positive definite.
    """
    covariance = np.asarray(covariance, np.float64)
    square = covariance.ndim == 2 and covariance.shape[0] == covariance.shape[1]
    try:
        if not square or not np.allclose(covariance, covariance.T):
            raise np.linalg.LinAlgError
        lower = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ConfigError(
            "A covariance must be a symmetric positive definite matrix.",
            received=f"shape={covariance.shape}",
            cure="Use shrunk_covariance.",
        ) from None
    return np.linalg.inv(lower).T


def mahalanobis(covariance: np.ndarray) -> Distance:
    """The Mahalanobis distance of a given `[D, D]` covariance."""
    white = whitening(covariance)

    def tensor(x: Any, y: Any) -> Any:
        tf = compat.tf
        x, y = _tensors(x, y)
        length, _ = _polar(tf.linalg.matmul(x - y, tf.constant(white, x.dtype)))
        return length[..., 0]

    def array(x: Any, y: Any) -> np.ndarray:
        x, y = _arrays(x, y)
        return np.linalg.norm((x - y) @ white, axis=-1)

    return Distance("mahalanobis", tensor, array, linear=white)


def _unfitted(x: Any, y: Any) -> Any:
    raise ConfigError(
        "The distance mahalanobis needs a covariance.",
        cure="Use distances.mahalanobis(covariance), its fit, or RunningMahalanobis.",
    )


DISTANCES.register(
    "mahalanobis",
    Distance(
        "mahalanobis",
        _unfitted,
        _unfitted,
        fit=lambda features: mahalanobis(shrunk_covariance(features)),
        running=lambda width: RunningMahalanobis(width),
    ),
)


class RunningMahalanobis:
    """Mahalanobis distance by a running covariance, for embeddings that move while training.

    Starts as the Euclidean distance. Call `update` once a training step on the embeddings (over
    replicas: on the gathered ones); no gradient flows into the covariance.

    Args:
        width: D.
        momentum: Share of the old estimate that an update keeps, in [0, 1).
        shrinkage: Share of the mean variance mixed into the diagonal, in (0, 1].
    """

    def __init__(self, width: int, *, momentum: float = 0.99, shrinkage: float = 0.1):
        if not (0 <= momentum < 1 and 0 < shrinkage <= 1):
            raise ConfigError(
                "`momentum` must be in [0, 1) and `shrinkage` in (0, 1].",
                received=f"momentum={momentum}, shrinkage={shrinkage}",
            )
        tf = compat.tf
        self._width, self._momentum, self._shrinkage = width, momentum, shrinkage
        # Every replica makes the same update from the gathered rows, so the copies stay equal.
        options = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_WRITE,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        self.mean = tf.Variable(tf.zeros([width]), name="mean", **options)
        self.covariance = tf.Variable(tf.eye(width), name="covariance", **options)

    def update(self, rows: Any) -> None:
        """Moves mean and covariance toward those of `[B, D]` rows; not finite ones move nothing."""
        tf = compat.tf
        rows = tf.stop_gradient(tf.cast(rows, tf.float32))
        rate = 1.0 - self._momentum
        mean = self.mean + rate * (tf.reduce_mean(rows, axis=0) - self.mean)
        centered = rows - mean
        found = tf.matmul(centered, centered, transpose_a=True) / tf.cast(
            tf.maximum(tf.shape(rows)[0], 1), tf.float32
        )
        covariance = self.covariance + rate * (found - self.covariance)
        # A training that diverges must end with a NaN loss, not in a failed decomposition.
        usable = tf.reduce_all(tf.math.is_finite(covariance))
        self.mean.assign(tf.where(usable, mean, self.mean))
        self.covariance.assign(tf.where(usable, covariance, self.covariance))

    def tensor(self, x: Any, y: Any) -> Any:
        """`[B]` distances; finite, with finite gradients."""
        tf = compat.tf
        x, y = _tensors(x, y)
        level = tf.linalg.trace(self.covariance) / self._width + 1e-12
        shrunk = (1 - self._shrinkage) * self.covariance + self._shrinkage * level * tf.eye(
            self._width
        )
        lower = tf.cast(tf.stop_gradient(tf.linalg.cholesky(shrunk)), x.dtype)
        white = tf.linalg.triangular_solve(lower, tf.transpose(x - y))
        length, _ = _polar(tf.transpose(white))
        return length[..., 0]


def find_distance(distance: str | Distance | Callable[[Any, Any], Any]) -> Distance:
    """A registered distance by name; a `Distance` as it is; a function as one.

    Args:
        distance: A name; a record; or a function of two float `[B, D]` tensors that gives `[B]`.

    Raises:
        UnknownNameError: If no distance has that name.
        ConfigError: If it is none of these.
    """
    if isinstance(distance, str):
        return DISTANCES.get(distance)
    if isinstance(distance, Distance):
        return distance
    if callable(distance):
        name = getattr(distance, "__name__", type(distance).__name__)
        return Distance(name, distance, _array_function(distance), own=True)
    raise ConfigError(
        "A distance must be a name, a Distance or a function of two tensors.",
        received=repr(distance),
        cure=f"Use one of {', '.join(DISTANCES.names())}.",
    )
