"""Images in shards, and their features."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfgraphreg.features.registry import FEATURES, blocks
from tfgraphreg.shards.store import RowShards


def store_images(images: Any, shard: int, out: RowShards) -> None:
    """Writes one shard of images, which may be files that are decoded now.

    Args:
        images: Those of the shard alone.
        shard: Its number.
        out: Where it goes.
    """
    out.write(shard, np.ascontiguousarray(images[:], np.uint8))


def describe(images: RowShards, shard: int, feature: str, state: Any) -> np.ndarray:
    """`[n, D]` float32 features of one shard of images.

    Args:
        images: Stored images.
        shard: The number of a shard.
        feature: Of the features room, by its own name.
        state: What the feature learned from images, or None.
    """
    compute = FEATURES.get(feature).compute
    assert compute is not None, "`find_feature` gives only such features"
    rows = images.range(*images.bounds(shard))
    return np.concatenate([compute(block, state) for block in blocks(rows)]).astype(np.float32)
