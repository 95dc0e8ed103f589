"""The graph that a config asks for, built once and kept."""

from __future__ import annotations

import logging
import pathlib
from typing import Any

import numpy as np

from tfgraphreg import __version__, storage
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.distances import DISTANCES
from tfgraphreg.errors import ConfigError, GraphError
from tfgraphreg.graph.build import build_graph, union
from tfgraphreg.graph.npz import read_npz, write_npz
from tfgraphreg.graph.parquet import SUFFIX as PARQUET
from tfgraphreg.graph.parquet import parquet_files, read_parquet
from tfgraphreg.graph.settings import FILES, GRAPH_KINDS, GraphSettings
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.graph.tsv import read_tsv
from tfgraphreg.graph.weights import check_trainable
from tfgraphreg.progress import Progress
from tfgraphreg.recipes.features import check_features, features_mark, graph_features
from tfgraphreg.settings import GIVEN

logger = logging.getLogger(__name__)

_ALL_EDGES = "ll,lu,uu"


def graph_seed(config: TrainConfig) -> int:
    """The seed of a config's graph: its own only where edges are drawn at random.

    All others are built with one seed, so that runs that differ in theirs share a graph.
    """
    return config.seed if {"class", "random"} & set(config.graph.split(",")) else 0


def _graph_key(config: TrainConfig, dataset: Dataset, vectors: np.ndarray | None) -> Any:
    """What the edges depend on, for fingerprints, and nothing else."""
    import faiss

    of_labels = "class" in config.graph.split(",") or config.edge_kinds != _ALL_EDGES
    return {
        "data": dataset.checksum,
        "nodes": len(dataset.train),
        "labels": dataset.train.labels if of_labels else None,
        "versions": {"tfgraphreg": __version__, "faiss": faiss.__version__},
        **config.section(GraphSettings),
        "seed": graph_seed(config),
        "network": features_mark(config) if vectors is None else None,
    }


def training_graph(
    config: TrainConfig,
    dataset: Dataset,
    progress: Progress,
    *,
    graph: SimilarityGraph | None = None,
    vectors: np.ndarray | None = None,
) -> SimilarityGraph:
    """The graph over the training images: a file's, the cache's, or a new one.

    Args:
        config: Says which graph; `symmetrize` and `edge_kinds` also act on one that is passed.
        dataset: Its training images are the nodes.
        progress: Called while work goes on.
        graph: A graph to take instead of building one.
        vectors: `[N, D]`, what the graph compares instead of the config's features.

    Raises:
        ConfigError: If the kind of graph is unknown.
        GraphError: If a file is wrong, or the graph cannot be built from these images.
    """
    if graph is None and _is_file(config.graph):
        graph = _read(config.graph, dataset, progress)
        if graph.about.get("outside_dropped"):
            logger.info(
                f"Graph: {graph.about['outside_dropped']} edges of {config.graph} to images that "
                "are not for training were left out"
            )
    if graph is not None:
        check_trainable(graph)
        return _kept_edges(config, dataset, graph.symmetrized() if config.symmetrize else graph)
    key = storage.fingerprint(_graph_key(config, dataset, vectors))
    path = storage.cache_folder() / "graphs" / f"{key}.npz"
    # A function of the user's own may change under its name.
    kept = not DISTANCES.get(config.graph_metric).own
    if kept and path.exists():
        try:
            graph, _ = read_npz(path, dataset.train.ids, key=key)
            logger.info(f"Graph: the one built before from the same data and settings ({path})")
            return graph
        except (GraphError, OSError, ValueError):
            logger.info("Graph: the cached file is damaged and is built again")
    graph = _build(config, dataset, progress, vectors)
    if kept:
        write_npz(graph, dataset.train.ids, path, key=key)
    return graph


def check_graph(config: TrainConfig) -> None:
    """Refuses a graph that cannot be built, before anything is loaded.

    Raises:
        UnknownNameError: If the features are unknown.
        ConfigError: If the kind of graph is unknown.
        ModelError: If the features come from a SavedModel that is not there.
        GraphError: If there is no such file.
    """
    if _is_file(config.graph):
        folder = config.graph.endswith(PARQUET) and pathlib.Path(config.graph).is_dir()
        if not folder and not pathlib.Path(config.graph).is_file():
            raise GraphError(
                "`graph` names a file that is not there.", received=f"graph={config.graph}"
            )
    elif config.graph_features.startswith(GIVEN) or config.graph.startswith(GIVEN):
        return
    elif set(config.graph.split(",")) != {"class"}:
        check_features(config.graph_features)


def file_mark(config: TrainConfig) -> str | None:
    """The digest of the user's own files: edges or vectors, labels, images to drop.

    None where there are none.
    """
    paths = (_graph_file(config), config.labels, config.drop, config.relabel)
    marks = [_digest(path) for path in paths if path is not None]
    return storage.fingerprint(marks) if len(marks) > 1 else next(iter(marks), None)


