"""How far an embedding spreads, and whether it has collapsed: functions of arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfgraphreg.errors import DataError

_ROWS = 1_000
_FEWEST_DIRECTIONS = 1.5
_SMALLEST_DISTANCE = 0.05


def embedding_spread(embedding: npt.ArrayLike) -> dict[str, float]:
    """Effective rank and mean pairwise distance of an embedding.

    Args:
        embedding: `[N, D]` finite numbers. Of more than 1,000 rows, 1,000 at even steps are used.

    Returns:
        `effective_rank`: exp of the entropy of the singular values of the centered rows, divided
        by their sum (Roy and Vetterli, EUSIPCO 2007): between 1, all rows on one line, and
        min(N - 1, D); 0 if all rows are equal up to rounding to float32.
        `mean_pairwise_distance`: Euclidean, over all pairs of different rows, each scaled to
        length 1 (a row of zeros stays one): between 0 and 2; 1.41 for many random directions.
        Both are NaN for fewer than two rows.

    Raises:
        DataError: If the embedding is not a matrix of finite numbers.
    """
    rows = np.asarray(embedding, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        problem = f"shape={rows.shape}" if rows.ndim != 2 else "NaN or infinity"
        raise DataError("`embedding` must be [N, D] finite numbers.", received=problem)
    rows = rows[evenly_spaced(len(rows), _ROWS)]
    if len(rows) < 2:
        return {"effective_rank": float("nan"), "mean_pairwise_distance": float("nan")}
    return {
        "effective_rank": _effective_rank(rows),
        "mean_pairwise_distance": _mean_pairwise_distance(rows),
    }


def has_collapsed(spread: dict[str, float], *, width: int, num_classes: int) -> bool:
    """Whether an embedding of width D no longer tells images apart.

    So it is if the mean pairwise distance is below 0.05, or if the effective rank is below 1.5
    where more is to be expected: two classes lie on one line also in a perfect embedding, and one
    of width 1 has no other place. Undefined numbers do not count.

    Args:
        spread: Of `embedding_spread`.
        width: D.
        num_classes: Classes that the embedding should tell apart.
    """
    if spread["mean_pairwise_distance"] < _SMALLEST_DISTANCE:
        return True
    return width > 1 and num_classes > 2 and spread["effective_rank"] < _FEWEST_DIRECTIONS


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """At most `most` increasing indices below `count`, at even steps from the first to the last.

    Even steps, because datasets in folders come class by class.
    """
    return np.linspace(0, max(count - 1, 0), min(count, most)).astype(np.int64)


def _effective_rank(rows: np.ndarray) -> float:
    sizes = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    if sizes[0] <= np.finfo(np.float32).eps * np.linalg.norm(rows):
        return 0.0
    shares = sizes / sizes.sum()
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def _mean_pairwise_distance(rows: np.ndarray) -> float:
    from scipy.spatial.distance import pdist

    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return float(pdist(rows / np.where(lengths > 0, lengths, 1.0)).mean())
