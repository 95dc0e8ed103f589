"""Features prepared for a distance, to be searched and compared.

Shapes: N items, D width, E edges.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from tfgraphreg.distances import DISTANCES, Distance
from tfgraphreg.errors import DataError, GraphError

_PAIRS = 1 << 17  # numbers of one block of pairs: with its copies it stays in a core's cache


def as_matrix(
    name: str,
    values: np.ndarray,
    *,
    dtype: npt.DTypeLike = np.float32,
    error: type[DataError | GraphError] = DataError,
) -> np.ndarray:
    """`values` as a finite, contiguous `[N, D]` array.

    Raises:
        DataError: Or the given `error`, if it is anything else.
    """
    values = np.asarray(values)
    if values.ndim != 2 or not values.shape[1] or values.dtype.kind in "OSUTMmc":
        raise error(
            f"`{name}` must be numbers of the shape [N, D] with D at least 1.",
            received=f"shape={values.shape}, dtype={values.dtype}",
        )
    # Values beyond float32 become infinite and are refused.
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(values, dtype)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise error(
            f"`{name}` must be finite.",
            received=f"{int(bad.sum())} rows with NaN or infinity, the first is row "
            f"{int(np.argmax(bad))}",
        )
    return values


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Rows scaled to length one, `[N, D + 1]`; a row of zeros gets its one in the last column.

    Inner products are then cosines, with 1 between two rows of zeros and 0 between such a row
    and any other, as the registered cosine distance has it.
    """
    # In float64, so that rows of one direction and different lengths become the same row.
    values = np.asarray(values, np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    zero = norms == 0
    return np.hstack([values / np.where(zero, 1, norms), zero]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Measured:
    """Features and the distance that compares them.

    Attributes:
        distance: The record, fitted to the features where it has something to fit.
        features: `[N, D]` float32; rows sum to one where the distance compares distributions.
    """

    distance: Distance
    features: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, metric: str | Distance) -> Measured:
        """`features` made ready for `metric`, a registered name or a record of your own.

        Raises:
            GraphError: If the metric compares distributions and a feature is negative.
        """
        distance = DISTANCES.get(metric) if isinstance(metric, str) else metric
        features = as_matrix("features", features, error=GraphError)
        if distance.distributions:
            features = _distributions(features, distance.name)
        if distance.fit is not None:
            distance = distance.fit(features)
        return cls(distance, features)

    def between(self, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """`[E]` float64 distances from `sources` to `targets`, computed pair by pair."""
        found = np.empty(len(sources))
        block = max(1, _PAIRS // self.features.shape[1])
        for start in range(0, len(sources), block):
            rows = slice(start, start + block)
            found[rows] = self.distance.array(
                self.features[sources[rows]], self.features[targets[rows]]
            )
        return found


def _distributions(features: np.ndarray, name: str) -> np.ndarray:
    if len(features) and features.min() < 0:
        raise GraphError(
            f"The distance {name} compares histograms: features must not be negative.",
            received=f"a smallest feature of {features.min():g}",
            cure="Use features such as color or pixels, or another metric.",
        )
    total = features.sum(axis=1, keepdims=True, dtype=np.float64)
    # A row of zeros counts as the uniform distribution.
    shares = np.where(total > 0, features / np.where(total > 0, total, 1), 1 / features.shape[1])
    return shares.astype(np.float32)
