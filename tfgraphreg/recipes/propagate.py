"""Labels for the unlabeled training images of a dataset, from its graph."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset, has_label
from tfgraphreg.data.tables import table_text
from tfgraphreg.errors import ConfigError
from tfgraphreg.progress import Progress, silent
from tfgraphreg.propagation import Propagation, propagate
from tfgraphreg.propagation.propagate import Sizes
from tfgraphreg.recipes.material import prepare_data, prepare_graph
from tfgraphreg.storage import user_path, write_text

logger = logging.getLogger(__name__)

COLUMNS = ("id", "label", "probability", "certainty", "source", "given", "true")
_SEPARATORS = {".tsv": "\t", ".csv": ","}


@dataclasses.dataclass(frozen=True, eq=False)
class Labeling:
    """The labels of the training images of a dataset.

    Attributes:
        dataset: As it was propagated: unlabeled images are -1.
        true_labels: Of the training images as they were loaded; -1 where unknown.
        found: What was propagated.
    """

    dataset: Dataset
    true_labels: np.ndarray
    found: Propagation

    def right(self) -> tuple[np.ndarray, np.ndarray]:
        """`[N]` bool each: the images to measure by, and which of them have their true label.

        Measured by are images whose label is known and was not given. Of several classes an
        image, all must be right. An image that no label reached is wrong.
        """
        return labeled_right(self.found.labels, self.true_labels, self.dataset.train.labeled)

    def summary(self) -> dict[str, Any]:
        """Numbers in words that a table or JSON takes.

        `given`, `propagated` and `unreached` count images. `measured` counts the images of
        `right`; `accuracy` is the share of them that is right, `accuracy_certain` the same of the
        more certain half (both None where nothing can be measured).
        """
        given, reached = self.dataset.train.labeled, self.found.reached
        known, right = self.right()
        order = np.argsort(-self.found.certainty[known], kind="stable")
        half = right[known][order][: (known.sum() + 1) // 2]
        return {
            "given": int(given.sum()),
            "propagated": int((reached & ~given).sum()),
            "unreached": int((~reached).sum()),
            "measured": int(known.sum()),
            "accuracy": float(right[known].mean()) if known.any() else None,
            "accuracy_certain": float(half.mean()) if known.any() else None,
        }

    def rows(self) -> Iterator[tuple[str, ...]]:
        """One row of `COLUMNS` for each image, in the order of the training images.

        Of several classes an image `label` and `true` list them, with semicolons between; the
        probability is then that of exactly this set, the classes taken as independent. What is
        not known is empty.
        """
        train, found = self.dataset.train, self.found
        given, known = train.labeled, has_label(self.true_labels)
        chances = _chances(found)
        for i, name in enumerate(train.ids):
            reached = found.source[i] >= 0
            yield (
                str(name),
                self._words(found.labels[i]) if reached else "",
                f"{chances[i]:.4f}" if reached else "",
                f"{found.certainty[i]:.4f}",
                str(train.ids[found.source[i]]) if reached else "",
                "yes" if given[i] else "no",
                self._words(self.true_labels[i]) if known[i] else "",
            )

    def _words(self, label: np.ndarray) -> str:
        names = self.dataset.class_names
        if np.ndim(label) == 0:
            return names[label]
        return ";".join(names[c] for c in np.flatnonzero(label == 1))


def propagate_labels(
    config: TrainConfig,
    *,
    method: str = "spreading",
    class_sizes: Sizes = None,
    out: os.PathLike[str] | str | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Labeling:
    """Labels the unlabeled training images of the config's dataset along its graph.

    Args:
        config: Dataset, labels a class, graph and seed; nothing else of it has an effect.
        method: See `tfgraphreg.propagation.propagate`.
        class_sizes: See there.
        out: File for the table, ending in .tsv or .csv; None for none.
        progress: Called as ``progress(what, done, total)``.
        **settings: Of the method.

    Raises:
        ConfigError: If every training image is labeled, or a setting cannot be.
        TFGraphRegError: If the data, the graph or the file is in the way.
    """
    out = None if out is None else user_path(out)
    separator = None if out is None else _separator(out)
    dataset, true_labels = prepare_data(config, progress)
    if dataset.train.labeled.all():
        raise ConfigError(
            "Every training image is labeled: there is nothing to propagate.",
            received=f"{len(dataset.train)} labeled images",
            cure="Give `labels_per_class`, or put unlabeled images into a folder `_unlabeled`.",
        )
    graph, _ = prepare_graph(config, dataset, true_labels, progress)
    found = propagate(
        graph,
        dataset.train.labels,
        dataset.num_classes,
        method=method,
        class_sizes=class_sizes,
        progress=progress,
        **settings,
    )
    labeling = Labeling(dataset, true_labels, found)
    if out is not None and separator is not None:
        write_text(out, table_text(COLUMNS, labeling.rows(), separator=separator))
        logger.info(f"Written: {out}, a row for each training image")
    return labeling


def _separator(out: os.PathLike[str] | str) -> str:
    ending = pathlib.Path(out).suffix.lower()
    if ending not in _SEPARATORS:
        raise ConfigError("`out` must name a file that ends in .tsv or .csv.", received=str(out))
    return _SEPARATORS[ending]


def labeled_right(
    found: np.ndarray, true_labels: np.ndarray, given: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`[N]` bool each: images whose label is known and was not given; those labeled right of them.

    Args:
        found: `[N]` or `[N, C]` labels; of several classes an image, all must be right.
        true_labels: The same as they were loaded, -1 where unknown.
        given: `[N]` bool: whose label was given.
    """
    known = has_label(true_labels) & ~given
    same = found == true_labels
    return known, known & (same if same.ndim == 1 else same.all(axis=1))


def _chances(found: Propagation) -> np.ndarray:
    """`[N]` the probability of each image's label."""
    if found.labels.ndim == 1:
        return found.probabilities.max(axis=1)
    chosen = np.where(found.labels == 1, found.probabilities, 1 - found.probabilities)
    return chosen.prod(axis=1)
