"""Random numbers in compiled code: a hash of (key, counter), so no state and no arrays."""

from __future__ import annotations

import numba
import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_HALF, _SCALE = 0.5, 1.0 / 9007199254740992.0


@numba.njit(inline="always")
def uniform(key, counter):
    """A number in (0, 1), from 53 bits of SplitMix64's output function (Steele et al. 2014)."""
    z = np.uint64(key) + (np.uint64(counter) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    z = z ^ (z >> _S31)
    return (np.float64(z >> _S11) + _HALF) * _SCALE
