"""Every distance, defined once; used by the graph and by the regularizer.

Shapes: B rows of width D.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tfgraphreg.registry import Registry


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
    """

    name: str
    tensor: Callable[[Any, Any], Any]
    array: Callable[[Any, Any], Any]
    symmetric: bool = True
    distributions: bool = False


DISTANCES: Registry[Distance] = Registry("distance")
