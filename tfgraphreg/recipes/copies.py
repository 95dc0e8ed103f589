"""Labeled images once more, mirrored and moved as training shows them.

Classifiers of features learn from these copies too.

Shapes: M labeled images, V variants, D features.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.features.registry import extract_features
from tfgraphreg.progress import Progress
from tfgraphreg.propagation.kernel import MOST
from tfgraphreg.recipes.features import FEATURE_SEED, embedder, network_of

# Chosen on labels of Fashion-MNIST drawn with other seeds; see docs/propagation.md.
_SHIFT = 0.07  # of the side, at least a pixel
# Mirrored, down, right of each variant but the image as it is.
_MIRRORED = [(True, 0, 0)]
_WAYS = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
_MOVED = [(mirrored, *way) for mirrored, way in itertools.product((False, True), _WAYS)][1:]


def features_of_copies(
    config: TrainConfig, dataset: Dataset, labels: np.ndarray, progress: Progress
) -> tuple[np.ndarray, np.ndarray] | None:
    """Features of copies of the labeled images, by the descriptor of the config's graph.

    Args:
        config: Names the features and the augmentation.
        dataset: Its training images are copied.
        labels: `[N]` class numbers, -1 where unlabeled.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        `[V * M, D]` float32 features and `[V * M]` labels; None where `copies` gives none, and for
        vectors of the user's own.
    """
    kind, _ = network_of(config.graph_features)
    made = None if kind == "file" else copies(dataset.train.images, labels, config.augment)
    if made is None:
        return None
    images, classes = made
    if kind is None:
        rows = extract_features(
            config.graph_features,
            images,
            fit=dataset.train.images,
            seed=FEATURE_SEED,
            progress=progress,
        )
    else:
        embed = embedder(config, images.shape[1:])
        rows = embed(images, lambda done, *_: progress("embedding", done, len(images)))
    return rows, classes


def copies(images: Any, labels: np.ndarray, augment: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Copies of the labeled images, as an augmentation would show them.

    With ``"flip"`` they are mirror images. With ``"flip_shift"`` images and mirror images are also
    moved up, down, left and right by 7 % of the side, if there are at most 5,000 then in all.

    Args:
        images: `[N, H, W, C]` uint8.
        labels: `[N]` class numbers, -1 where unlabeled.
        augment: Name of the augmentation.

    Returns:
        `[V * M, H, W, C]` images and `[V * M]` labels; None for other augmentations, and where
        images and mirror images are more than 5,000.
    """
    known = np.flatnonzero(labels >= 0)
    if augment not in ("flip", "flip_shift") or len(known) * 2 > MOST:
        return None
    variants = _MOVED if augment == "flip_shift" else _MIRRORED
    if len(known) * (1 + len(variants)) > MOST:
        variants = _MIRRORED
    shown = np.asarray(images[known])
    made = np.concatenate([moved(shown, *variant) for variant in variants])
    return made, np.tile(labels[known], len(variants))


def moved(images: np.ndarray, mirrored: bool, down: int, right: int) -> np.ndarray:
    """`[M, H, W, C]` images, mirrored left to right, then moved; the edge's pixels fill the gap.

    Args:
        images: Of any type.
        mirrored: Whether to mirror.
        down: 1 moves down, -1 up, 0 neither, by 7 % of the height and at least a pixel.
        right: The same to the right, of the width.
    """
    images = images[:, :, ::-1] if mirrored else images
    for axis, way in ((1, down), (2, right)):
        size = images.shape[axis]
        places = np.arange(size) - way * max(1, round(_SHIFT * size))
        images = images.take(np.clip(places, 0, size - 1), axis=axis)
    return images
