"""What a run works on, loaded or passed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.graph.diagnostics import diagnose, edges_in_words
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.progress import Progress
from tfgraphreg.recipes.given import Given
from tfgraphreg.recipes.graphs import search_note, training_graph
from tfgraphreg.runs.outputs import load_data, measured_by, within_budget

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Material:
    """What a run works on.

    Attributes:
        dataset: The data as trained on.
        true_labels: The training labels, also those that the run must not see.
        graph: The graph over the training images, or None where training needs none.
        graph_summary: Numbers about the graph, or None.
        backbone: A network that was passed, or None for the config's.
        vectors: `[N, D]` features for the graph that were passed, or None for the config's.
    """

    dataset: Dataset
    true_labels: np.ndarray
    graph: SimilarityGraph | None
    graph_summary: dict[str, Any] | None
    backbone: Any = None
    vectors: np.ndarray | None = None


def prepare(
    config: TrainConfig,
    progress: Progress,
    given: Given | None = None,
    *,
    check: Callable[[Dataset], None] | None = None,
    nodes: Callable[[Dataset], Dataset] | None = None,
) -> Material:
    """Loads the data and, if it is needed, the graph; what was passed is taken as it is.

    Args:
        config: What to load.
        progress: Called while work goes on.
        given: What was passed.
        check: Called with the data before the graph is made.
        nodes: Gives, of the data, a dataset whose training items are the nodes of the graph;
            None: the data itself.

    Raises:
        DataError: If the data cannot be loaded, or does not fit what was passed.
        GraphError: If the graph cannot be read or built.
    """
    given = given or Given()
    dataset, true_labels = prepare_data(config, progress, given.dataset)
    if check:
        check(dataset)
    graph = summary = None
    if config.uses_graph:
        items = nodes(dataset) if nodes else dataset
        labels = true_labels if items is dataset else items.train.labels
        given.check_sizes(len(items.train))
        graph, summary = prepare_graph(config, items, labels, progress, given)
    return Material(dataset, true_labels, graph, summary, given.model, given.vectors)


def prepare_data(
    config: TrainConfig, progress: Progress, dataset: Dataset | None = None
) -> tuple[Dataset, np.ndarray]:
    """The data as trained on, and the training labels before any was hidden; logs what it is.

    Args:
        config: Names the data, and how many labels are kept.
        progress: Called while work goes on.
        dataset: Data that was passed instead.
    """
    if dataset is None:
        dataset = load_data(config, progress)
    else:
        # The digest, so that nothing is taken from the cache for other images.
        dataset = dataclasses.replace(dataset, checksum=config.dataset)
    true_labels = measured_by(config, dataset).train.labels
    dataset = within_budget(config, dataset)
    logger.info(
        f"Data: {dataset.name}, {len(dataset.train)} training images "
        f"({int(dataset.train.labeled.sum())} labeled), {len(dataset.validation)} for validation, "
        f"{len(dataset.test)} for the test; from {dataset.source}"
    )
    for note in dataset.notes:
        logger.info(f"  {note}")
    return dataset, true_labels


def prepare_graph(
    config: TrainConfig,
    dataset: Dataset,
    true_labels: np.ndarray,
    progress: Progress,
    given: Given | None = None,
) -> tuple[SimilarityGraph, dict[str, Any]]:
    """The graph over the training images and its summary; logs what it is like."""
    given = given or Given()
    graph = training_graph(config, dataset, progress, graph=given.graph, vectors=given.vectors)
    summary = describe_graph(graph, true_labels)
    logger.info(f"Graph: {summary['nodes']} nodes, {edges_in_words(summary)}")
    for sentence in filter(None, [search_note(graph), *summary.pop("warnings")]):
        logger.info(f"  {sentence}")
    return graph, summary


def describe_graph(graph: SimilarityGraph, labels: np.ndarray) -> dict[str, Any]:
    """Nodes, edges and label agreement, with `warnings` where the graph term would be zero."""
    found = diagnose(graph, labels)
    agreement = ("edge_label_agreement", "labeled_edges")
    kept = ("nodes", "edges", *agreement, "isolated", "components", "hubness_skew")
    warnings = [found["why_zero"]] if found["why_zero"] else []
    return {**{name: found[name] for name in kept}, "warnings": warnings}
