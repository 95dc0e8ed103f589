"""A graph of its own: files that NSL and this project read, and a page about it."""

from __future__ import annotations

import logging
import os
import pathlib

from tfgraphreg import storage
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError
from tfgraphreg.graph.npz import write_npz
from tfgraphreg.graph.parquet import write_parquet_folder
from tfgraphreg.graph.report import write_report
from tfgraphreg.graph.tsv import write_tsv
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.given import Given
from tfgraphreg.recipes.graphs import check_neighbors
from tfgraphreg.recipes.material import Material, prepare, prepare_data, prepare_graph
from tfgraphreg.recipes.shard_graph import (
    check_engine,
    graph_on_engine,
    pack_on_engine,
    stored_images,
)
from tfgraphreg.shards.engine import Engine

logger = logging.getLogger(__name__)

_LOCK = ".lock"


def build_graph(
    config: TrainConfig,
    folder: os.PathLike[str] | str,
    *,
    engine: Engine | None = None,
    pack: int | None = None,
    parquet: bool = False,
    progress: Progress = silent,
) -> None:
    """Writes graph.tsv, graph.npz and graph.html of the config's training graph to `folder`.

    Args:
        config: The settings of data and graph.
        folder: Where the files go.
        engine: Who computes features, neighbors and packed examples; None: this process, in
            memory. Its workers must see `folder` and the cache at the same paths.
        pack: With an engine: also packs each image with at most so many neighbors, in the cache,
            for `train` with this graph file and `packer=stream`.
        parquet: Also write graph.parquet, a folder of files of at most a million edges.
        progress: Called while work goes on.

    Raises:
        TFGraphRegError: If the data, the settings or the folder are in the way.
    """
    folder = storage.user_path(folder)
    if engine is None:
        if pack is not None:
            raise ConfigError(
                "Without an engine `train` packs neighbors itself.", cure="Leave out `--pack`."
            )
        _write(prepare(config, progress), folder, parquet, progress)
        return
    check_engine(config, pack=pack)
    dataset, true_labels = prepare_data(config, progress)
    check_neighbors(config, len(dataset.train))
    with storage.scratch_folder(folder.resolve() / "work") as scratch:
        images = stored_images(engine, dataset, scratch, progress)
        graph = graph_on_engine(config, engine, dataset, images, scratch, progress)
        graph, summary = prepare_graph(config, dataset, true_labels, progress, Given(graph=graph))
        _write(Material(dataset, true_labels, graph, summary), folder, parquet, progress)
        if pack is not None:
            pack_on_engine(engine, dataset, graph, images, max_neighbors=pack, progress=progress)


def _write(material: Material, folder: pathlib.Path, parquet: bool, progress: Progress) -> None:
    graph, train = material.graph, material.dataset.train
    if graph is None:
        raise ConfigError("There is no graph without a graph term.", cure="Leave out `alpha=0`.")
    files = [folder / name for name in ("graph.tsv", "graph.npz", "graph.html")]
    # Of two at once, the files must be of the same one.
    with storage.one_writer(folder / _LOCK, *files):
        write_tsv(graph, train.ids, files[0])
        write_npz(graph, train.ids, files[1])
        write_report(
            graph,
            train.images,
            material.true_labels,
            material.dataset.class_names,
            files[2],
        )
        if parquet:
            write_parquet_folder(graph, train.ids, folder / "graph.parquet", progress=progress)
    more = "graph.tsv, graph.npz and graph.parquet/" if parquet else "graph.tsv and graph.npz"
    logger.info(f"Written: {folder}/{more} (for `graph`), graph.html (for a browser)")
