"""The Sequence Graph Transform of an image read as a sequence of gray levels.

Ranjan, Ebrahimi and Paynabar (2016), arXiv:1608.03533, algorithm 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfgraphreg.features.color import gray
from tfgraphreg.features.registry import FEATURES, Feature
from tfgraphreg.features.texture import quantized

LEVELS = 8
_LONGEST_SIDE = 64


def sequence_graph_transform(
    sequences: np.ndarray, symbols: int, *, kappa: float = 1.0, length_sensitive: bool = False
) -> np.ndarray:
    """How strongly each symbol follows each other one, over all distances at once.

    For symbols u and v: the mean of exp(-kappa (j - i)) over all places i < j with u at i and v at
    j, to the power 1 / kappa; 0 where there is no such pair. The sum over i is carried from place
    to place, so that time grows with the length and not with its square.

    Args:
        sequences: `[B, L]` integers from 0 to `symbols` - 1.
        symbols: Size A of the alphabet.
        kappa: Above 0; larger values look less far.
        length_sensitive: Whether to multiply the mean by L, as the authors' option does.

    Returns:
        `[B, A * A]` float64, row-major in (u, v).
    """
    count, length = sequences.shape
    items = np.arange(count)
    decay = np.exp(-kappa)
    near = np.zeros((count, symbols))  # sum of exp(-kappa (j - i)) over earlier places of u
    seen = np.zeros((count, symbols))
    weight = np.zeros((count, symbols, symbols))  # [item, v, u]
    pairs = np.zeros((count, symbols, symbols))
    for place in range(length):
        symbol = sequences[:, place]
        weight[items, symbol] += near
        pairs[items, symbol] += seen
        near[items, symbol] += 1.0
        seen[items, symbol] += 1.0
        near *= decay
    if length_sensitive:
        pairs /= length
    mean = np.divide(weight, pairs, out=np.zeros_like(weight), where=pairs > 0)
    return np.power(mean, 1.0 / kappa).transpose(0, 2, 1).reshape(count, -1)


def sgt(images: np.ndarray, _: Any = None) -> np.ndarray:
    """`[B, 128]`: the transform of 8 gray levels, read row by row and column by column.

    Images above 64 pixels a side are thinned out first.
    """
    step = -(-max(images.shape[1:3]) // _LONGEST_SIDE)
    levels = quantized(gray(images[:, ::step, ::step]), LEVELS)
    across = levels.reshape(len(levels), -1)
    down = levels.transpose(0, 2, 1).reshape(len(levels), -1)
    return np.concatenate([sequence_graph_transform(s, LEVELS) for s in (across, down)], axis=1)


FEATURES.register(
    "sgt", Feature("sgt", sgt, heavy=True, summary="Sequence Graph Transform of gray levels")
)
