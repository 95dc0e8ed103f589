"""Figures of numbers: classes, mistakes and learning curves.

Every function gives a matplotlib Figure of page width; `tfgraphreg.visualize.style.save` writes
it as PNG and SVG. Shapes: N items, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import DataError
from tfgraphreg.visualize.style import COLORS, figure

_MANY = 40


def class_distribution(
    splits: Mapping[str, np.ndarray], class_names: Sequence[str], *, title: str = "Items by class"
) -> Any:
    """Bars of the number of items of each class, one color for each split.

    Args:
        splits: Labels by split name: `[N]` class numbers or `[N, C]` multi-hot rows. Items with
            -1 get a bar of their own, `unlabeled`, if there are any.
        class_names: C names.
        title: Above the bars.
    """
    counts = {name: _class_counts(labels, len(class_names)) for name, labels in splits.items()}
    names = [*class_names, "unlabeled"]
    if not any(values[-1] for values in counts.values()):
        counts = {name: values[:-1] for name, values in counts.items()}
        names = names[:-1]
    classes = len(names)
    with figure(height=max(2.0, 0.9 + 0.22 * classes)) as made:
        axes = made.subplots()
        thick = 0.8 / max(len(counts), 1)
        for number, (name, values) in enumerate(counts.items()):
            places = np.arange(classes) + (number - (len(counts) - 1) / 2) * thick
            axes.barh(places, values, thick, label=name, color=COLORS[number % len(COLORS)])
        axes.set_yticks(np.arange(classes), names)
        axes.set_ylim(classes - 0.4, -0.6)
        axes.set(title=title, xlabel="items")
        axes.xaxis.set_major_locator(_whole_numbers())
        if len(counts) > 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return made


def bars_by_class(values: Mapping[str, float], *, notes: Sequence[str], title: str) -> Any:
    """A bar from 0 to 1 for each class, with its number and a note beside it.

    Args:
        values: Numbers by class name; NaN where there is nothing to judge.
        notes: A few words about each class.
        title: Above the bars.
    """
    numbers = np.array([*values.values()], np.float64)
    places = np.arange(len(numbers))
    with figure(height=max(2.0, 0.9 + 0.22 * len(numbers))) as made:
        axes = made.subplots()
        axes.barh(places, np.nan_to_num(numbers), 0.7, color=COLORS[0])
        axes.set_yticks(places, list(values))
        axes.set(title=title, xlim=(0, 1), ylim=(len(numbers) - 0.4, -0.6))
        for place, number, note in zip(places, numbers, notes):
            shown = "–" if np.isnan(number) else f"{number:.3f}"
            axes.text(
                1.02,
                place,
                f"{shown}  ({note})",
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=8,
            )
    return made


def confusion_matrix(
    matrix: np.ndarray, class_names: Sequence[str], *, title: str = "Confusion matrix"
) -> Any:
    """A `[C, C]` count of items (row: true, column: predicted), shaded by share of the row.

    Up to 20 classes every cell that is not 0 shows its count.
    """
    matrix = np.asarray(matrix)
    classes = len(class_names)
    if matrix.shape != (classes, classes):
        raise DataError(
            "A confusion matrix needs one row and one column for each class.",
            received=f"shape={matrix.shape}, {classes} classes",
        )
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    with figure(height=6.2) as made:
        axes = made.subplots()
        shown = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        size = 9 if classes <= _MANY else 4
        axes.set_xticks(np.arange(classes), class_names, rotation=90, fontsize=size)
        axes.set_yticks(np.arange(classes), class_names, fontsize=size)
        axes.set(title=title, xlabel="predicted", ylabel="true")
        if classes <= 20:
            for row, column in zip(*np.nonzero(matrix)):
                color = "white" if share[row, column] > 0.5 else "black"
                text = str(matrix[row, column])
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
        made.colorbar(shown, ax=axes, label="share of the true class", shrink=0.8)
    return made


def learning_curves(
    history: Sequence[Mapping[str, float]] | Mapping[str, Sequence[Mapping[str, float]]],
    *,
    metrics: Sequence[str] = ("loss", "accuracy"),
) -> Any:
    """One panel for each metric, training as a line and validation dashed, by epoch.

    Args:
        history: Rows of history.csv, one an epoch; or such rows by run name.
        metrics: Columns; `val_<metric>` is drawn with it where it exists.
    """
    runs = history if isinstance(history, Mapping) else {"": history}
    with figure(height=2.8) as made:
        panels = made.subplots(1, len(metrics), squeeze=False)[0]
        for axes, metric in zip(panels, metrics):
            for number, (name, rows) in enumerate(runs.items()):
                color = COLORS[number % len(COLORS)]
                for column, line, kind in (
                    (metric, "-", "training"),
                    (f"val_{metric}", "--", "validation"),
                ):
                    points = [(i + 1, r[column]) for i, r in enumerate(rows) if column in r]
                    if points:
                        label = f"{name} {kind}".strip()
                        marker = "o" if len(points) < 30 else None
                        axes.plot(
                            *zip(*points), line, color=color, label=label, marker=marker, ms=3
                        )
            axes.set(xlabel="epoch", title=metric.replace("_", " "))
            axes.xaxis.set_major_locator(_whole_numbers())
            axes.grid(alpha=0.3)
        named: set[str] = set()
        for axes in panels:
            labels = {line.get_label() for line in axes.lines}
            if labels - named:
                axes.legend(frameon=False, fontsize=8)
            named |= labels
    return made


def distortion_cdf(distortions: Mapping[str, np.ndarray]) -> Any:
    """Share of pairs up to each distortion, one line for each named embedding.

    Args:
        distortions: `[E]` numbers by name, such as `Layout.distortions`.
    """
    with figure(height=2.8) as made:
        axes = made.subplots()
        for number, (name, values) in enumerate(distortions.items()):
            values = np.sort(np.asarray(values, np.float64))
            share = np.arange(1, len(values) + 1) / max(len(values), 1)
            axes.plot(values, share, color=COLORS[number % len(COLORS)], label=name)
        axes.set(xlabel="distortion of a pair", ylabel="share of pairs", ylim=(0, 1.02))
        axes.set_title("Distribution of distortions")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, loc="lower right")
    return made


def _class_counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """`[C + 1]` items of each class, then those without a label."""
    labels = np.asarray(labels)
    if labels.ndim == 2:
        unlabeled = (labels < 0).any(axis=1)
        return np.append((labels > 0).sum(axis=0), unlabeled.sum())
    return np.bincount(np.where(labels < 0, classes, labels), minlength=classes + 1)


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)
