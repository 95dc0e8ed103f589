"""All pairs of items within a distance.

Shapes: N items, D width, E pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tfgraphreg.errors import ConfigError, GraphError
from tfgraphreg.progress import Progress
from tfgraphreg.search.measured import Measured
from tfgraphreg.search.spaces import exact_space

_BLOCK = 2048
_MOST_EDGES = 200_000_000


def pairs_within(
    measured: Measured, radius: float, *, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ordered pairs of different items at a distance of at most `radius`, found exactly.

    If the distance is Euclidean in some space, a matrix product proposes candidates, whose exact
    distances then decide; otherwise every item is compared with all others.

    Args:
        measured: Features and their distance.
        radius: Above 0.
        progress: Called with ``"pairs"``, items done, and N.

    Returns:
        `[E]` sources, `[E]` targets and `[E]` float64 distances.

    Raises:
        ConfigError: If `radius` is no positive number.
        GraphError: If there is no such pair, or there are too many.
    """
    if not (math.isfinite(radius) and radius > 0):
        raise ConfigError("`radius` must be a finite number > 0.", received=f"radius={radius}")
    n = len(measured.features)
    found, edges = [], 0
    for sources, targets in _proposals(measured, radius):
        distances = measured.between(sources, targets)
        near = (distances <= radius * (1 + 1e-9)) & (sources != targets)
        edges += int(near.sum())
        if edges > _MOST_EDGES:
            raise GraphError(
                "This radius gives more edges than fit in memory.",
                received=f"radius={radius}, over {_MOST_EDGES} edges",
                cure="Use a smaller radius or a knn graph.",
            )
        found.append((sources[near], targets[near], distances[near]))
        if progress:
            progress("pairs", min(n, int(sources.max(initial=0)) + 1), n)
    if not edges:
        raise GraphError(
            "No two items are that near: the graph would have no edge and its loss be zero.",
            received=f"radius={radius}",
            cure="Use a larger radius or a knn graph.",
        )
    sources, targets, distances = (np.concatenate(part) for part in zip(*found))
    return sources, targets, distances


def _proposals(measured: Measured, radius: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of pairs that hold every pair within the radius."""
    n = len(measured.features)
    euclidean = _euclidean(measured, radius)
    if euclidean is None:
        for item in range(n):
            yield np.full(n, item), np.arange(n)
        return
    rows, square = euclidean
    lengths = np.einsum("nd,nd->n", rows, rows)
    for start in range(0, n, _BLOCK):
        block = rows[start : start + _BLOCK]
        between = lengths[start : start + _BLOCK, None] + lengths - 2 * block @ rows.T
        # A bound on the rounding error of a difference of such numbers.
        slack = 1e-5 * (lengths[start : start + _BLOCK, None] + lengths)
        sources, targets = np.nonzero(between <= square + slack)
        yield sources + start, targets


def _euclidean(measured: Measured, radius: float) -> tuple[np.ndarray, float] | None:
    """Rows `[N, W]` in which d <= radius is |x - y|^2 <= square, and that square."""
    distance = measured.distance
    centered = measured.features - measured.features.mean(axis=0, dtype=np.float64)
    if distance.linear is not None:
        return (centered @ distance.linear).astype(np.float32), radius**2
    if distance.own:
        return None
    if distance.name in ("euclidean", "sqeuclidean"):
        return centered.astype(np.float32), radius**2 if distance.name == "euclidean" else radius
    if distance.name == "cosine":
        units = exact_space(measured)
        return None if units is None else (units.base, 2 * radius)
    return None
