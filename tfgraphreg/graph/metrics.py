"""From a distance's name to features that can be searched and compared by it.

Shapes: N items, D width, E edges.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfgraphreg.distances import DISTANCES, Distance
from tfgraphreg.errors import GraphError
from tfgraphreg.progress import Progress as Progress

_PAIRS = 1 << 17  # numbers of one block of pairs: with its copies it stays in a core's cache


def check_features(features: np.ndarray) -> np.ndarray:
    """`features` as a finite `[N, D]` float32 array.

    Raises:
        GraphError: If it is anything else.
    """
    features = np.asarray(features)
    if features.ndim != 2 or not features.shape[1]:
        raise GraphError(
            "Features must have the shape [N, D] with D at least 1.",
            received=f"shape={features.shape}",
        )
    if features.dtype.kind not in "fiub":
        raise GraphError("Features must be numbers.", received=f"dtype={features.dtype}")
    # What float32 cannot hold becomes infinite and is refused below.
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(features, np.float32)
    bad = ~np.isfinite(features.sum(axis=1, dtype=np.float64))
    if bad.any():
        raise GraphError(
            "Features must be finite numbers.",
            received=f"{int(bad.sum())} rows with NaN or infinity, the first is row "
            f"{int(np.argmax(bad))}",
        )
    return features


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
        features = check_features(features)
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
    # A row of zeros says nothing of any bin: the uniform distribution.
    shares = np.where(total > 0, features / np.where(total > 0, total, 1), 1 / features.shape[1])
    return shares.astype(np.float32)
