"""Figures of images: what was retrieved, mistaken, joined, and boxed.

Every function gives a matplotlib Figure of page width. Images are `[N, height, width, 1 or 3]`
uint8, indexed by an int64 array.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import DataError
from tfgraphreg.visualize.style import (
    PAGE_WIDTH,
    RIGHT,
    WRONG,
    color_of,
    draw_box,
    figure,
    show_image,
)


def retrieval_grid(
    query_images: np.ndarray,
    query_labels: np.ndarray,
    gallery_images: np.ndarray,
    gallery_labels: np.ndarray,
    neighbors: np.ndarray,
    class_names: Sequence[str],
    *,
    query_words: Sequence[str] | None = None,
    title: str = "Queries and their nearest images",
) -> Any:
    """A row for each query: the query, then its nearest images, nearest first.

    Right ones (the query's class, or one of its classes) are framed in blue and wrong ones in
    orange, with their class named below, so that color is not the only sign. Where the query or
    the image has no label there is nothing to judge: no frame.

    Args:
        query_images: Q images, at most about 12 for a page.
        query_labels: `[Q]` class numbers or `[Q, C]` multi-hot rows.
        gallery_images: Images that `neighbors` points to.
        gallery_labels: Their labels.
        neighbors: `[Q, K]` positions in the gallery.
        class_names: C names.
        query_words: Q texts to stand below the queries instead of the names of their classes.
        title: Above the grid.
    """
    neighbors = np.asarray(neighbors, np.int64)
    rows, columns = neighbors.shape
    with figure(height=_grid_height(rows, columns + 1)) as made:
        cells = made.subplots(rows, columns + 1, squeeze=False)
        made.suptitle(title, fontsize=10)
        if rows:
            cells[0, 0].set_title("query", fontsize=8)
        for row in range(rows):
            label = query_labels[row]
            text = query_words[row] if query_words else _name(label, class_names)
            _cell(cells[row, 0], query_images[row], text, None)
            found = neighbors[row]
            for axes, image, other in zip(
                cells[row, 1:], gallery_images[found], gallery_labels[found]
            ):
                _neighbor(axes, image, label, other, class_names)
    return made


def worst_mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    count: int = 24,
    columns: int = 8,
) -> Any:
    """The wrongly classified images with the most confident predictions, worst first.

    Args:
        images: N images.
        labels: `[N]` class numbers, -1 where unlabeled.
        probabilities: `[N, C]`.
        class_names: C names.
        count: At most this many.
        columns: Images in a row.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    guess = probabilities.argmax(axis=1)
    wrong = np.flatnonzero((guess != labels) & (labels >= 0))
    if not len(wrong):
        return _only_words(f"No mistakes among {np.count_nonzero(labels >= 0)} labeled images")
    worst = wrong[np.argsort(-probabilities[wrong, guess[wrong]], kind="stable")][:count]
    rows = -(-len(worst) // columns)
    with figure(height=_grid_height(rows, columns, lines=3)) as made:
        cells = made.subplots(rows, columns, squeeze=False).ravel()
        made.suptitle(f"The {len(worst)} most confident of {len(wrong)} mistakes", fontsize=10)
        for axes in cells[len(worst) :]:
            axes.set_axis_off()
        for axes, item, image in zip(cells, worst, images[worst]):
            share = probabilities[item, guess[item]]
            names = f"is {class_names[labels[item]]}\nsaid {class_names[guess[item]]}"
            text = f"{names}\n({share:.0%} sure)"
            _cell(axes, image, text, None)
    return made


def neighbor_comparison(
    images: np.ndarray,
    labels: np.ndarray,
    items: np.ndarray,
    graph_neighbors: Sequence[np.ndarray],
    embedding_neighbors: Sequence[np.ndarray],
    class_names: Sequence[str],
    *,
    count: int = 4,
) -> Any:
    """For each item its neighbors in the graph (left) beside those in the embedding (right).

    Args:
        images: N images.
        labels: `[N]` class numbers or `[N, C]` multi-hot rows.
        items: Positions of the items, at most about 10 for a page.
        graph_neighbors: For each item, positions of its graph neighbors, nearest first.
        embedding_neighbors: The same in the embedding.
        class_names: C names.
        count: At most so many neighbors of each kind.
    """
    items = np.asarray(items, np.int64)
    widths = [1.0, 0.15, *[1.0] * count, 0.15, *[1.0] * count]
    with figure(height=_grid_height(len(items), sum(widths))) as made:
        cells = made.subplots(len(items), len(widths), squeeze=False, width_ratios=widths)
        made.suptitle("Item | neighbors in the graph | neighbors in the embedding", fontsize=10)
        for row, item in enumerate(items):
            for axes in cells[row, 1:]:
                axes.set_axis_off()
            _cell(cells[row, 0], images[item], _name(labels[item], class_names), None)
            for start, found in (
                (2, graph_neighbors[row]),
                (3 + count, embedding_neighbors[row]),
            ):
                for axes, other in zip(cells[row, start:], np.asarray(found)[:count]):
                    axes.set_axis_on()
                    _neighbor(axes, images[other], labels[item], labels[other], class_names)
    return made


def image_pairs(
    images: np.ndarray,
    pairs: np.ndarray,
    captions: Sequence[str],
    *,
    columns: int = 4,
    title: str = "Pairs of highest distortion",
) -> Any:
    """Pairs of images side by side, such as those that an embedding distorts most.

    Args:
        images: N images.
        pairs: `[P, 2]` positions.
        captions: P lines.
        columns: Pairs in a row.
        title: Above the grid.
    """
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    if len(captions) != len(pairs):
        raise DataError(
            "Every pair needs a caption.", received=f"{len(pairs)} pairs, {len(captions)} captions"
        )
    rows = max(1, -(-len(pairs) // columns))
    with figure(height=_grid_height(rows, 2.2 * columns, lines=2)) as made:
        cells = made.subplots(rows, columns, squeeze=False).ravel()
        made.suptitle(title, fontsize=10)
        for axes in cells[len(pairs) :]:
            axes.set_axis_off()
        for axes, (first, second), caption in zip(cells, pairs, captions):
            left, right = np.asarray(images[first]), np.asarray(images[second])
            gap = np.full(
                (left.shape[0], max(1, left.shape[1] // 12), left.shape[2]), 255, np.uint8
            )
            _cell(axes, np.concatenate([left, gap, right], axis=1), caption, None)
    return made


def boxed_images(
    images: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    box_classes: Sequence[np.ndarray],
    class_names: Sequence[str],
    *,
    columns: int = 3,
) -> Any:
    """Images with their boxes, each named.

    Args:
        images: Images of any sizes.
        boxes: For each image `[A, 4]`: x_min, y_min, x_max, y_max in pixels.
        box_classes: For each image `[A]` class numbers.
        class_names: C names.
        columns: Images in a row.
    """
    rows = max(1, -(-len(images) // columns))
    with figure(height=_grid_height(rows, columns)) as made:
        cells = made.subplots(rows, columns, squeeze=False).ravel()
        for axes in cells[len(images) :]:
            axes.set_axis_off()
        for axes, image, corners, kinds in zip(cells, images, boxes, box_classes):
            show_image(axes, image)
            for box, kind in zip(corners, kinds):
                draw_box(axes, box, class_names[int(kind)], color_of(int(kind)))
    return made


def _only_words(text: str) -> Any:
    with figure(height=0.8) as made:
        made.text(0.5, 0.5, text, ha="center", va="center", fontsize=10)
    return made


def _grid_height(rows: int, columns: float, *, lines: int = 1) -> float:
    return 0.45 + rows * (PAGE_WIDTH / columns + 0.16 * lines)


def _cell(axes: Any, image: np.ndarray, text: str, frame: str | None) -> None:
    show_image(axes, image, frame=frame)
    axes.set_xlabel(text, fontsize=6.5, labelpad=2)


def _neighbor(
    axes: Any, image: np.ndarray, label: Any, other: Any, class_names: Sequence[str]
) -> None:
    """A neighbor of an image with `label`: right, wrong, or without a label to judge by."""
    name = _name(other, class_names)
    if not (_labeled(label) and _labeled(other)):
        _cell(axes, image, name, None)
    elif _same(label, other):
        _cell(axes, image, name, RIGHT)
    else:
        _cell(axes, image, f"✗ {name}", WRONG)


def _labeled(label: Any) -> bool:
    return bool(np.min(label, initial=0) >= 0)


def _name(label: np.ndarray, class_names: Sequence[str]) -> str:
    if not _labeled(label):
        return "unlabeled"
    if np.ndim(label):
        names = [class_names[i] for i in np.flatnonzero(np.asarray(label) > 0).tolist()]
        return ", ".join(names[:2]) + (" ..." if len(names) > 2 else "") if names else "-"
    return class_names[int(label)]


def _same(label: np.ndarray, other: np.ndarray) -> bool:
    if np.ndim(label):
        return bool(((np.asarray(label) > 0) & (np.asarray(other) > 0)).any())
    return bool(label == other)


def contact_sheet(images: np.ndarray, texts: Sequence[str], *, columns: int = 10) -> Any:
    """All images side by side, ten in a row, each with a text below.

    Args:
        images: M images.
        texts: M words.
        columns: Images in a row.
    """
    rows = -(-len(images) // columns)
    with figure(height=_grid_height(rows, columns)) as made:
        cells = made.subplots(rows, columns, squeeze=False).ravel()
        for axes in cells[len(images) :]:
            axes.set_axis_off()
        for axes, image, text in zip(cells, images, texts):
            _cell(axes, image, text, None)
    return made
