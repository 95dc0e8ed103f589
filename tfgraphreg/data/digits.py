"""The 1,797 handwritten digits that scikit-learn carries: real images without any download."""

from __future__ import annotations

import numpy as np

NAME = "digits"
CLASS_NAMES = tuple("0123456789")


def read() -> tuple[np.ndarray, np.ndarray]:
    """`[1797, 8, 8, 1]` uint8 images and `[1797]` int64 labels, in scikit-learn's order.

    The values 0 to 16 become 0 to 255.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    return images, bunch.target.astype(np.int64)
