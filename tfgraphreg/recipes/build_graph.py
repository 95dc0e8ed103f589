"""A graph of its own: files that NSL and this project read, and a page about it."""

from __future__ import annotations

import logging
import os

from tfgraphreg import storage
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError
from tfgraphreg.graph.npz import write_npz
from tfgraphreg.graph.report import write_report
from tfgraphreg.graph.tsv import write_tsv
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.material import prepare

logger = logging.getLogger(__name__)

_LOCK = ".lock"


def build_graph(
    config: TrainConfig, folder: os.PathLike[str] | str, *, progress: Progress = silent
) -> None:
    """Writes graph.tsv, graph.npz and graph.html of the config's training graph to `folder`.

    Raises:
        TFGraphRegError: If the data, the settings or the folder are in the way.
    """
    folder = storage.user_path(folder)
    material = prepare(config, progress)
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
    logger.info(
        f"Written: {folder}/graph.tsv and graph.npz (for `graph`), graph.html (for a browser)"
    )
