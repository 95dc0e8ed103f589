"""The batches that a config asks for: neighbors, labeled images, the size of a step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.neighbors.batches import as_examples, plain_batches
from tfgraphreg.neighbors.examples import Examples
from tfgraphreg.neighbors.modes import Bank, Gathered, NeighborMode, Packed, Paired
from tfgraphreg.neighbors.packed import packed_batches
from tfgraphreg.neighbors.packing import PackedExamples, pack_neighbors
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.defaults import settled_batch_size
from tfgraphreg.recipes.versions import packing_key

logger = logging.getLogger(__name__)

# Images that nsl.tools.pack_nbrs may hold in memory, at ten times their size and more.
_NSL_BYTES = 256 << 20

# If a smaller share of the images is labeled, this share of each batch is drawn from them.
_FEW = 1 / 8

# Matchings drawn to measure how often each edge is: the error of a chance of 0.1 is then 0.02.
_MATCHINGS = 200


def labeled_batch_size(config: TrainConfig, split: Split, *, replicas: int = 1) -> int:
    """Rows of each batch that are drawn from the labeled images; logs them if labels are few.

    Raises:
        ConfigError: If no image is labeled and the config learns from labels alone.
    """
    if config.labeled_batch is not None:
        return config.labeled_batch
    share = split.labeled.mean() if len(split) else 1.0
    if share >= _FEW or (share == 0 and config.uses_graph):
        return 0
    batch_size = settled_batch_size(config)
    rows = batch_size
    if config.uses_graph:
        whole = 2 * replicas
        rows = max(round(rows * _FEW) // whole * whole, whole)
        if rows >= batch_size:
            return 0
    logger.info(
        f"Few labels: {rows} of the {batch_size} images of a step are labeled ones, drawn "
        f"from {int(split.labeled.sum())}"
        + ("" if config.uses_graph else "; unlabeled images are not trained on")
    )
    return rows


def neighbor_mode(
    config: TrainConfig, *, size: int, correction: np.ndarray | None = None
) -> NeighborMode:
    """The config's way to bring neighbors into a batch, for N examples."""
    k, sample = config.max_neighbors, config.neighbor_sampling
    modes = {
        "packed": lambda: Packed(k),
        "gathered": lambda: Gathered(k, sample),
        "bank": lambda: Bank(k, size, sample),
        "paired": lambda: Paired(
            config.pairing == "weight", correction, known=config.graph_loss == "contrast"
        ),
    }
    return modes[config.neighbors]()


def batch_source(
    config: TrainConfig,
    dataset: Dataset,
    graph: SimilarityGraph | None,
    *,
    examples: Examples | None = None,
    labeled_batch: int = 0,
    replicas: int = 1,
    passes: int | None = None,
    progress: Progress = silent,
) -> Callable[[int], Any]:
    """Returns `make(first_pass) -> tf.data.Dataset`, the batches from that pass to the last.

    There are `passes` over the images in all, by default one an epoch. `examples` replace the
    labels of the training images, for example by pseudo-labels.
    """
    passed = examples is not None
    examples = examples or as_examples(dataset.train)
    window: dict[str, Any] = {
        "batch_size": settled_batch_size(config),
        "seed": config.seed,
        "epochs": passes or config.epochs,
        "labeled_batch": labeled_batch,
    }
    if not config.regularized:
        return lambda first: plain_batches(examples, first_epoch=first, **window)
    assert graph is not None
    # Packed records hold the labels of the dataset, each image once.
    if config.neighbors == "packed" and not labeled_batch and not passed:
        del window["labeled_batch"]
        packed = _pack(config, dataset, graph, progress)
        return lambda first: packed_batches(packed, first_epoch=first, **window)
    corrected = config.neighbors == "paired" and config.pair_correction
    correction = _correction(config, graph, progress) if corrected else None
    mode = neighbor_mode(config, size=len(examples), correction=correction)
    window["replicas"] = replicas
    return lambda first: mode.batches(examples, graph, first_epoch=first, **window)


def _correction(config: TrainConfig, graph: SimilarityGraph, progress: Progress) -> np.ndarray:
    """Factors on edge weights, from matchings drawn for the purpose."""
    from tfgraphreg.neighbors import matching

    chances = matching.edge_probabilities(
        graph,
        draws=_MATCHINGS,
        seed=config.seed,
        by_weight=config.pairing == "weight",
        progress=lambda done, total: progress("matchings", done, total),
    )
    factors = matching.correction(chances, draws=_MATCHINGS)
    low, high = np.quantile(factors, [0.05, 0.95]) if len(factors) else (1.0, 1.0)
    logger.info(
        f"Pairs: {_MATCHINGS} matchings drawn to see how often each edge is; weights corrected by "
        f"factors of {low:.2f} to {high:.2f} for nine edges in ten"
    )
    return factors


def _pack(
    config: TrainConfig, dataset: Dataset, graph: SimilarityGraph, progress: Progress
) -> PackedExamples:
    started = time.perf_counter()
    packer = config.packer
    if packer == "auto":
        images = dataset.train.images
        size = int(np.prod(images.shape))
        packer = "nsl" if isinstance(images, np.ndarray) and size <= _NSL_BYTES else "stream"
    packed = pack_neighbors(
        dataset.train,
        graph,
        max_neighbors=config.max_neighbors,
        folder=storage.cache_folder() / "packed",
        key=packing_key(dataset),
        packer=packer,
        progress=lambda done, total: progress("packing", done, total),
    )
    logger.info(
        f"Packed: {packed.num_examples} images with up to {config.max_neighbors} neighbor(s) by "
        f"the packer {packer}, {packed.size / 1e6:.0f} MB, {time.perf_counter() - started:.1f} s"
    )
    return packed
