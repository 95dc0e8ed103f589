"""Embeddings in two or three dimensions, colored by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import DataError
from tfgraphreg.visualize.style import PAGE_WIDTH, color_of, figure, marker_of

_PER_ROW = 2


def scatter(
    panels: Mapping[str, np.ndarray],
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    new: np.ndarray | None = None,
) -> Any:
    """One panel for each embedding, side by side, in the colors of the classes.

    Beyond ten classes the colors repeat with other markers. Unlabeled items are light gray.

    Args:
        panels: `[N, 2]` or `[N, 3]` points by title.
        labels: `[N]` class numbers, -1 where unlabeled.
        class_names: C names.
        new: `[N]` bool: items that were placed among the others later, ringed in black.

    Returns:
        A matplotlib Figure of page width.
    """
    labels = np.asarray(labels)
    columns = min(_PER_ROW, len(panels))
    rows = -(-len(panels) // columns)
    with figure(height=rows * (PAGE_WIDTH - 1.3) / columns + 0.3) as made:
        handles = {}
        for place, (title, points) in enumerate(panels.items()):
            points = np.asarray(points)
            if points.ndim != 2 or points.shape[1] not in (2, 3) or len(points) != len(labels):
                raise DataError(
                    "Points must be [N, 2] or [N, 3] with one label each.",
                    received=f"shape={points.shape}, {len(labels)} labels",
                )
            kind = {"projection": "3d"} if points.shape[1] == 3 else {}
            axes = made.add_subplot(rows, columns, place + 1, **kind)
            handles.update(_draw(axes, points, labels, class_names, new))
            axes.set_title(title)
            axes.set(xticks=[], yticks=[], **({"zticks": []} if kind else {}))
            if kind:
                _in_a_cube(axes, points)
            else:
                axes.set_aspect("equal", adjustable="datalim")
        made.legend(
            handles.values(),
            handles.keys(),
            loc="outside right upper",
            frameon=False,
            markerscale=3,
            fontsize=8,
        )
    return made


def _in_a_cube(axes: Any, points: np.ndarray) -> None:
    """One scale on all three axes, in a cube: a box as flat as its points cannot be read."""
    low, high = points.min(axis=0), points.max(axis=0)
    middle, half = (low + high) / 2, 0.52 * float((high - low).max()) or 1.0
    for name, center in zip("xyz", middle):
        axes.set(**{f"{name}lim": (center - half, center + half)})
    axes.set_box_aspect((1, 1, 1))


def _draw(
    axes: Any,
    points: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    new: np.ndarray | None,
) -> dict[str, Any]:
    size = float(np.clip(6000 / max(len(points), 1), 1.5, 14))
    handles = {}
    for number in np.unique(labels):
        rows = labels == number
        known = number >= 0
        handles[class_names[number] if known else "unlabeled"] = axes.scatter(
            *points[rows].T,
            s=size,
            c=color_of(number) if known else "#DDDDDD",
            marker=marker_of(number) if known else "o",
            linewidths=0,
            rasterized=True,
        )
    if new is not None and np.any(new):
        ring = axes.scatter(
            *points[np.asarray(new)].T,
            s=3 * size,
            facecolors="none",
            edgecolors="black",
            linewidths=0.4,
            rasterized=True,
        )
        handles["new"] = ring
    return handles
