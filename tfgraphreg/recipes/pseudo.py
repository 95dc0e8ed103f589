"""Rounds of training on labels from the graph, each with a graph that the last one bettered."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.compat import keras
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset, Split, has_label
from tfgraphreg.errors import ConfigError, RunError, first_line
from tfgraphreg.features.registry import cached_rows
from tfgraphreg.graph.diagnostics import agreement_facts, edge_agreement, edges_in_words
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.model.classifier import infer
from tfgraphreg.neighbors.batches import as_examples
from tfgraphreg.neighbors.examples import Examples
from tfgraphreg.progress import Progress
from tfgraphreg.propagation.classsizes import size_factors
from tfgraphreg.propagation.kernel import kernel_ridge, unit_length
from tfgraphreg.propagation.pseudo import PseudoLabels, pseudo_labels
from tfgraphreg.reading import read_json
from tfgraphreg.recipes.copies import features_of_copies
from tfgraphreg.recipes.features import graph_features
from tfgraphreg.recipes.graphs import graph_of
from tfgraphreg.recipes.propagate import labeled_right
from tfgraphreg.training.history import Row

logger = logging.getLogger(__name__)

ROUNDS = "rounds.json"

_CURE = "Put the file back as it was, or start a new run in another folder."

# Length of what the network says beside features of length 1, in the features of a new graph.
# Chosen on training images of Fashion-MNIST held out for it; see docs/propagation.md.
_NETWORK_SHARE = 0.5


class LabelRounds:
    """The graph and the pseudo-labels of each round of a run.

    Args:
        config: Says how labels are propagated, and how often the graph is built again.
        folder: The run folder; what the network said before a round is kept in it.
        material: A `Material`; its true labels are looked at to measure only.
        base: The network.
        progress: Called while work goes on.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: pathlib.Path,
        material: Any,
        base: keras.Model,
        progress: Progress,
    ):
        self.config, self.folder, self.base, self.progress = config, folder, base, progress
        self.dataset, self.true_labels = material.dataset, material.true_labels
        self.graph: SimilarityGraph = material.graph
        self._vectors: np.ndarray | None = material.vectors
        self._features: np.ndarray | None = None
        self._second: np.ndarray | None = None
        self._labels: PseudoLabels | None = None
        self._classes = _labeled_classes(self.dataset)
        self._rows = _read_rows(folder / ROUNDS)

    @property
    def summaries(self) -> list[dict[str, Any]]:
        """What `rounds.json` holds: numbers of each round so far."""
        return self._rows

    def begin(self, epoch: int) -> None:
        """Makes the graph and the labels of the round that `epoch` is in.

        Raises:
            RunError: If the epoch is within a round whose start was not kept.
        """
        every = self.config.rebuild_graph_every
        number = epoch // every if every else 0
        if number:
            said = self._network_said(number, begins=epoch == number * every)
            self.graph = self._rebuilt(said)
        else:
            self._say_missing()
        labels = self._among_labeled_classes()
        found = pseudo_labels(
            self.graph,
            labels,
            len(self._classes),
            method=self.config.propagate,
            class_sizes=self._class_sizes,
            second=self._second_opinion(),
            weighting=self.config.pseudo_label_weights,
            progress=self.progress,
        )
        self._labels = found
        if labels.ndim == 1:
            named = np.where(found.labels < 0, found.labels, self._classes[found.labels])
            self._labels = dataclasses.replace(found, labels=named.astype(found.labels.dtype))
        self._rows[number:] = [self._summary(number)]
        storage.write_json(self.folder / ROUNDS, {"rounds": self._rows}, noted=True)
        self._say(self._rows[-1])

    def examples(self) -> Examples:
        """The training images with given and propagated labels."""
        assert self._labels is not None
        split = self.dataset.train
        labeled = Split(split.images, self._labels.labels, split.ids, split.extras)
        weights = self._labels.weights if self.config.pseudo_label_weights != "equal" else None
        return dataclasses.replace(as_examples(labeled), weights=weights, given=split.labeled)

    def row(self) -> Row:
        """The numbers of this round, for history.csv."""
        names = ("edge_label_agreement", "pseudo_label_accuracy", "pseudo_label_certainty")
        return {name: self._rows[-1][name] for name in names if self._rows[-1][name] is not None}

    @property
    def _class_sizes(self) -> str | None:
        sizes = self.config.class_sizes
        return None if sizes == "unknown" else sizes

    def _among_labeled_classes(self) -> np.ndarray:
        """Training labels, of one class an image as positions in `_classes`."""
        labels = self.dataset.train.labels
        if labels.ndim == 1:
            return np.where(labels < 0, labels, np.searchsorted(self._classes, labels))
        return labels

    def _say_missing(self) -> None:
        missing = np.setdiff1d(np.arange(self.dataset.num_classes), self._classes)
        if len(missing):
            names = ", ".join(self.dataset.class_names[c] for c in missing)
            equal = self._class_sizes == "equal"
            logger.warning(
                f"No training image is labeled {names}: none will be taken for one"
                + (", and the other classes for equally large" if equal else "")
            )

    def _own_features(self) -> np.ndarray:
        if self._features is None:
            rows = self._vectors
            if rows is None:
                rows = graph_features(self.config, self.dataset, self.progress)
            self._features = unit_length(rows)
        return self._features

    def _second_opinion(self) -> np.ndarray | None:
        if self.config.feature_classifier == "none":
            return None
        if self._second is None:
            labels = self._among_labeled_classes()
            self._second = kernel_ridge(
                self._own_features(),
                labels,
                len(self._classes),
                copies=self._copies(labels),
            )
        return self._second

    def _copies(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        if self._vectors is not None or labels.ndim > 1:
            return None
        return features_of_copies(self.config, self.dataset, labels, self.progress)

    def _network_said(self, number: int, *, begins: bool) -> np.ndarray:
        """`[N, C]` float32 probabilities that the network gave before round `number`."""
        path = self.folder / "rounds" / f"network_{number}.npy"
        # The network of that time is gone: only at the start of a round can it be asked again.
        if not begins and not storage.is_sealed(path):
            raise RunError(f"{path} is missing or damaged.", cure=_CURE)
        images = self.dataset.train.images

        def ask() -> np.ndarray:
            return infer(
                self.base,
                images,
                multilabel=self.dataset.multilabel,
                progress=lambda done: self.progress("asking the network", done, len(images)),
            )["probabilities"]

        return cached_rows(path, len(images), ask)

    def _rebuilt(self, said: np.ndarray) -> SimilarityGraph:
        """The graph of the features beside the square roots of what the network says.

        Of two rows of probabilities the inner product of the square roots is their
        Bhattacharyya coefficient, so the cosine compares distributions as it does features.
        """
        said = np.maximum(said[:, self._classes].astype(np.float64), 1e-12)
        if self._class_sizes == "equal" and not self.dataset.multilabel:
            shares = np.full(said.shape[1], 1 / said.shape[1])
            said *= size_factors(said, shares)[0]
            said /= said.sum(axis=1, keepdims=True)
        beside = np.sqrt(said, dtype=np.float64).astype(np.float32) * np.float32(_NETWORK_SHARE)
        together = np.concatenate([self._own_features(), beside], axis=1)
        return graph_of(self.config, self.dataset, together, self.progress)

    def _summary(self, number: int) -> dict[str, Any]:
        assert self._labels is not None
        given = self.dataset.train.labeled
        known, right = labeled_right(self._labels.labels, self.true_labels, given)
        pseudo = has_label(self._labels.labels) & ~given
        both, same = edge_agreement(self.graph, self.true_labels)
        return {
            "round": number,
            "first_epoch": number * self.config.rebuild_graph_every,
            "edges": int(self.graph.num_edges),
            **agreement_facts(both, same),
            "pseudo_labels": int(pseudo.sum()),
            "pseudo_label_accuracy": float(right[known].mean()) if known.any() else None,
            "pseudo_label_certainty": (
                float(self._labels.certainty[pseudo].mean()) if pseudo.any() else None
            ),
        }

    def _say(self, row: dict[str, Any]) -> None:
        parts = [f"{row['pseudo_labels']} images labeled over {edges_in_words(row)}"]
        right = row["pseudo_label_accuracy"]
        if right is not None:
            parts.append(f"{right:.1%} of the unlabeled images labeled right")
        logger.info(f"Pseudo-labels, round {row['round'] + 1}: {', '.join(parts)}")


def _labeled_classes(dataset: Dataset) -> np.ndarray:
    """Sorted numbers of the classes of which a training image is labeled.

    With several classes an image all count: an image without a class is labeled too.

    Raises:
        ConfigError: If all labeled images are of one class.
    """
    labels = dataset.train.labels
    if labels.ndim > 1:
        return np.arange(dataset.num_classes)
    found = np.unique(labels[labels >= 0])
    if len(found) == 1:
        raise ConfigError(
            "Labels are propagated between two classes or more.",
            received=f"labeled images of {dataset.class_names[found[0]]} only",
            cure="Label an image of another class.",
        )
    return found


def _read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        rows = read_json(path)["rounds"]
        storage.check_note(path)
    except (ValueError, KeyError) as error:
        raise RunError(f"{path} is damaged ({first_line(error)}).", cure=_CURE) from error
    return rows
