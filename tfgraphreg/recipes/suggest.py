"""From a dataset to images worth a label: a table, a contact sheet, a page to label them on."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from tfgraphreg import storage
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset, has_label
from tfgraphreg.data.tables import table_text
from tfgraphreg.errors import ConfigError
from tfgraphreg.graph.settings import kinds
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.features import graph_features
from tfgraphreg.recipes.material import prepare_data, prepare_graph
from tfgraphreg.suggestion import METHODS, Suggestion, suggest
from tfgraphreg.visualize.grids import contact_sheet
from tfgraphreg.visualize.labeling import write_labeling_page
from tfgraphreg.visualize.style import save

logger = logging.getLogger(__name__)

COLUMNS = ("id", "rank", "reason")
_LOCK = ".suggest.lock"
_ON_GRAPH = ("margin", "entropy")


@dataclasses.dataclass(frozen=True, eq=False)
class Suggested:
    """Training images to label.

    Attributes:
        dataset: With the labels that are known.
        found: What to label.
    """

    dataset: Dataset
    found: Suggestion

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """One row of `COLUMNS` for each image, the most useful first."""
        for place, (item, reason) in enumerate(zip(self.found.items, self.found.reasons)):
            yield str(self.dataset.train.ids[item]), str(place + 1), reason


def suggest_images(
    config: TrainConfig,
    n: int,
    *,
    method: str = "auto",
    unlabeled: bool = False,
    out: os.PathLike[str] | str | None = None,
    progress: Progress = silent,
) -> Suggested:
    """Chooses `n` unlabeled training images whose labels would tell most about the others.

    Args:
        config: Dataset, labels, features of the graph and seed.
        n: How many.
        method: See `tfgraphreg.suggestion.suggest`; `balanced` looks at true labels, to compare
            with.
        unlabeled: Whether to begin without any label, whatever the dataset has.
        out: Folder for suggestions.csv, sheet.png (and .svg) and label.html; None for none.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        ConfigError: If `n` or `method` cannot be, or every image is labeled.
        TFGraphRegError: If the data, the graph or the folder is in the way.
    """
    folder = None if out is None else storage.user_path(out)
    if method not in METHODS:
        raise ConfigError(f"`method` must be one of {', '.join(METHODS)}.", received=method)
    if not kinds(config) - {"class"}:
        raise ConfigError(
            "Suggestions need vectors, and the graph has none.",
            received=f"graph={config.graph}",
            cure="Use `graph=knn`, with `graph_features=file:PATH` for vectors of your own.",
        )
    if unlabeled and (config.labels is not None or config.labels_per_class is not None):
        raise ConfigError(
            "`unlabeled` and labels exclude each other.",
            received="unlabeled=True beside `labels` or `labels_per_class`",
        )
    dataset, truth = prepare_data(config, progress)
    if dataset.multilabel:
        raise ConfigError(
            "Suggestions need one class an image.", received=f"dataset={dataset.name}"
        )
    if unlabeled:
        train = dataclasses.replace(dataset.train, labels=np.full(len(dataset.train), -1))
        dataset = dataclasses.replace(dataset, train=train)
    labels = dataset.train.labels
    if has_label(labels).all():
        raise ConfigError(
            "Every training image is labeled: there is nothing to suggest.",
            received=f"{len(labels)} labeled images",
            cure="Give `labels`, or `unlabeled=True` to begin without any.",
        )
    graph = None
    if method in _ON_GRAPH:
        graph, _ = prepare_graph(config, dataset, truth, progress)
    found = suggest(
        graph_features(config, dataset, progress),
        n,
        labels=labels,
        num_classes=dataset.num_classes,
        graph=graph,
        truth=truth if method == "balanced" else None,
        method=method,
        seed=config.seed,
        progress=progress,
    )
    suggested = Suggested(dataset, found)
    if folder is not None:
        _write(suggested, folder)
    return suggested


def _write(suggested: Suggested, folder: pathlib.Path) -> None:
    train, names = suggested.dataset.train, suggested.dataset.class_names
    items = np.asarray(suggested.found.items)
    images, ids = train.images[items], train.ids[items].tolist()
    known = np.flatnonzero(train.labeled)
    sheet = [folder / f"sheet.{ending}" for ending in ("png", "svg")]
    files = [folder / "suggestions.csv", folder / "label.html", *sheet]
    with storage.one_writer(folder / _LOCK, *files):
        storage.write_text(files[0], table_text(COLUMNS, suggested.rows()))
        save(contact_sheet(images, [str(i + 1) for i in range(len(items))]), sheet[0])
        write_labeling_page(
            files[1],
            images,
            ids,
            suggested.found.reasons,
            names,
            known=[(str(train.ids[i]), names[train.labels[i]]) for i in known],
            title=f"{len(items)} images of {suggested.dataset.name} to label",
        )
    logger.info(f"Written: {folder}/label.html (label there), suggestions.csv, sheet.png")
