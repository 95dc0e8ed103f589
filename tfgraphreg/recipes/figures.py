"""The figures of a run folder, as PNG and SVG."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.runs.folder import FIGURES, RunFolder
from tfgraphreg.runs.outputs import RunOutputs
from tfgraphreg.search.ranking import nearest
from tfgraphreg.training.history import HISTORY, read_history
from tfgraphreg.visualize import figures, grids
from tfgraphreg.visualize.style import save

logger = logging.getLogger(__name__)

# Figures by name; each is made when it is asked for.
Pictures = Iterable[tuple[str, Any]]

_ROWS = 10
_NEIGHBORS = 8
# Above that a figure of all classes cannot be read, nor opened.
_MOST_CLASSES = 200


def draw_figures(
    seen: RunOutputs,
    found: dict[str, Any],
    graph: SimilarityGraph | None,
    distance: str,
    progress: Any,
) -> list[str]:
    """Draws what a run has to show, and gives the names of the figures.

    Args:
        seen: The run and its outputs.
        found: What `evaluate_run` measured.
        graph: The training graph, or None.
        distance: Registered distance of the embedding.
        progress: Called with (what, done, total).
    """
    return save_figures(seen.run, _pictures(seen, found, graph, distance), progress)


def save_figures(run: RunFolder, pictures: Pictures, progress: Any) -> list[str]:
    """Writes figures into a run folder, each as it is made, and gives their names."""
    made = []
    for name, picture in pictures:
        save(picture, run.path / FIGURES / name)
        made.append(name)
        progress("drawing", len(made), None)
    if made:
        logger.info(f"Figures: {run.path / FIGURES}: {', '.join(made)}")
    return made


def curves(run: RunFolder, metrics: Sequence[str]) -> Pictures:
    """The learning curves of a run: those of these metrics that say something."""
    history = read_history(run.path / HISTORY)
    shown = [m for m in metrics if any(_says(row, m) for row in history)]
    if shown:
        yield "learning_curves", figures.learning_curves(history, metrics=shown)


def _says(row: dict[str, float], metric: str) -> bool:
    # Without a graph term its loss is 0 throughout.
    if metric == "graph_loss":
        return bool(row.get(metric))
    return metric in row or f"val_{metric}" in row


def _pictures(
    seen: RunOutputs, found: dict[str, Any], graph: SimilarityGraph | None, distance: str
) -> Iterator[tuple[str, Any]]:
    data, test = seen.dataset, seen.dataset.test
    names = data.class_names
    if data.num_classes <= _MOST_CLASSES:
        splits = {"training": data.train, "validation": data.validation, "test": data.test}
        labels = {name: split.labels for name, split in splits.items() if len(split)}
        yield "class_distribution", figures.class_distribution(labels, names)
    if not data.multilabel:
        if data.num_classes <= _MOST_CLASSES:
            matrix = found["classification"]["confusion_matrix"]
            yield "confusion_matrix", figures.confusion_matrix(matrix, names)
        yield (
            "worst_mistakes",
            grids.worst_mistakes(test.images, test.labels, seen.test["probabilities"], names),
        )
    if len(test) and len(data.train):
        yield "retrieval", _retrieval(seen, distance)
    if graph is not None and graph.num_edges:
        yield "graph_and_embedding", _graph_and_embedding(seen, graph, distance)
    yield from curves(seen.run, ("loss", "graph_loss", "accuracy"))
    yield from _object_pictures(data)


def _retrieval(seen: RunOutputs, distance: str) -> Any:
    data = seen.dataset
    chosen = _one_of_each_class(data.test, data.num_classes)
    near = _nearest(seen.test["embedding"][chosen], seen.train["embedding"], _NEIGHBORS, distance)
    return grids.retrieval_grid(
        data.test.images[chosen],
        data.test.labels[chosen],
        data.train.images,
        data.train.labels,
        near,
        data.class_names,
        title="Test images and the nearest training images in the embedding",
    )


def _graph_and_embedding(seen: RunOutputs, graph: SimilarityGraph, distance: str) -> Any:
    train, embedding = seen.dataset.train, seen.train["embedding"]
    joined = np.flatnonzero(np.diff(graph.indptr))
    items = np.sort(np.random.default_rng(0).permutation(joined)[:_ROWS])
    near = _nearest(embedding[items], embedding, 5, distance)
    heaviest, _ = graph.top(4)
    return grids.neighbor_comparison(
        train.images,
        train.labels,
        items,
        [row[row >= 0] for row in heaviest[items]],
        [row[row != item][:4] for row, item in zip(near, items)],
        seen.dataset.class_names,
    )


def _nearest(queries: np.ndarray, gallery: np.ndarray, k: int, distance: str) -> np.ndarray:
    parts = nearest(queries, gallery, k, distance=distance)
    return np.concatenate([positions for _, positions, _ in parts])


def _one_of_each_class(split: Split, classes: int) -> np.ndarray:
    """Positions of up to ten items, each of another class as far as that goes, drawn by chance."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(split))
    labels = split.labels[order]
    first = labels.argmax(axis=1) if split.multilabel else labels
    _, places = np.unique(first, return_index=True)
    if len(places) > _ROWS:
        places = np.sort(rng.permutation(places)[:_ROWS])
    return order[places]


def _object_pictures(data: Dataset) -> Iterator[tuple[str, Any]]:
    """Objects by class, and images with their boxes, for a dataset that has boxes."""
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    boxed = {name: s for name, s in splits.items() if len(s) and "box_classes" in s.extras}
    if not boxed:
        return
    # -1 fills the rows of images with fewer boxes.
    counts = {n: c[c >= 0] for n, c in ((n, s.extras["box_classes"]) for n, s in boxed.items())}
    yield (
        "objects_per_class",
        figures.class_distribution(counts, data.class_names, title="Objects by class"),
    )
    split = next(iter(boxed.values()))
    having = np.flatnonzero((split.extras["box_classes"] >= 0).any(axis=1))[:9]
    if not len(having):
        return
    images = split.images[having]
    height, width = images.shape[1:3]
    corners, kinds = [], []
    for item in having:
        known = split.extras["box_classes"][item] >= 0
        top, left, bottom, right = split.extras["boxes"][item][known].T
        corners.append(np.stack([left * width, top * height, right * width, bottom * height], 1))
        kinds.append(split.extras["box_classes"][item][known])
    yield "boxes", grids.boxed_images(images, corners, kinds, data.class_names)
