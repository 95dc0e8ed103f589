"""The graph of a run, and its packed examples, by an engine whose workers share a folder."""

from __future__ import annotations

import functools
import logging
import pathlib
from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.data.lazy import DecodedImages
from tfgraphreg.distances import DISTANCES
from tfgraphreg.errors import ConfigError
from tfgraphreg.features.registry import find_feature
from tfgraphreg.graph.build import mutual
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.neighbors.packing import PackedExamples, pack_neighbors
from tfgraphreg.progress import Progress
from tfgraphreg.recipes.features import FEATURE_SEED, embedder, graph_features, network_of
from tfgraphreg.recipes.graphs import graph_seed
from tfgraphreg.recipes.versions import packing_key
from tfgraphreg.shards.engine import Engine
from tfgraphreg.shards.graph import check_method, sharded_knn_graph
from tfgraphreg.shards.images import describe, store_images
from tfgraphreg.shards.neighbors import check_distance
from tfgraphreg.shards.packing import packing_on
from tfgraphreg.shards.store import RowShards, shard_starts

logger = logging.getLogger(__name__)

_KINDS = ("knn", "mutual")


def check_engine(config: TrainConfig, *, pack: int | None) -> None:
    """Refuses, before anything is loaded, what no engine can build.

    Raises:
        ConfigError: If the graph is none of nearest neighbors, the search is by HNSW, or `pack` is
            out of range.
        GraphError: If the distance cannot be searched part by part.
    """
    if config.graph not in _KINDS:
        raise ConfigError(
            f"An engine builds graphs of nearest neighbors: {' or '.join(_KINDS)}.",
            received=f"graph={config.graph}",
            cure="Use the engine local.",
        )
    check_method(config.graph_search)
    if pack is not None and pack < 1:
        raise ConfigError("`--pack` must be at least 1.", received=f"pack={pack}")
    check_distance(DISTANCES.get(config.graph_metric), listed=config.graph_search == "ivf")


def stored_images(
    engine: Engine, dataset: Dataset, scratch: pathlib.Path, progress: Progress
) -> RowShards:
    """The training images in shards. Files are read by the workers, all else here."""
    images = dataset.train.images
    shape = tuple(images.shape[1:])
    starts = shard_starts(len(images), int(np.prod(shape)))
    out = RowShards(scratch, "images", starts, shape, "uint8")
    if isinstance(images, DecodedImages):
        numbers = [np.arange(*out.bounds(shard)) for shard in range(out.count)]
        parts = [(images.take_rows(n), shard, out) for shard, n in enumerate(numbers)]
        engine.map(store_images, parts, "images", progress)
        return out
    for shard in range(out.count):
        first, last = out.bounds(shard)
        store_images(images[first:last], shard, out)
        progress("images", shard + 1, out.count)
    return out


def stored_features(
    config: TrainConfig,
    engine: Engine,
    dataset: Dataset,
    images: RowShards,
    scratch: pathlib.Path,
    progress: Progress,
) -> RowShards:
    """The config's graph features of the training images in shards.

    What a feature learns from the images, it learns here.
    """
    kind, _ = network_of(config.graph_features)
    shards = range(images.count)
    if kind == "file":
        rows = graph_features(config, dataset, progress)
        parts = [rows[slice(*images.bounds(shard))] for shard in shards]
    elif kind is not None:
        parts = engine.map(_embed, [(images, n, config) for n in shards], "embedding", progress)
    else:
        feature = find_feature(config.graph_features, images)
        learned = None if feature.fit is None else feature.fit(dataset.train.images, FEATURE_SEED)
        state = engine.share(learned)
        calls = [(images, shard, feature.name, state) for shard in shards]
        parts = engine.map(describe, calls, f"features {feature.name}", progress)
    out = RowShards(scratch, "features", images.starts, parts[0].shape[1:], "float32")
    for shard, rows in enumerate(parts):
        out.write(shard, rows)
    return out


def _embed(images: RowShards, shard: int, config: TrainConfig) -> np.ndarray:
    """`[n, D]` float32 embedding of one shard of images by the config's network."""
    height, width, channels = images.row_shape
    embed = _embedder(config, (height, width, channels))
    return np.asarray(embed(images.range(*images.bounds(shard)), lambda *_: None), np.float32)


@functools.lru_cache(maxsize=1)
def _embedder(config: TrainConfig, image_shape: tuple[int, int, int]) -> Any:
    """Loaded once in a worker."""
    return embedder(config, image_shape)


def graph_on_engine(
    config: TrainConfig,
    engine: Engine,
    dataset: Dataset,
    images: RowShards,
    scratch: pathlib.Path,
    progress: Progress,
) -> SimilarityGraph:
    """The config's graph over the training images, before edges are made symmetric or dropped."""
    features = stored_features(config, engine, dataset, images, scratch, progress)
    graph = sharded_knn_graph(
        engine,
        features,
        k=config.graph_neighbors,
        distance=config.graph_metric,
        weighting=config.graph_weights,
        method=config.graph_search,
        seed=graph_seed(config),
        scratch=scratch,
        progress=progress,
    )
    return mutual(graph) if config.graph == "mutual" else graph


def pack_on_engine(
    engine: Engine,
    dataset: Dataset,
    graph: SimilarityGraph,
    images: RowShards,
    *,
    max_neighbors: int,
    progress: Progress,
) -> PackedExamples:
    """Packs the training images where `train` with the packer stream will look for them."""
    packed = pack_neighbors(
        dataset.train,
        graph,
        max_neighbors=max_neighbors,
        folder=storage.cache_folder().resolve() / "packed",
        key=packing_key(dataset),
        packer="stream",
        writer=packing_on(engine, images),
        progress=lambda done, total: progress("packing", done, total),
    )
    logger.info(
        f"Packed: {packed.num_examples} images with up to {max_neighbors} neighbor(s), "
        f"{packed.size / 1e6:.0f} MB in {len(packed.files)} file(s)"
    )
    return packed
