"""What is measured on: Fashion-MNIST, and larger sets made from it.

Shapes: N images or items, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.graph.similarity import SimilarityGraph

# What the epochs, steps and starts are measured with: a step of it is short, so that whatever
# comes beside the step shows.
BACKBONE = "cnn"
_BLOCK = 20_000
_SHIFT = 3


def fashion_mnist(limit: int | None = None) -> Dataset:
    """Fashion-MNIST, or its first `limit` training images; fetched if it must be."""
    from tfgraphreg.data.catalog import load_dataset

    return load_dataset(
        "fashion_mnist", data_dir=None, seed=0, validation_fraction=0.0, limit=limit
    )


def more_images(images: np.ndarray, size: int, *, seed: int = 0) -> np.ndarray:
    """`[size, 28, 28, 1]` uint8: the images, then changed copies of them.

    A copy is shifted by up to 3 pixels in each direction, dimmed to 60% at most, and mirrored in
    half of the cases, so that no two are alike and near neighbors stay near.
    """
    rng = np.random.default_rng(seed)
    made = np.empty((size, *images.shape[1:]), np.uint8)
    made[: len(images)] = images[:size]
    height, width = images.shape[1:3]
    for start in range(min(len(images), size), size, _BLOCK):
        block = images[rng.integers(len(images), size=min(_BLOCK, size - start))]
        mirrored = rng.random(len(block)) < 0.5
        block = np.where(mirrored[:, None, None, None], block[:, :, ::-1], block)
        down, right = rng.integers(0, 2 * _SHIFT + 1, (2, len(block), 1))
        padded = np.pad(block, ((0, 0), (_SHIFT, _SHIFT), (_SHIFT, _SHIFT), (0, 0)))
        rows = (down + np.arange(height))[:, :, None]
        columns = (right + np.arange(width))[:, None, :]
        block = padded[np.arange(len(block))[:, None, None], rows, columns]
        gain = rng.uniform(0.6, 1.0, (len(block), 1, 1, 1)).astype(np.float32)
        made[start : start + len(block)] = (block * gain).astype(np.uint8)
    return made


def components(images: np.ndarray, width: int, *, seed: int = 0) -> np.ndarray:
    """`[N, width]` float32: principal components, found on at most 20,000 of the images."""
    rng = np.random.default_rng(seed)
    some = rng.choice(len(images), min(_BLOCK, len(images)), replace=False)
    pixels = images[np.sort(some)].reshape(len(some), -1).astype(np.float32) / 255
    mean = pixels.mean(0)
    covariance = np.cov(pixels - mean, rowvar=False)
    axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :width].astype(np.float32)
    found = np.empty((len(images), width), np.float32)
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK].reshape(-1, len(mean)).astype(np.float32) / 255
        found[start : start + len(block)] = (block - mean) @ axes
    return found


def random_neighbors(size: int, k: int, *, seed: int = 0) -> SimilarityGraph:
    """A graph in which every node has k random neighbors: as hard to pack as any."""
    rng = np.random.default_rng(seed)
    targets = np.empty((size, k), np.int32)
    for start in range(0, size, 1_000_000):
        nodes = np.arange(start, min(start + 1_000_000, size))[:, None]
        # Distinct offsets, none of them 0, so that no edge is a loop or comes twice.
        steps = 1 + np.sort(rng.integers(0, size - k, (len(nodes), k)), axis=1) + np.arange(k)
        targets[start : start + len(nodes)] = np.sort((nodes + steps) % size, axis=1)
    weights = rng.random(size * k, np.float32)
    return SimilarityGraph(np.arange(size + 1) * k, targets.ravel(), weights, size)


def split_of(images: Any) -> Split:
    """A training split of these images, with ids and labels of no meaning."""
    ids = np.char.add("image-", np.arange(len(images)).astype(str))
    return Split(images=images, labels=np.arange(len(images)) % 10, ids=ids)


def default_graphs(
    dataset: Dataset, neighbors: tuple[int, ...], progress: Any
) -> dict[int, SimilarityGraph]:
    """The default graph of the training images, for several numbers of neighbors."""
    from tfgraphreg.config import TrainConfig
    from tfgraphreg.recipes.graphs import training_graph

    return {k: training_graph(TrainConfig(graph_neighbors=k), dataset, progress) for k in neighbors}
