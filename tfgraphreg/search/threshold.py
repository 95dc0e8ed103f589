"""When a query is too far from everything: a limit for the distance to the nearest item.

Shapes: M images of known classes that are not in the index, D width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.search.measured import as_matrix

MOST_KNOWN = 5000
"""Images that a calibration keeps, at most: its share then has a standard error of 0.3 points."""


def check_share(share: float) -> None:
    """Refuses a share of known images that cannot be.

    Raises:
        ConfigError: If it is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ConfigError(
            "`reject` must be above 0 and at most 1: the share of images of known classes that "
            "are accepted.",
            received=f"reject={share}",
            cure="Try 0.95, or 1 to accept every image again.",
        )


def least_known(share: float) -> int:
    """How many images a limit for this share, below 1, needs: 19 for 0.95."""
    return max(1, math.ceil(share / (1 - share) - 1e-9))


def accepting_limit(distances: np.ndarray, share: float) -> float:
    """The distance up to which a new image of known classes is accepted.

    It is the ceil((M + 1) share)-th smallest of the distances, so that one more image of the same
    origin lies within it with a probability of at least `share` (split conformal prediction,
    Papadopoulos et al. 2002).

    Args:
        distances: `[M]`, from images of known classes to the nearest item.
        share: Above 0 and below 1.

    Raises:
        DataError: If M is less than `least_known(share)`, or the limit is infinite.
    """
    rank = math.ceil((len(distances) + 1) * share - 1e-9)
    if rank > len(distances):
        raise DataError(
            f"To accept a share of {share:g} there must be at least {least_known(share)} images of "
            "known classes that the index does not hold.",
            received=f"{len(distances)} images",
            cure="Lower `reject`, or give the run more test or validation images.",
        )
    limit = float(np.partition(distances, rank - 1)[rank - 1])
    if not math.isfinite(limit):
        raise DataError("An index needs items before a limit can be set.")
    return limit


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Images of known classes that are not in the index, by which its limit is set.

    Attributes:
        share: Of such images that are accepted, above 0 and below 1.
        embeddings: `[M, D]` float32.
        labels: `[M]` class names, "" where there is none.
        source: What images they are, in words.
    """

    share: float
    embeddings: np.ndarray
    labels: np.ndarray
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "embeddings", as_matrix("embeddings", self.embeddings))
        if not 0 < self.share < 1 or self.labels.shape != (len(self),):
            raise DataError(
                "A calibration needs a share above 0 and below 1 and a label for each image.",
                received=f"share={self.share}, {self.labels.shape} labels, {len(self)} images",
            )

    def __len__(self) -> int:
        return len(self.embeddings)

    @classmethod
    def of(
        cls,
        share: float,
        embeddings: np.ndarray,
        labels: Sequence[str] | np.ndarray | None,
        source: str,
    ) -> Calibration:
        """By all of these images, or 5,000 of them that are drawn by chance.

        Raises:
            DataError: If a label lacks its image.
        """
        names = np.full(len(embeddings), "") if labels is None else np.array(labels, dtype=str)
        if len(names) != len(embeddings):
            raise DataError(
                "Every image needs a label, or none has one.",
                received=f"{len(names)} labels, {len(embeddings)} images",
            )
        kept = np.sort(np.random.default_rng(0).permutation(len(embeddings))[:MOST_KNOWN])
        return cls(float(share), embeddings[kept], names[kept], source)

    def about(self, limit: float) -> dict[str, Any]:
        """What the description of an index says of it, as plain values."""
        return {"share": self.share, "limit": limit, "images": len(self), "source": self.source}

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays, by name."""
        return {"embeddings": self.embeddings, "labels": self.labels}

    @classmethod
    def restore(
        cls, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray], dim: int
    ) -> tuple[Calibration, float]:
        """What `about` and `arrays` gave for an index of width `dim`, and the limit.

        Raises:
            ValueError: If the values cannot be that.
        """
        share, limit, source = (about.get(name) for name in ("share", "limit", "source"))
        if not (isinstance(share, float) and isinstance(limit, float) and isinstance(source, str)):
            raise ValueError("what it says of known images cannot be")
        if not math.isfinite(limit) or arrays.keys() != {"embeddings", "labels"}:
            raise ValueError("what it says of known images cannot be")
        try:
            made = cls(share, arrays["embeddings"], arrays["labels"].astype(str), source)
        except DataError as error:
            raise ValueError(str(error)) from error
        if made.embeddings.shape[1] != dim or len(made) != about.get("images"):
            raise ValueError("its known images do not fit it")
        return made, limit