def _graph_file(config: TrainConfig) -> str | None:
    if not config.uses_graph:
        return None
    if _is_file(config.graph):
        return config.graph
    if set(config.graph.split(",")) != {"class"} and config.graph_features.startswith("file:"):
        return config.graph_features.removeprefix("file:")
    return None


def _digest(path: str) -> str:
    files = parquet_files(path) if path.endswith(PARQUET) else [pathlib.Path(path)]
    try:
        marks = [storage.file_digest(file) for file in files]
        return marks[0] if len(marks) == 1 else storage.fingerprint(marks)
    except OSError as error:
        raise GraphError(f"{path} cannot be read ({error.strerror}).") from error


def search_note(graph: SimilarityGraph) -> str | None:
    """A sentence if neighbors were searched approximately, with the recall that was measured."""
    parts = graph.about.get("parts") or [graph.about]
    found = [part for part in parts if part.get("method") in ("ivf", "hnsw")]
    if not found:
        return None
    recalls = [part["recall"] for part in found]
    methods = " and ".join(sorted({part["method"] for part in found}))
    return (
        f"Neighbors were searched approximately ({methods}): {min(recalls):.1%} of the "
        "true ones were found, measured on a sample; `graph_search=exact` finds all."
    )


def _read(path: str, dataset: Dataset, progress: Any) -> SimilarityGraph:
    """The graph of a file: an npz of `build-graph` or Parquet where it is named so, else a TSV."""
    ids, others = dataset.train.ids, dataset.ids_beside_train
    if path.endswith(".npz"):
        return read_npz(path, ids, others=others)[0]
    if path.endswith(PARQUET):
        return read_parquet(path, ids, others=others, progress=progress)
    return read_tsv(path, ids, others=others, progress=progress)


def _is_file(graph: str) -> bool:
    if graph.startswith(GIVEN):
        return False
    if graph.endswith(FILES) or pathlib.Path(graph).is_file():
        return True
    unknown = [kind for kind in graph.split(",") if kind not in GRAPH_KINDS]
    if unknown:
        raise ConfigError(
            f"`graph` must name kinds of graphs ({', '.join(GRAPH_KINDS)}) or a TSV, npz or "
            "Parquet file.",
            received=f"graph={graph}",
            cure="To join kinds, separate them by commas.",
        )
    return False


def check_neighbors(config: TrainConfig, images: int) -> None:
    """Refuses to search more neighbors than there are other training images.

    Raises:
        ConfigError: If `graph_neighbors` is too large.
    """
    searched = {"knn", "mutual"}.intersection(config.graph.split(","))
    if searched and config.graph_neighbors >= images:
        raise ConfigError(
            "`graph_neighbors` must be smaller than the number of training images.",
            received=f"graph_neighbors={config.graph_neighbors}, {images} training images",
            cure=f"Use `graph_neighbors={max(images - 1, 1)}` or less.",
        )


def graph_of(
    config: TrainConfig, dataset: Dataset, features: np.ndarray, progress: Progress
) -> SimilarityGraph:
    """The graph that the config asks for over features `[N, D]` of the training images."""
    check_neighbors(config, len(features))
    graphs = [
        build_graph(
            kind,
            features,
            labels=dataset.train.labels,
            k=config.graph_neighbors,
            metric=config.graph_metric,
            weighting=config.graph_weights,
            threshold=config.graph_threshold,
            radius=config.graph_radius,
            method=config.graph_search,
            symmetrize=config.symmetrize,
            seed=graph_seed(config),
            progress=progress,
        )
        for kind in config.graph.split(",")
    ]
    graph = graphs[0] if len(graphs) == 1 else union(graphs)
    return _kept_edges(config, dataset, graph)


def _build(
    config: TrainConfig, dataset: Dataset, progress: Progress, vectors: np.ndarray | None
) -> SimilarityGraph:
    features = np.zeros((len(dataset.train), 1), np.float32)  # a class graph compares labels only
    if set(config.graph.split(",")) != {"class"}:
        features = graph_features(config, dataset, progress) if vectors is None else vectors
    return graph_of(config, dataset, features, progress)


def _kept_edges(config: TrainConfig, dataset: Dataset, graph: SimilarityGraph) -> SimilarityGraph:
    """Drops edges by what is known of their two ends, as Neural Graph Machines may."""
    kinds = set(config.edge_kinds.split(","))
    labeled = dataset.train.labeled
    if kinds == set(_ALL_EDGES.split(",")) or (labeled.all() and "ll" in kinds):
        return graph
    sources = graph.sources()
    known = labeled[sources].astype(int) + labeled[graph.indices]
    keep = np.isin(known, [{"uu": 0, "lu": 1, "ll": 2}[kind] for kind in kinds])
    return SimilarityGraph.from_edges(
        sources[keep], graph.indices[keep], graph.weights[keep], graph.num_nodes, about=graph.about
    )
